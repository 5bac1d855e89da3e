"""The names of the collections, and the updates of moving statistics that wait in one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import NDArray
from . import moving

if TYPE_CHECKING:
    from .store import VariableStore


class GraphKeys:
    """The names of the collections that `batch_norm` fills, spelled as in TensorFlow."""

    GLOBAL_VARIABLES = "variables"
    MODEL_VARIABLES = "model_variables"
    TRAINABLE_VARIABLES = "trainable_variables"
    UPDATE_OPS = "update_ops"
    REGULARIZATION_LOSSES = "regularization_losses"


class Update:
    """The update of one scope's moving statistics by one training batch: call it, and it is done, once.

    Attributes
    ----------
    scope : str
        Whose moving statistics it updates.
    done : bool
        Whether it has run. Calling it again does nothing.
    """

    def __init__(self, store: VariableStore, scope: str, rule: moving.Rule, mean: NDArray, var: NDArray) -> None:
        self.scope = scope
        self.done = False
        self._store = store
        self._rule = rule
        self._batch = mean, var

    def moves(self) -> list[str]:
        """The variables of the scope that it reads and sets."""
        mean, _ = self._batch
        return [moving.MEAN, moving.VARIANCE, *self._rule.shadows(mean.shape)]

    def moved(self, now: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """These variables after the update."""
        return moving.advanced(self._rule, now, *self._batch)

    def __call__(self) -> None:
        self._store._run(self)

    def __repr__(self) -> str:
        return f"<Update of {self.scope!r}: {'done' if self.done else 'waits to be called'}>"
