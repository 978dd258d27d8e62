"""Which tensors learn: under noise, fewer of a pre-trained network often learn more."""

from torch import nn

from client.privacy.settings import Trainable
from strategies.layers import head, normalisation_layers

DECODER = ("up", "fuse", "head")


def trainable_names(model: nn.Module, which: Trainable) -> frozenset[str]:
    """Names of the parameters that `which` lets learn: all, the decoder's, or the head's and all norms'."""
    names = frozenset(name for name, _ in model.named_parameters())
    if which == "decoder":
        return frozenset(name for name in names if name.partition(".")[0] in DECODER)
    if which == "head_and_norms":
        shapes = {name: weight.detach().numpy(force=True) for name, weight in model.named_parameters()}
        return head(shapes) | normalisation_layers(shapes)
    return names
