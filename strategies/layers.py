"""Which tensors belong to normalisation layers and which to the head, by their names and shapes alone.

Nobody has to say it: both ends see the same names and shapes and so agree, whatever the network. A convolution or
a linear layer has a weight of two or more dimensions, a normalisation layer one of a single dimension.
"""

from strategies.groups import MEAN, VARIANCE, group_of
from strategies.local import Arrays

HEAD = "head"


def normalisation_layers(x: Arrays) -> frozenset[str]:
    """Names of all tensors of normalisation layers: weight, bias, statistics, counters.

    A module is one when it has running statistics, when its `weight` and `bias` are one-dimensional and alike, or
    when it has a one-dimensional `weight` and is called a norm (`norm`, `norm1`, `bn2`).
    """
    modules: dict[str, dict[str, str]] = {}
    for name in x:
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = name
    found: set[str] = set()
    for module, leaves in modules.items():
        own = module.rpartition(".")[2].lower()
        weight, bias = (x[leaves[leaf]] if leaf in leaves else None for leaf in ("weight", "bias"))
        alike = weight is not None and weight.ndim == 1 and bias is not None and bias.shape == weight.shape
        named = weight is not None and weight.ndim == 1 and ("norm" in own or own.startswith("bn"))
        if alike or named or MEAN in leaves or VARIANCE in leaves:
            found.update(leaves.values())
    return frozenset(found)


def statistics(x: Arrays) -> frozenset[str]:
    """Names of the statistics of normalisation layers and of their counters."""
    return frozenset(name for name in normalisation_layers(x) if group_of(name, x[name].dtype) != "parameter")


def head(x: Arrays) -> frozenset[str]:
    """Names of the tensors of the head: those at or under a module called `head`."""
    return frozenset(name for name in x if HEAD in name.split("."))
