"""What holds for every test."""

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test for a GPU is skipped where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
