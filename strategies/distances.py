"""Distances between models over their trainable parameters: differences first, squares after, all in float64.

Inner products would be quicker, but |a|^2 - 2 a b + |b|^2 loses what is small between large models. And compiled
loops or einsum, not BLAS, which rounds differently with the number of its threads.
"""

import math
from collections.abc import Sequence

import numpy as np

from strategies.base import Update
from strategies.groups import group_of
from strategies.local import Arrays
from strategies.sums import Float64, flat
from strategies.together import columns


def length_squared(x: Arrays, y: Arrays) -> float:
    """|y - x|^2."""
    from strategies import compiled  # here, since only who measures should wait for the compiler

    names = (name for name, a in x.items() if group_of(name, a.dtype) == "parameter")
    return math.fsum(compiled.squared_distance(*flat(y[name], x[name])) for name in names)


def between(x: Arrays, updates: Sequence[Update]) -> Float64:
    """|y_i - y_j|^2 of all pairs, (updates, updates)."""
    squared: Float64 = np.zeros((len(updates), len(updates)))
    for _, _, values in columns(x, updates):
        for i in range(len(updates) - 1):
            steps = values[i + 1 :] - values[i]
            squared[i, i + 1 :] += np.einsum("ij,ij->i", steps, steps)
    return squared + squared.T


def to_mean(x: Arrays, updates: Sequence[Update], weights: Float64) -> Float64:
    """|y_i - v| of each update from the mean v of all, whose weights sum to 1."""
    squared: Float64 = np.zeros(len(updates))
    for _, _, values in columns(x, updates):
        values -= np.einsum("i,ij->j", weights, values)
        squared += np.einsum("ij,ij->i", values, values)
    return np.sqrt(squared)
