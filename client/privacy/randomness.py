"""Random numbers that a guarantee rests on: whose images are drawn, and the noise."""

import hashlib
import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

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
        return np.frombuffer(stream.update(bytes(8 * count)), np.uint64)

    def uniforms(self, count: int) -> Floats:
        """`count` numbers between 0 and 1, neither included: the exact middles of 2^52 equal parts."""
        return ((self.bits(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normals(self, count: int) -> Floats:
        """`count` standard normal numbers, by Box and Muller's polar form; torch takes a fraction of numpy's time."""
        pairs = -(-count // 2)
        radius, angle = (torch.from_numpy(self.uniforms(pairs)) for _ in range(2))
        radius.log_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        both = torch.empty(2, pairs, dtype=torch.float64)
        torch.mul(radius, torch.cos(angle), out=both[0])
        torch.mul(radius, angle.sin_(), out=both[1])
        return both.flatten().numpy()[:count]
