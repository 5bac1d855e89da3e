"""Named scopes: where a call's variables live, and whether it may make them or must find them.

The rules of TensorFlow 1's `tf.variable_scope`: names nest with "/", `reuse` is inherited and cannot be taken back
further in, and a scope without a name of its own takes the first default name that is free where it stands.
"""

from __future__ import annotations

import enum
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store import VariableStore


class Reuse(enum.Enum):
    """The third choice beside True and None."""

    AUTO_REUSE = "AUTO_REUSE"

    def __repr__(self) -> str:
        return self.name


AUTO_REUSE = Reuse.AUTO_REUSE
_NAME = re.compile(r"(?!.*(^|/)\.+(/|$))[A-Za-z0-9.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*")
_current: ContextVar[VariableScope | None] = ContextVar("numbabn_variable_scope", default=None)


@dataclass(eq=False, slots=True)
class VariableScope:
    """A scope of a store, as `variable_scope` gives it; given to `variable_scope` or `batch_norm`, it is entered again.

    Attributes
    ----------
    store : VariableStore
        Whose scope it is.
    name : str
        Its full name; "" for the whole store.
    reuse : None, True or AUTO_REUSE
        What holds in it, its surroundings considered.
    """

    store: VariableStore
    name: str
    reuse: bool | Reuse | None
    outer: VariableScope | None = field(default=None, repr=False)
    opened: set[str] = field(default_factory=set, repr=False)  # names that a default name must not take

    def child(self, name_or_scope: Any, reuse: Any, default: str | None = None) -> VariableScope:
        """The scope that this name, or this scope, means from here; `default` is what an absent name starts with."""
        reuse = _checked(reuse)
        if name_or_scope is None:
            if reuse:
                raise ValueError(
                    f"`reuse` is {reuse!r} but `scope` is None, which always stands for a new name; "
                    "give the scope whose variables are meant"
                )
            assert default is not None
            return VariableScope(self.store, self.free(default), self.reuse, self)
        if isinstance(name_or_scope, VariableScope):
            if name_or_scope.store is not self.store:
                raise ValueError(
                    f"the scope {name_or_scope.name!r} belongs to another store than the one in force; "
                    "enter its store first: `with scope.store: ...`"
                )
            return VariableScope(self.store, name_or_scope.name, reuse or name_or_scope.reuse, self)
        if not isinstance(name_or_scope, str):
            raise TypeError(f"`scope` is {name_or_scope!r}; expected a name, a VariableScope or None")
        if not _NAME.fullmatch(name_or_scope):
            raise ValueError(
                f"`scope` is {name_or_scope!r}; expected letters, digits and . _ -, with a / between two names"
            )
        return VariableScope(self.store, self.path(name_or_scope), reuse or self.reuse, self)

    def path(self, name: str) -> str:
        """The full name of what is called `name` in here."""
        return f"{self.name}/{name}" if self.name else name

    def free(self, default: str) -> str:
        """The first of default, default_1, default_2, ... that is not taken here, in full."""
        base = name = self.path(default)
        taken = set().union(*(scope.opened for scope in self._chain()))
        n = 0
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        return name

    def open(self) -> None:
        """From now on a default name does not take the name of this scope, where it stands."""
        if self.outer is not None:
            self.outer.opened.add(self.name)

    def close(self) -> None:
        """Default names within start anew when the scope is entered the next time, as in the original."""
        for scope in self._chain():
            if scope is not self:
                scope.opened.difference_update(n for n in tuple(scope.opened) if n.startswith(f"{self.name}/"))

    def _chain(self) -> list[VariableScope]:
        chain: list[VariableScope] = []
        scope: VariableScope | None = self
        while scope is not None:
            if scope.store is self.store:
                chain.append(scope)
            scope = scope.outer
        return chain


def current() -> VariableScope | None:
    """The innermost scope that this thread, or task, has entered."""
    return _current.get()


def enter(scope: VariableScope) -> None:
    """Make `scope`, whose `outer` is the current one, the current one."""
    _current.set(scope)


def leave() -> None:
    """Go back to the scope around the current one."""
    scope = _current.get()
    assert scope is not None
    _current.set(scope.outer)


def frame(store: VariableStore, root: VariableScope) -> VariableScope:
    """What entering a store means here: the scope of that store that was entered last, or all of it."""
    here = scope = _current.get()
    while scope is not None and scope.store is not store:
        scope = scope.outer
    base = root if scope is None else scope
    return VariableScope(store, base.name, base.reuse, here, base.opened)


def _checked(reuse: Any) -> bool | Reuse | None:
    if reuse is None or reuse is False:
        return None
    if reuse is True or isinstance(reuse, Reuse):
        return reuse
    raise TypeError(f"`reuse` is {reuse!r}; expected True, False, None or AUTO_REUSE")
