"""A fast lane for inference on small arrays, where the checks of a call cost more than its arithmetic.

What one call has found out about an array (its layout, how the work is cut, the parameters in the kernel's order)
serves the next ones with an array of the same shape and dtype, until the state changes. Only plain calls take the lane:
a C-contiguous, writable, aligned NumPy array of a floating dtype, into a new array, into another like it, or in place.
Everything else goes the general way, with the same result to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks, verbs
from .arrays import NDArray
from .backends import Backend

PLAIN = 0x0001 | 0x0100 | 0x0400  # the bits of ndarray.flags.num: C-contiguous, aligned, writable
MOST = 64  # shapes that are remembered

State = tuple[Any, ...]  # what the parameters come from, compared by identity
Run = Callable[[NDArray, NDArray], None]


@dataclass(frozen=True, slots=True)
class _Lane:
    state: State
    run: Run


class Lanes:
    """The lanes of one BatchNorm."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], _Lane] = {}

    def normalized(self, x: Any, out: Any, state: State) -> Any:
        """The output of an inference call, or None where there is no lane for it."""
        if type(x) is not np.ndarray:
            return None
        lane = self._known.get((x.shape, x.dtype))
        if lane is None or x.flags.num & PLAIN != PLAIN:
            return None
        for now, then in zip(state, lane.state, strict=True):
            if now is not then:
                return None
        if out is None:
            out = np.empty(x.shape, x.dtype)
        elif out is not x and not (
            type(out) is np.ndarray
            and out.dtype == x.dtype
            and out.shape == x.shape
            and out.flags.num & PLAIN == PLAIN
            and not np.may_share_memory(x, out)
        ):
            return None
        lane.run(x, out)
        return out

    def open(
        self,
        engine: Backend,
        x: NDArray,
        axes: tuple[int, ...],
        state: State,
        parameters: tuple[NDArray, NDArray, NDArray | None],
        activation: Any,
    ) -> None:
        """Remember how an array was normalized by (mean, scale, shift), if others like it can take the lane."""
        if not (x.size and x.flags.num & PLAIN == PLAIN and checks.is_float(x.dtype) and x.dtype.isnative):
            return
        run = verbs.prepared(engine, x, axes, *parameters, activation)
        if run is not None:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[x.shape, x.dtype] = _Lane(state, run)
