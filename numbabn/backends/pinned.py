"""Pieces of host arrays on their way to a device and back: through pinned memory, on a few streams in turn.

While one piece is computed with, the next is copied there and the one before back. A piece waits for its own stream
alone, and its pinned memory is used again only when its copies are done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..arrays import NDArray
from ..devices import Place, empty, pointer_of
from ..devices.driver import Driver, on
from ..devices.shadow import Shadow, shadow_of
from ..geometry import Window, contiguous_window, scratch_order, window_over
from ..layout import Layout, boxes
from .desks import part_of
from .scratch import channel_numbers
from .threads import parallel_for

PIECE = 1 << 24  # bytes of x in a piece
SLOTS = 3  # pieces under way at once: one going there, one computed with, one coming back
DEVICE = 0  # where host arrays go
FREE = 1 << 28  # bytes of pinned memory that are kept for later calls
ONLY_WRITTEN = ("out", "dx", "dz")

_lock = threading.Lock()
_free: dict[int, list[int]] = {}


@dataclass(slots=True)
class Piece:
    """A part of the arrays on the device: the numbers of its channels, and a window over it."""

    at: NDArray
    window: Window
    place: Place
    arrays: dict[str, Shadow]


@dataclass(slots=True)
class _Slot:
    driver: Driver
    place: Place
    event: int
    pinned: list[tuple[int, int]] = field(default_factory=list)
    then: list[Callable[[], None]] = field(default_factory=list)

    def finish(self) -> None:
        """Wait for the piece, and do on the host what is left to do for it."""
        if self.then:
            self.driver.wait_here(self.event)
        for act in self.then:
            act()
        self.release()

    def release(self) -> None:
        """Give the pinned memory back."""
        self.then.clear()
        with _lock:
            for nbytes, pointer in self.pinned:
                _free.setdefault(nbytes, []).append(pointer)
        self.pinned.clear()

    def block(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
        """An array in pinned memory."""
        nbytes = 1 << max(12, (int(np.prod(shape)) * dtype.itemsize - 1).bit_length())
        with _lock:
            free = _free.get(nbytes)
            pointer = free.pop() if free else 0
        if not pointer:
            pointer = self.driver.alloc_pinned(nbytes)
        self.pinned.append((nbytes, pointer))
        return _at(pointer, shape, dtype)

    def send(self, a: NDArray, repeated: bool = False) -> Shadow:
        """A contiguous copy of an array on the device; axes along which it is repeated may stay so."""
        dense = a[tuple(slice(0, 1) if s == 0 else slice(None) for s in a.strides)] if repeated else a
        dtype = a.dtype.newbyteorder("=")
        block, shadow = self.block(dense.shape, dtype), empty(dense.shape, dtype, self.place)
        _copied(block, dense)
        self.driver.copy(pointer_of(shadow), pointer_of(block), block.nbytes, self.place.stream)
        spread: Any = np.broadcast_to(shadow, a.shape, subok=True) if repeated else shadow
        return cast(Shadow, spread)

    def fetch(self, shadow: Shadow, then: Callable[[NDArray], None]) -> None:
        """Bring an array back, and give it to `then` when it is there."""
        block = self.block(shadow.shape, shadow.dtype)
        self.driver.copy(pointer_of(block), pointer_of(shadow), block.nbytes, self.place.stream)
        self.then.append(lambda: then(block))


Work = Callable[[Piece], tuple[Shadow, Callable[[NDArray], None]] | None]


def pieces(layout: Layout, written: tuple[str, ...], work: Work, kept: dict[int, Any] | None = None) -> None:
    """Call `work` for pieces that together cover a layout of host arrays, and copy back what is `written`.

    work may give a small array of the device, and a function that gets it on the host, in the order of the pieces.
    kept: a dict, where x is to stay on the device between two passes over the same pieces.
    """
    channels = channel_numbers(layout)
    with _slots() as slots:
        for i, box in enumerate(boxes(layout.shape, max(1, PIECE // layout.arrays["x"].itemsize))):
            slot = slots[i % SLOTS]
            slot.finish()
            at = part_of(channels, box).reshape(-1)
            piece, targets = _sent(slot, layout, box, at, written, None if kept is None else kept.get(i))
            if kept is not None:
                kept[i] = piece.arrays["x"]
            answer = work(piece)
            for name in written:
                slot.fetch(piece.arrays[name], lambda block, to=targets[name]: _copied(to, block))  # type: ignore[misc]
            if answer is not None:
                slot.fetch(*answer)
            slot.driver.record(slot.event, slot.place.stream)
        for k in range(1, SLOTS + 1):
            slots[(i + k) % SLOTS].finish()


def fits(nbytes: int) -> bool:
    """Whether so much can stay on the device."""
    with on(DEVICE) as driver:
        return nbytes < driver.free_memory() // 2


@contextlib.contextmanager
def _slots() -> Iterator[list[_Slot]]:
    with on(DEVICE) as driver:
        slots = [_Slot(driver, Place(DEVICE, stream, "numbabn"), driver.new_event()) for stream in _streams(driver)]
        try:
            yield slots
        finally:
            for slot in slots:
                driver.synchronize(slot.place.stream)
                slot.release()
                driver.free_event(slot.event)
            _trim(driver)


_own = threading.local()


def _streams(driver: Driver) -> list[int]:
    """The streams of this thread."""
    if not hasattr(_own, "streams"):
        _own.streams = [driver.new_stream() for _ in range(SLOTS)]
    streams: list[int] = _own.streams
    return streams


def _trim(driver: Driver) -> None:
    """Keep no more pinned memory than `FREE` for later."""
    with _lock:
        while sum(nbytes * len(free) for nbytes, free in _free.items()) > FREE:
            most = max(nbytes for nbytes, free in _free.items() if free)
            driver.free_pinned(_free[most].pop())


def _sent(
    slot: _Slot, layout: Layout, box: tuple[slice, ...], at: NDArray, written: tuple[str, ...], x: Shadow | None
) -> tuple[Piece, dict[str, NDArray]]:
    """A piece on the device, and where on the host what is written of it goes."""
    views = {name: a[box] for name, a in layout.arrays.items()}
    picks = {name: a[box] for name, a in layout.picks.items()}
    kept = layout.kept
    in_order = _is_window(views["x"].shape, kept, slot.place)
    if not in_order:
        order = scratch_order(kept)
        kept = tuple(kept[d] for d in order)
        views, picks = ({n: a.transpose(order) for n, a in some.items()} for some in (views, picks))
    arrays = {} if x is None else {"x": x}
    for name, a in views.items():
        if name in ONLY_WRITTEN:
            arrays[name] = empty(a.shape, a.dtype.newbyteorder("="), slot.place)
        elif name not in arrays:
            arrays[name] = slot.send(a)
    spread = {name: slot.send(a, repeated=in_order) for name, a in picks.items()}
    window = window_over({**arrays}, kept, {**spread}) if in_order else None
    if window is None:  # picks that no window takes as they are repeated
        spread = {name: a if a.flags.c_contiguous else slot.send(picks[name]) for name, a in spread.items()}
        window = (
            window_over({**arrays}, kept, {**spread}) if in_order else contiguous_window({**arrays}, kept, {**spread})
        )
    assert window is not None
    return Piece(at, window, slot.place, arrays), {name: views[name] for name in written}


def _is_window(shape: tuple[int, ...], kept: tuple[bool, ...], place: Place) -> bool:
    """Whether the kernels take a contiguous array of this shape as it is."""
    nowhere = shadow_of(64, shape, None, np.dtype(np.float64), place)
    return window_over({"x": nowhere}, kept) is not None


def _at(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
    """An array over memory of the host."""
    return shadow_of(pointer, shape, None, dtype, Place(DEVICE, 0, "numbabn")).view(np.ndarray)


def _copied(to: NDArray, source: NDArray) -> None:
    """Copy on the threads there are."""
    if to.ndim == 0 or to.nbytes < 1 << 20:
        np.copyto(to, source)
        return
    parallel_for(lambda lo, hi: np.copyto(to[lo:hi], source[lo:hi]), to.shape[0])
