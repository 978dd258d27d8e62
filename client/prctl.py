"""Operations on the calling process: prctl(2)."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *words: object) -> None:
    """Ask the kernel for one.

    Raises:
        OSError: it refuses.
    """
    if _libc.prctl(option, *words, *[0] * (4 - len(words))):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
