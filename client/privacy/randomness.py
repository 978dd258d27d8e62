"""Random numbers that a guarantee rests on: whose images are drawn, and the noise."""

import hashlib
import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

LOWEST_52 = 2**52 - 1
"""As many of 64 bits as float64 tells apart; the shift of a signed number keeps its sign above them."""

Floats = npt.NDArray[np.float64]


class Randomness:
    """ChaCha20's key stream as numbers, under a fresh key for each call.

    The keys come from the operating system: who sees noisy weights cannot compute what came before or comes next, as
    is possible with the generators of numpy and torch. Only a test or a simulation gives a seed: then everything
    repeats, and whoever knows the seed can take the noise off again.

    Args:
        seed: a seed for the keys; None, the only choice with real patients: the operating system's entropy.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._calls = 0

    def bits(self, count: int) -> npt.NDArray[np.uint64]:
        """`count` uniform numbers of 64 bits."""
        self._calls += 1
        if self._seed is None:
            key = os.urandom(32)
        else:
            key = hashlib.sha256(f"{self._seed}/{self._calls}".encode()).digest()
        stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        numbers = bytearray(8 * count)
        stream.update_into(bytes(8 * count), numbers)
        return np.frombuffer(numbers, np.uint64)

    def uniforms(self, count: int) -> Floats:
        """`count` numbers between 0 and 1, neither included: the exact middles of 2^52 equal parts."""
        return self._uniforms(count, torch.device("cpu")).numpy()

    def normals(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """`count` standard normal numbers in float64, by Box and Muller's polar form.

        Args:
            device: where they shall be. A GPU computes them there, of bits from here.
        """
        pairs = -(-count // 2)
        radius, angle = (self._uniforms(pairs, torch.device(device)) for _ in range(2))
        radius.log_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        both = torch.empty(2, pairs, dtype=torch.float64, device=device)
        torch.mul(radius, torch.cos(angle), out=both[0])
        torch.mul(radius, angle.sin_(), out=both[1])
        return both.flatten()[:count]

    def _uniforms(self, count: int, device: torch.device) -> Tensor:
        bits = torch.from_numpy(self.bits(count).view(np.int64)).to(device)
        return ((bits >> 12) & LOWEST_52).double().add_(0.5).mul_(2.0**-52)
