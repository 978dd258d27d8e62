"""The operator of the network, Bi-WKV, behind one door."""

from urwkv.ops.biwkv import BACKENDS, biwkv

__all__ = ["BACKENDS", "biwkv"]
