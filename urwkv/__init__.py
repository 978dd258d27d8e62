"""U-RWKV, a small 2-D segmentation network, with its losses, metrics and files. Knows no federation."""

from urwkv.network import URWKV, Architecture

__all__ = ["URWKV", "Architecture"]
