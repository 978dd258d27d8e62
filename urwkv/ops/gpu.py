"""Where Triton's kernels of norms and of pairs compute."""

KIND = "cuda"
"""The kind of device; where the kernels are interpreted that is the CPU."""
