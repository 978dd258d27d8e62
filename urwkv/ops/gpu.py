"""Where Triton's kernels of maps and of tokens compute, and how wide their tiles of maps are."""

KIND = "cuda"
"""The kind of device; where the kernels are interpreted that is the CPU."""

WIDEST = 64
"""Channels of a tile: a line of the cache in 16 bits."""


def width_of(channels: int) -> int:
    """Channels of a tile: a power of two that divides a map's channels, where one from 8 on does, else one that holds
    them, or WIDEST of them."""
    width = min(WIDEST, channels & -channels)
    return width if width >= 8 else min(WIDEST, 1 << (channels - 1).bit_length())
