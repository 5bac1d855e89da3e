"""The variable store: named float64 arrays, and the collections in which they, and updates that wait, are listed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import checks, state
from ..arrays import NDArray, take_values
from . import moving, scopes
from .draft import NOT_NEGATIVE, Draft, frozen
from .scopes import Reuse, VariableScope
from .updates import GraphKeys, Update


class VariableStore(Mapping[str, NDArray]):
    """Variables by name, as `batch_norm` makes them: a mapping to read-only float64 arrays.

    ``with store:`` makes it the store in force in this thread (or asyncio task); without one there is a store for the
    whole process, `current_store()`. ``store[name] = value`` sets a variable that exists. Stores may be shared between
    threads: each call reads one consistent set of variables, and each update is atomic.

    Examples
    --------
    >>> import numpy as np
    >>> from numbabn import contrib
    >>> store = contrib.VariableStore()
    >>> with store:
    ...     y = contrib.batch_norm(np.array([[1.0], [3.0]]), decay=0.5, scope="bn")
    >>> sorted(store)
    ['bn/beta', 'bn/moving_mean', 'bn/moving_variance']
    >>> store["bn/moving_mean"]  # the update is registered, and has not run
    array([0.])
    >>> store.run_updates()
    1
    >>> store["bn/moving_mean"]
    array([1.])
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._root = VariableScope(self, "", None)
        self.clear()

    # What it holds ---------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> NDArray:
        try:
            return self._variables[name]
        except KeyError:
            known = ", ".join(map(repr, self)) or "none yet"
            raise KeyError(f"there is no variable {name!r}; there are: {known}") from None

    def __setitem__(self, name: str, value: Any) -> None:
        with self._lock:
            self._variables[name] = _fitting(name, value, self[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._variables))

    def __len__(self) -> int:
        return len(self._variables)

    def __eq__(self, other: object) -> bool:
        """Whether the variables, their names and every bit of them, are the same."""
        if not isinstance(other, VariableStore):
            return NotImplemented
        mine, its = dict(self), dict(other)
        return mine.keys() == its.keys() and all(np.array_equal(mine[k], its[k], equal_nan=True) for k in mine)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        with self._lock:
            several = sum(name.endswith(f"/{moving.MEAN}") for name in self._variables)
            waiting = [
                f"{n} update{'s' * (n != 1)} wait{'s' * (n == 1)} in {name!r}"
                for name, items in self._collections.items()
                if (n := sum(isinstance(item, Update) for item in items.values()))
            ]
            held = f"{len(self)} variable{'s' * (len(self) != 1)} in {several} scope{'s' * (several != 1)}"
            return f"<VariableStore: {'; '.join([held, *waiting])}>"

    def clear(self) -> None:
        """Forget everything: variables, collections, updates that wait, and which default names are taken."""
        with self._lock:
            self._variables: dict[str, NDArray] = {}
            self._collections: dict[str, dict[Any, Any]] = {}
            self._losses: dict[str, Callable[[NDArray], Any]] = {}
            self._learned: set[str] = set()
            self._root.opened.clear()

    # Being the one in force ------------------------------------------------------------------------

    def __enter__(self) -> VariableStore:
        scopes.enter(scopes.frame(self, self._root))
        return self

    def __exit__(self, *_: object) -> None:
        scopes.leave()

    # Collections and updates -----------------------------------------------------------------------

    def get_collection(self, name: str) -> list[Any]:
        """What is listed under `name`, in the order in which it came; an empty list for an unknown name.

        Parameters
        ----------
        name : str
            One of `GraphKeys`, or any name given to `batch_norm`.

        Returns
        -------
        list
            Variables by their full names; updates as `Update`, those that wait; outputs as arrays, the newest of each
            scope. Under "regularization_losses", what each regularizer says of its variable as that is now.
        """
        with self._lock:
            items = list(self._collections.get(name, {}).values())
            losses = [(loss, self._variables[v]) for v, loss in self._losses.items()]
        if name == GraphKeys.REGULARIZATION_LOSSES:
            items += [value for loss, variable in losses if (value := loss(variable)) is not None]
        return items

    def run_updates(self, name: str = GraphKeys.UPDATE_OPS) -> int:
        """Run every update that waits under `name`, in the order of registration; returns how many there were.

        Examples
        --------
        >>> from numbabn import contrib
        >>> contrib.VariableStore().run_updates()
        0
        """
        updates = [item for item in self.get_collection(name) if isinstance(item, Update)]
        return sum(self._run(update) for update in updates)

    def _run(self, update: Update) -> bool:
        with self._lock:
            if update.done:
                return False
            self._advance(update)
            update.done = True
            for items in self._collections.values():
                items.pop(update, None)
            return True

    def _advance(self, update: Update) -> None:
        now = {name: self[f"{update.scope}/{name}"] for name in update.moves()}
        for name, value in update.moved(now).items():
            self._variables[f"{update.scope}/{name}"] = frozen(value)
        self._learned.add(update.scope)

    def _forgotten(self, scope: str) -> int:
        """How many updates wait for a scope of which none has ever run."""
        with self._lock:
            if scope in self._learned:
                return 0
            waiting = {u for items in self._collections.values() for u in items.values() if isinstance(u, Update)}
            return sum(update.scope == scope for update in waiting)

    # For `batch_norm` ------------------------------------------------------------------------------

    def _read(self, scope: str, names: Iterable[str]) -> dict[str, NDArray]:
        """Those of the scope's variables that exist, all of one moment."""
        with self._lock:
            return {n: self._variables[full] for n in names if (full := f"{scope}/{n}") in self._variables}

    def _commit(
        self,
        draft: Draft,
        update: tuple[moving.Rule, NDArray, NDArray] | None,
        updates_collections: tuple[str, ...] | None,
        output: Any,
        outputs_collections: tuple[str, ...],
    ) -> None:
        """Everything that a call leaves behind: the variables it made, their lists, its update, its output."""
        with self._lock:
            scope = draft.settle(self._variables)
            for name, value in draft.made.items():
                self._variables.setdefault(f"{scope}/{name}", value)
            for name, spec in draft.specs.items():
                full = f"{scope}/{name}"
                if full in self._variables:
                    made = spec.made_into if name in draft.made else ()
                    for collection in (*made, *spec.listed_in):
                        self._list(collection, full, full)
                    if name in draft.made and spec.regularizer is not None:
                        self._losses[full] = spec.regularizer
            if update is not None:
                waiting = Update(self, scope, *update)
                for collection in updates_collections or ():
                    self._list(collection, waiting, waiting)
                if updates_collections is None:
                    self._run(waiting)
            for collection in outputs_collections:
                self._list(collection, ("output of", scope), output)

    def _list(self, collection: str, key: Any, item: Any) -> None:
        self._collections.setdefault(collection, {})[key] = item

    # Where it is kept ------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, names: Iterable[str] | None = None) -> None:
        """Write the variables to `path`, atomically and without pickle (see `numbabn.state`).

        Parameters
        ----------
        path : str or path
            Replaced if it exists.
        names : iterable of str, optional
            Only these variables. ``store.get_collection("trainable_variables")`` leaves out the moving statistics, and
            inference cannot do without them.

        Raises
        ------
        ValueError
            If a name is unknown, or there is nothing to save.
        """
        with self._lock:
            chosen = {name: self._variables[name] for name in self._named(names)}
            lists = {
                collection: members
                for collection, items in self._collections.items()
                if (members := [key for key in items if isinstance(key, str) and key in chosen])
            }
        if not chosen:
            raise ValueError("there are no variables to save; call `batch_norm` first, which makes them")
        state.save(path, "variables", {"collections": lists}, chosen)

    def restore(self, path: str | os.PathLike[str], *, names: Iterable[str] | None = None) -> None:
        """Set the variables to what `save` wrote to `path`; all of them, or on any error none.

        Parameters
        ----------
        path : str or path
            What `save` wrote. It must hold the variables of this store, no more and no less; a new store from a file is
            `VariableStore.load`.
        names : iterable of str, optional
            Only these, which must be in the store and in the file; the rest may differ.

        Raises
        ------
        StateError
            If the file is not one that `save` wrote.
        ValueError
            If names or shapes do not match.
        """
        _, saved = state.load(path, "variables")
        with self._lock:
            wanted = self._named(names)
            missing = [name for name in wanted if name not in saved]
            unknown = [] if names is not None else [name for name in saved if name not in self._variables]
            if missing or unknown:
                what = f"lacks {_few(missing)}" if missing else f"also holds {_few(unknown)}"
                raise ValueError(
                    f"{os.fspath(path)!r} {what}, unlike this store; make the variables first, name those to "
                    "restore with `names`, or take the file as it is with `VariableStore.load`"
                )
            self._variables |= {name: _fitting(name, saved[name], self._variables[name].shape) for name in wanted}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VariableStore:
        """A new store with the variables that `save` wrote to `path`, and the collections that list them.

        Raises
        ------
        StateError
            If the file is not one that `save` wrote.
        """
        config, saved = state.load(path, "variables")
        store = cls()
        try:
            lists = config["collections"]
            if not all(name in saved for members in lists.values() for name in members):
                raise ValueError("a collection lists a variable that is not there")
            store._variables = {name: _fitting(name, value, value.shape) for name, value in saved.items()}
            store._collections = {collection: {name: name for name in lists[collection]} for collection in lists}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise state.StateError(f"{os.fspath(path)!r} holds variables that make no sense: {error}") from error
        return store

    def _named(self, names: Iterable[str] | None) -> list[str]:
        if names is None:
            return list(self._variables)
        if isinstance(names, str):
            raise TypeError(f"`names` is {names!r}; expected several names: try [{names!r}]")
        chosen = list(names)
        unknown = [name for name in chosen if name not in self._variables]
        if unknown:
            raise ValueError(f"`names` has {_few(unknown)}, not in this store; there are: {', '.join(map(repr, self))}")
        return chosen


_process_store = VariableStore()


def current_scope() -> VariableScope:
    """The scope in force: the innermost that was entered, or else all of the store of the process."""
    return scopes.current() or _process_store._root


def current_store() -> VariableStore:
    """The store in force: of the innermost ``with store:``, or else the one of the process.

    Examples
    --------
    >>> from numbabn import contrib
    >>> with contrib.VariableStore() as store:
    ...     contrib.current_store() is store
    True
    """
    return current_scope().store


@contextlib.contextmanager
def variable_scope(scope: str | VariableScope, *, reuse: bool | Reuse | None = None) -> Iterator[VariableScope]:
    """Put the scopes of the calls within under `scope`, as TensorFlow 1's `tf.variable_scope` does.

    Parameters
    ----------
    scope : str or VariableScope
        A name, put under that of the surrounding scope; or a scope that was entered before, entered again.
    reuse : bool, None or AUTO_REUSE, default None
        True: the variables must exist. AUTO_REUSE: they are made where they do not. None or False: as around.
        What holds outside cannot be taken back inside.

    Yields
    ------
    VariableScope
        Its full `name`, and the `reuse` that holds.

    Raises
    ------
    TypeError, ValueError
        If the name or `reuse` is none.

    Examples
    --------
    >>> import numpy as np
    >>> from numbabn import contrib
    >>> with contrib.VariableStore() as store, contrib.variable_scope("encoder"):
    ...     y = contrib.batch_norm(np.ones((4, 2)))
    >>> sorted(store)
    ['encoder/BatchNorm/beta', 'encoder/BatchNorm/moving_mean', 'encoder/BatchNorm/moving_variance']
    """
    if scope is None:
        raise TypeError("`scope` is None; expected a name or a VariableScope")
    here = scopes.current() or _process_store._root
    inner = here.child(scope, reuse)
    inner.open()
    scopes.enter(inner)
    try:
        yield inner
    finally:
        scopes.leave()
        inner.close()


def _fitting(name: str, value: Any, shape: tuple[int, ...]) -> NDArray:
    given = take_values(value, name)
    if not checks.is_real(given.dtype):
        raise TypeError(f"{name!r} is given dtype {given.dtype}; expected real numbers")
    if given.shape != shape:
        raise ValueError(
            f"{name!r} has shape {shape} but is given shape {given.shape}; give one value for each element"
        )
    if name.rpartition("/")[2] in NOT_NEGATIVE and (given < 0).any():
        raise ValueError(f"{name!r} is given a negative value; expected 0 or more")
    return frozen(given)


def _few(names: list[str], most: int = 6) -> str:
    return ", ".join(map(repr, names[:most])) + ", ..." * (len(names) > most)
