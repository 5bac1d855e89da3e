"""Whether weights can be used: looked through by themselves, or while the pass that needs them reads them anyway."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import NDArray, kernel_ready
from ..geometry import Geometry
from . import cuts
from .cuts import GRAIN, SMALL
from .passes import parts_of
from .scratch import Run
from .threads import parallel_for


def refuse_unusable() -> None:
    """The ValueError of weights that cannot be used."""
    raise ValueError("`weights` holds a negative, infinite or NaN weight; expected finite numbers, 0 or more")


def look_through(flat: NDArray) -> None:
    """ValueError unless all of a contiguous array is finite and not negative; it is read once, by all threads."""
    look = _look_at(flat)
    parallel_for(
        lambda lo, hi: look(lo * GRAIN, min(hi * GRAIN, flat.size)), -(-flat.size // GRAIN), small=flat.size <= SMALL
    )


def looking(flat: NDArray, g: Geometry) -> Run:
    """`parallel_for` that looks at an item's share of the weights before the item reads them, from a cache then.

    That is where each part is one item, so that items read on from one to the next in x's order. Where there are
    several blocks of columns or channels, the weights are looked through first.
    """

    def run(work: Callable[[int, int], None], items: int, small: bool = False) -> None:
        if items != parts_of(g):
            look_through(flat)
            parallel_for(work, items, small)
            return
        look = _look_at(flat)

        def looked(lo: int, hi: int) -> None:
            for item in range(lo, hi):
                look(flat.size * item // items, flat.size * (item + 1) // items)
                work(item, item + 1)

        parallel_for(looked, items, small)

    return run


def _look_at(flat: NDArray) -> Callable[[int, int], None]:
    """What refuses weights lo..hi unless they can be used."""
    usable, weights = cuts.kernel("usable", "usable"), kernel_ready(flat)

    def look(lo: int, hi: int) -> None:
        if not usable(weights, lo, hi):
            refuse_unusable()

    return look
