"""The interface of `tf.contrib.layers.batch_norm`, on arrays: named variables in a store that the caller can hold.

Everything is in docs/contrib.md: each parameter, what the original does, and what happens here.
"""

from .layers import batch_norm
from .scopes import AUTO_REUSE, VariableScope
from .store import VariableStore, current_store, variable_scope
from .updates import GraphKeys, Update

__all__ = [
    "AUTO_REUSE",
    "GraphKeys",
    "Update",
    "VariableScope",
    "VariableStore",
    "batch_norm",
    "current_store",
    "variable_scope",
]
