"""What counts as foreground, said once for losses and metrics."""

import torch
from torch import Tensor


def foreground(labels: Tensor, num_classes: int) -> Tensor:
    """Integer labels (B, H, W) as one boolean map a foreground class, (B, K, H, W).

    With `num_classes` 1 every label above 0 is foreground, K = 1; otherwise class 0 is background and
    K = num_classes - 1. Waits for no device.
    """
    if num_classes == 1:
        return labels.unsqueeze(1) > 0
    classes = torch.arange(1, num_classes, device=labels.device)
    return labels.unsqueeze(1) == classes[:, None, None]
