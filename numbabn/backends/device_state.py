"""The verbs of a BatchNorm that lives on a device: everything stays there, and nothing is waited for.

Vectors are shadows of float64, (channels,) in memory order or rows of that, flat. They take layouts that are direct;
others go the general way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import Place, empty
from ..layout import Layout
from . import cuda, cuts
from .cuda_launch import launch

THREADS = 256
LEARNERS = 1024  # threads of the one block that learns from all channels
RULES = {  # the code of a rule in `kernels/cuda_learn.py`, and whether it keeps the variance between batches
    "exponential": (0, 0),
    "mixture": (0, 1),
    "debiased": (1, 0),
    "debiased-mixture": (1, 1),
    "equal": (2, 0),
    "cumulative": (3, 0),
}


def is_direct(layout: Layout) -> bool:
    """Whether the kernels take the arrays as they are, and the channels lie as in the state."""
    return layout.order.channel_perm is None and layout.order.channel_turn is None and layout.window() is not None


def train(
    layout: Layout, gamma: Any, beta: Any, eps: float, omit: bool, activation: Any, place: Place, into: Any
) -> None:
    """Normalize "x" by its batch; its count, mean and M2, and its scale, go `into` two vectors."""
    x, out = layout.input().window(), layout.unpicked().window()
    assert x is not None
    assert out is not None
    cuda.train_window(x, out, gamma, beta, eps, omit, cuts.activation(activation), place, into)


def transform(layout: Layout, mean: Any, scale: Any, shift: Any, activation: Any, place: Place) -> None:
    """As `Backend.transform`, for a layout that `is_direct`."""
    window = layout.window()
    assert window is not None
    cuda.transform_window(window, mean, scale, shift, cuts.activation(activation), place)


def learn(
    stats: Any, running: Any, batches: Any, average: str, momentum: float, ddof: float, skip: bool, place: Place
) -> None:
    """Take the statistics of a batch into `running`."""
    rule, between = RULES[average]
    channels = stats.size // 3
    kernel = cuts.kernels("cuda_learn").learn
    how = (rule, between, float(momentum), float(ddof), int(skip))
    launch(kernel, (1, 1), (LEARNERS, 1), place, stats, running, batches, channels, *how)


def fold(running: Any, channels: int, gamma: Any, eps: float, center: bool, scale: Any, place: Place) -> None:
    """What inference multiplies the deviation from the running mean by, into `scale`."""
    kernel = cuts.kernels("cuda_learn").fold
    launch(kernel, _blocks(channels), (THREADS, 1), place, running, channels, gamma, float(eps), int(center), scale)


def gradients(
    forward: Layout,
    back: Layout,
    stats: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    omit: bool,
    act: Any,
    ways: Any,
    place: Place,
) -> None:
    """Write "dx" (and "dz") of a layout; rows 2 and 3 of the four of `ways` are the gradients of gamma and beta."""
    sums_of, inputs_of = forward.window(), back.window()
    assert sums_of is not None
    assert inputs_of is not None
    if not (omit or forward.picks) and cuda.back_window(
        sums_of, inputs_of, stats, gamma, beta, float(eps), cuts.activation(act), ways, place
    ):
        return
    channels = forward.channels
    shares = empty((2 * channels,), np.float64, place)
    kernels, grid, block = cuts.kernels("cuda_learn"), _blocks(channels), (THREADS, 1)
    launch(kernels.turn, grid, block, place, stats, channels, gamma, float(eps), shares)
    mean, scale = stats[channels : 2 * channels], shares[channels:]
    flow = None if act is None else (act, scale, beta)
    sums = cuda.sums_of_window(sums_of, mean, omit, flow, place)
    launch(kernels.ways, grid, block, place, stats, sums, shares, channels, ways)
    cuda.inputs_of_window(inputs_of, mean, scale, ways[:channels], ways[channels : 2 * channels], omit, flow, place)


def _blocks(channels: int) -> tuple[int, int]:
    return max(1, -(-channels // THREADS)), 1
