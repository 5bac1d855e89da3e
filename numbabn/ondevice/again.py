"""Calls of a BatchNorm that were made once, on arrays of one kind, made again without finding out how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..arrays import NDArray
from ..devices import Shadow, pointer_of
from ..devices.alike import ALIGNED, Glance
from ..options import Options

KEPT = 8  # kinds of calls that are remembered, each with a scratch of its own


@dataclass(frozen=True, slots=True)
class Note:
    """What to remember of a call: its kind, the arrays that came with it, and those made for it, with how."""

    kind: Glance
    given: tuple[NDArray, ...]
    fresh: list[tuple[Shadow, Callable[[Any], tuple[int, Any]]]]


class Plan:
    """What to launch for a kind of call, and for which options and parameters."""

    __slots__ = ("apart", "beta", "gamma", "launch", "makes", "options")

    def __init__(self, note: Note, launch: Any, options: Options, gamma: Any, beta: Any) -> None:
        from ..backends.cuda_tape import reach_of

        self.launch, self.options, self.gamma, self.beta = launch, options, gamma, beta
        self.makes = [make for _, make in note.fresh]
        reaches = [reach_of(a) for a in note.given]
        # Two arrays overlap where the second begins so far behind the first.
        self.apart = [
            (k, j, reaches[k][0] - reaches[j][1], reaches[k][1] - reaches[j][0])
            for k, j in combinations(range(len(reaches)), 2)
        ]

    def entangled(self, pointers: Sequence[int]) -> bool:
        """Whether arrays that begin there reach into each other, and are not the same."""
        return any(
            low < pointers[j] - pointers[k] < high and pointers[j] != pointers[k] for k, j, low, high in self.apart
        )

    def fresh(self, like: Any, pointers: list[int]) -> list[Any] | None:
        """What the call returns besides, made anew; `pointers` learns where. None where that lies otherwise."""
        made = []
        for make in self.makes:
            pointer, new = make(like)
            if pointer % ALIGNED:
                return None
            pointers.append(pointer)
            made.append(new)
        return made


class Plans:
    """What to launch for each kind of call."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._fold: tuple[Options, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self._plans)

    def clear(self) -> None:
        """Forget all, as the state has moved."""
        self._plans.clear()
        self._fold = None

    @contextlib.contextmanager
    def noted(self, note: Note | None, options: Options, gamma: Any = None, beta: Any = None) -> Iterator[None]:
        """Note what a call launches in a block; None for one that will be another each time.

        gamma, beta: where they may be others than those of the state.
        """
        from ..backends.cuda_launch import taped
        from ..backends.cuda_tape import Again

        fresh = () if note is None else tuple(shadow for shadow, _ in note.fresh)
        if note is None or any(pointer_of(a) % ALIGNED for a in fresh):
            yield
            return
        with taped() as tape:
            yield
        self._plans.pop(note.kind[0], None)
        while len(self._plans) >= KEPT:
            del self._plans[next(iter(self._plans))]
        plan = Plan(note, Again(tape, (*note.given, *fresh)), options, gamma, beta)
        # Of arrays that reach into each other it is not known which of them an address belongs to.
        if not plan.entangled([pointer_of(a) for a in note.given]):
            self._plans[note.kind[0]] = plan

    @contextlib.contextmanager
    def noted_fold(self, options: Options) -> Iterator[None]:
        """Note how the averages are folded."""
        from ..backends.cuda_launch import taped
        from ..backends.cuda_tape import Again

        with taped() as tape:
            yield
        self._fold = options, Again(tape, ())

    def made(self, kind: Glance, options: Options, gamma: Any = None, beta: Any = None) -> Plan | None:
        """What to do for a call of a kind; None where it has to be found out."""
        key, pointers, _ = kind
        plan = self._plans.get(key)
        if plan is None or not (plan.options is options and plan.gamma is gamma and plan.beta is beta):
            return None
        return None if plan.entangled(pointers) else plan  # arrays that overlap are for the checks

    def fold(self, options: Options) -> Any:
        """How to fold the averages; None where it has to be found out."""
        return self._fold[1] if self._fold is not None and self._fold[0] is options else None
