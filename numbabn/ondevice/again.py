"""Calls of a BatchNorm that were made once, on arrays of one kind, made again without finding out how."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..arrays import NDArray
from ..devices.libraries import Glance
from ..options import Options

KEPT = 8  # kinds of calls that are remembered, each with a scratch of its own
ALIGNED = 16  # bytes


@dataclass(frozen=True, slots=True)
class Kind:
    """What two calls have in common of which one can do as the other did; `key` says so, by shapes and strides."""

    key: tuple[Any, ...]
    pointers: tuple[int, ...]
    stream: int

    @staticmethod
    def of(trains: bool, device: int, *glances: Glance | None) -> Kind | None:
        """The kind of a call; None where the arrays are not all on the device, and on one stream."""
        looks: list[Any] = [trains]
        pointers = []
        stream = None
        for glance in glances:
            if glance is None:
                return None
            pointer, there, its, look = glance
            if there != device or its != (stream or its):
                return None
            stream = its
            pointers.append(pointer)
            looks += look, pointer % ALIGNED
        looks += [p == q for p, q in combinations(pointers, 2)]
        return Kind(tuple(looks), tuple(pointers), stream or 0)


class Plans:
    """What to launch for each kind of call."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], tuple[Options, Any, list[tuple[int, int]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._plans)

    def clear(self) -> None:
        """Forget all, as the state has moved."""
        self._plans.clear()

    @contextlib.contextmanager
    def noted(self, kind: Kind | None, arrays: tuple[NDArray, ...], options: Options) -> Iterator[None]:
        """Note what a call launches in a block; None for one that will be another each time."""
        from ..backends.cuda_launch import taped
        from ..backends.cuda_tape import Again, reach_of

        if kind is None:
            yield
            return
        with taped() as tape:
            yield
        while len(self._plans) >= KEPT:
            del self._plans[next(iter(self._plans))]
        again = Again(tape, arrays)
        self._plans[kind.key] = options, again, [reach_of(a) for a in arrays]

    def made(self, kind: Kind, options: Options) -> Any:
        """What to call with pointers and a stream, for a call of a kind; None where it has to be found out."""
        known, again, reaches = self._plans.get(kind.key, (None, None, []))
        if known is not options:
            return None
        spans = [(p + low, p + high) for p, (low, high) in zip(kind.pointers, reaches, strict=True)]
        for (p, a), (q, b) in combinations(zip(kind.pointers, spans, strict=True), 2):
            if p != q and a[0] < b[1] and b[0] < a[1]:
                return None  # they may overlap: this is for the checks
        return again
