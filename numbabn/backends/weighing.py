"""Whether weights can be used: looked through by themselves, or while the pass that needs them reads them anyway."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import NDArray, kernel_ready
from ..layout import Geometry
from . import cuts
from .cuts import GRAIN, SMALL
from .passes import parts_of
from .threads import parallel_for

Work = Callable[[int, int], object]


def refuse_unusable() -> None:
    """The ValueError of weights that cannot be used."""
    raise ValueError("`weights` holds a negative, infinite or NaN weight; expected finite numbers, 0 or more")


def look_through(flat: NDArray) -> None:
    """ValueError unless all of a contiguous array is finite and not negative; it is read once, by all threads."""
    usable, weights = _usable(), kernel_ready(flat)

    def look(lo: int, hi: int) -> None:
        if not usable(weights, lo * GRAIN, min(hi * GRAIN, flat.size)):
            refuse_unusable()

    parallel_for(look, -(-flat.size // GRAIN), small=flat.size <= SMALL)


def looking(work: Work, items: int, flat: NDArray, g: Geometry) -> Work:
    """Work that looks at an item's share of the weights before the item reads them, from a cache then.

    That is where each part is one item, so that items read on from one to the next in x's order. Where there are
    several blocks of columns or channels, the weights are looked through first.
    """
    if items != parts_of(g):
        look_through(flat)
        return work
    usable, weights = _usable(), kernel_ready(flat)

    def looked(lo: int, hi: int) -> None:
        for item in range(lo, hi):
            if not usable(weights, flat.size * item // items, flat.size * (item + 1) // items):
                refuse_unusable()
            work(item, item + 1)

    return looked


def _usable() -> Callable[[NDArray, int, int], bool]:
    found: Callable[[NDArray, int, int], bool] = cuts.kernel("weights", "usable")
    return found
