"""What one call reads and what it will make: nothing is in the store before the call has come to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import checks
from ..arrays import NDArray
from .scopes import VariableScope

NOT_NEGATIVE = ("moving_variance", "renorm_stddev")


@dataclass(frozen=True, slots=True)
class Spec:
    """A variable as a call would make it."""

    shape: tuple[int, ...]
    initial: Any
    made_into: tuple[str, ...]  # the collections of a new variable
    listed_in: tuple[str, ...] = ()  # those that the caller names, new or not
    regularizer: Callable[[NDArray], Any] | None = None
    needed: bool = True  # False: made with the others of its scope, but not asked for


@dataclass(slots=True)
class Draft:
    """The variables of one call: it computes with `values`, of which `made` are not in the store yet."""

    scope: VariableScope
    default: str | None  # what a scope without a name of its own is called
    specs: Mapping[str, Spec]
    values: dict[str, NDArray] = field(default_factory=dict)
    made: dict[str, NDArray] = field(default_factory=dict)

    def read(self, stored: Mapping[str, NDArray]) -> None:
        """Take each variable from `stored`, the scope's, or make it, by the rules of `reuse`."""
        for name, spec in self.specs.items():
            if name in stored:
                self._share(name, spec, stored[name])
                self.values[name] = stored[name]
            elif spec.needed or not stored:
                if self.scope.reuse is True:
                    if not spec.needed:
                        continue
                    raise ValueError(
                        f"the variable {self._full(name)!r} does not exist, and reuse=True makes none; "
                        f"{_there(stored)}give reuse=AUTO_REUSE to make what is missing, or the name of another scope"
                    )
                self.values[name] = self.made[name] = _initial(name, spec)

    def settle(self, variables: Mapping[str, NDArray]) -> str:
        """The scope's name at last; refuses if another thread has made one of these variables meanwhile."""
        if self.default is not None and len(self.made) == len(self.values):  # found nothing under the name it took
            assert self.scope.outer is not None
            self.scope.name = self.scope.outer.free(self.default)
        for name in self.made:
            if self._full(name) in variables:
                self._share(name, self.specs[name], variables[self._full(name)])
        self.scope.open()
        self.scope.close()
        return self.scope.name

    def _share(self, name: str, spec: Spec, stored: NDArray) -> None:
        if not self.scope.reuse:
            raise ValueError(
                f"the variable {self._full(name)!r} exists already; give reuse=True to share it, reuse=AUTO_REUSE "
                "to make it at the first call and share it from then on, or the name of another scope"
            )
        if stored.shape != spec.shape:
            raise ValueError(
                f"the variable {self._full(name)!r} has shape {stored.shape} but `inputs` asks for {spec.shape}; "
                "give inputs with as many channels, or another scope"
            )

    def _full(self, name: str) -> str:
        return f"{self.scope.name}/{name}"


def frozen(value: Any) -> NDArray:
    """A read-only float64 copy."""
    array = np.array(value, dtype=np.float64, order="C")
    array.flags.writeable = False
    return array


def _initial(name: str, spec: Spec) -> NDArray:
    value = spec.initial(spec.shape) if callable(spec.initial) else spec.initial
    p = checks.parameter(value, f"param_initializers[{name!r}]", spec.shape, (-1,))
    if name in NOT_NEGATIVE and (p < 0).any():
        raise ValueError(f"`param_initializers[{name!r}]` is negative {checks.in_channels(p < 0)}; expected 0 or more")
    return frozen(p)


def _there(stored: Mapping[str, NDArray]) -> str:
    return f"the scope has {', '.join(stored)}; " if stored else "the scope has no variables; "
