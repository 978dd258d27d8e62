"""Three groups of tensors, three rules.

Trainable parameters follow the strategy. Statistics (the mean and variance of a batch normalisation) are pooled
by the law of total variance. Counters (integers) take their maximum. The group follows from a tensor's name and
dtype, so both ends of the wire and every strategy agree on it without a word.
"""

from typing import Literal

import numpy as np

Group = Literal["parameter", "statistic", "counter"]

MEAN, VARIANCE = "running_mean", "running_var"


def group_of(name: str, dtype: np.dtype) -> Group:
    """The group of one tensor of a state dict.

    Args:
        name: dotted name, for example `stem.1.running_var`.
        dtype: the tensor's dtype; integers and booleans are counters whatever their name.
    """
    if not np.issubdtype(dtype, np.floating):
        return "counter"
    return "statistic" if name.rpartition(".")[2] in (MEAN, VARIANCE) else "parameter"


def mean_of_variance(name: str) -> str:
    """The name of the running mean that belongs to the running variance `name`."""
    return name.removesuffix(VARIANCE) + MEAN
