"""From logits to labels."""

import torch
from torch import Tensor


def predict_labels(logits: Tensor) -> Tensor:
    """Logits (B, num_classes, H, W) as labels (B, H, W), uint8.

    With one class, 1 where its probability is above one half; otherwise the class of the largest logit.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(dim=1).to(torch.uint8)
