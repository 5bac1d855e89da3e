"""Arrays on a device that the kernels cannot take as they are: box by box through contiguous scratch, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..arrays import NDArray, kernel_ready
from ..devices import Place, empty, pointer_of
from ..devices.shadow import shadow_of
from ..geometry import Window, contiguous_window, scratch_order
from ..layout import Layout, boxes
from .cuda_launch import launch
from .cuts import kernels
from .desks import part_of
from .scratch import channel_numbers

BOX = 1 << 26  # values that are gathered at a time
THREADS = 256
ONLY_WRITTEN = ("out", "dx", "dz")


@dataclass(slots=True)
class Box:
    """A part of the arrays in scratch; `finish` brings back what was written."""

    views: dict[str, NDArray]
    copies: dict[str, NDArray]
    written: tuple[str, ...]

    def finish(self) -> None:
        """Copy what was written from scratch to the arrays."""
        for name in self.written:
            _copied("scatter", self.copies[name], self.views[name])


def boxed(layout: Layout, written: tuple[str, ...] = ()) -> Iterator[tuple[Box, NDArray, Window]]:
    """(box, the numbers of its channels, a window over its scratch) for boxes that together cover a layout."""
    channels, order = channel_numbers(layout), scratch_order(layout.kept)
    place: Place = layout.arrays["x"].place  # type: ignore[attr-defined]
    for box in boxes(layout.shape, BOX):
        views = {name: a[box].transpose(order) for name, a in layout.arrays.items()}
        picks = {name: a[box].transpose(order) for name, a in layout.picks.items()}
        everything = (*views.items(), *picks.items())
        copies: dict[str, NDArray] = {name: empty(a.shape, a.dtype, place) for name, a in everything}
        for name, view in everything:
            if name not in ONLY_WRITTEN:
                _copied("gather", copies[name], view)
        spread = {name: copies.pop(name) for name in picks}
        window = contiguous_window(dict(copies), tuple(layout.kept[d] for d in order), spread)
        yield Box(views, dict(copies), written), part_of(channels, box).reshape(-1), window


def _copied(direction: str, scratch: NDArray, view: NDArray) -> None:
    """Between a contiguous array and one of any strides, of one shape and dtype."""
    if not view.size:
        return
    place: Place = view.place  # type: ignore[attr-defined]
    size = view.itemsize
    if pointer_of(view) % size or any(s % size for s in view.strides):
        raise ValueError(
            f"an array of {view.dtype} lies at an address or in steps ({view.strides} bytes) that are no multiples of "
            f"{size} bytes, which a device cannot read; give a copy of it"
        )
    # Signed steps from the lowest address; what NumPy calls a stride is bytes.
    low = sum(min(0, (n - 1) * s) for n, s in zip(view.shape, view.strides, strict=True))
    reach = sum(abs((n - 1) * s) for n, s in zip(view.shape, view.strides, strict=True)) // size + 1
    flat = shadow_of(pointer_of(view) + low, (reach,), None, view.dtype, place, owner=view)
    shape, steps = tuple(view.shape), tuple(s // size for s in view.strides)
    kernel = getattr(kernels("cuda_copy"), direction)
    grid = (min(-(-view.size // THREADS), 1 << 20), 1)
    bits = f"u{size}"
    args = (kernel_ready(flat.view(bits)), -low // size, scratch.reshape(-1).view(bits), view.size, shape, steps)
    launch(kernel, grid, (THREADS, 1), place, *args)
