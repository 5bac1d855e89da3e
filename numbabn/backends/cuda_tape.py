"""Launches that were made once, made again on other arrays of the same kind: only their addresses are put in anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..devices import Place
from ..devices.shadow import pointer_of, shadow_of
from . import cuda_launch

POINTER = 4  # the slot of an array that holds its address (see `cuda_launch`)


@dataclass(frozen=True, slots=True)
class Within:
    """In the place of an argument: so far into the array with a number. It keeps nobody's array alive."""

    number: int
    apart: int
    size: int
    dtype: np.dtype[Any]


class Again:
    """What is on a tape, for the arrays that it was made with. All else that it used is kept, and used again."""

    __slots__ = ("_calls", "_made", "_moving", "_stream")

    def __init__(self, tape: list[cuda_launch.Launch], arrays: tuple[NDArray, ...]) -> None:
        reaches = [(*reach_of(a), pointer_of(a)) for a in arrays]
        self._made = [replace(launch, args=_without(launch.args, reaches)) for launch in tape]
        self._moving: list[tuple[Any, int, int, int]] = []
        for launch in self._made:
            self._find(launch.values, launch.args, 0)
        self._calls: list[tuple[Any, ...]] = []
        self._stream = 0

    def _find(self, values: Any, args: tuple[Any, ...], slot: int) -> int:
        """Note which slots hold an address within an array; returns the slot after the arguments."""
        for value in args:
            if isinstance(value, tuple):
                slot = self._find(values, value, slot)
                continue
            if isinstance(value, Within):
                self._moving.append((values, slot + POINTER, value.number, value.apart))
            slot += cuda_launch.SLOTS if isinstance(value, (np.ndarray, Within)) else 1
        return slot

    def __call__(self, pointers: Sequence[int], stream: int) -> None:
        """Launch all of it with arrays that begin elsewhere. The device is current, and no other thread is in here."""
        if self._made[0].function is None:  # in the simulator
            place = Place(0, stream, "numbabn")
            for launch in self._made:
                cuda_launch.launch(
                    launch.kernel, launch.grid, launch.block, place, *_with(launch.args, pointers, place)
                )
            return
        for values, slot, k, apart in self._moving:
            values[slot] = pointers[k] + apart
        if stream != self._stream:
            self._calls, self._stream = [launch.on(stream) for launch in self._made], stream
        cuda_launch.call_all(self._calls)


def _without(value: Any, reaches: list[tuple[int, int, int]]) -> Any:
    """Arguments, without the arrays."""
    if type(value) is tuple:
        return tuple(_without(v, reaches) for v in value)
    if isinstance(value, np.ndarray):
        pointer = pointer_of(value)
        for k, (low, high, first) in enumerate(reaches):
            if first + low <= pointer < first + high:
                return Within(k, pointer - first, value.size, value.dtype)
    return value


def _with(value: Any, pointers: Sequence[int], place: Place) -> Any:
    """Arguments, with other arrays."""
    if type(value) is tuple:
        return tuple(_with(v, pointers, place) for v in value)
    if not isinstance(value, Within):
        return value
    return shadow_of(pointers[value.number] + value.apart, (value.size,), None, value.dtype, place)


def reach_of(a: NDArray) -> tuple[int, int]:
    """Where the memory of an array begins and ends, in bytes from its first element."""
    ends = [(n - 1) * s for n, s in zip(a.shape, a.strides, strict=True)]
    return sum(e for e in ends if e < 0), sum(e for e in ends if e > 0) + a.itemsize
