"""numbabn: batch normalization as an array operation, on NumPy arrays."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .functional import moments as moments

_HOME = {
    "moments": "functional", "normalize": "functional", "denormalize": "functional", "batch_norm": "functional",
    "Moments": "statistics",
    "set_num_threads": "backends.threads", "get_num_threads": "backends.threads", "num_threads": "backends.threads",
    "set_backend": "backends", "get_backend": "backends", "backend": "backends",
}
def __getattr__(name: str) -> Any:
    if name not in _HOME: raise AttributeError(name)
    v = getattr(importlib.import_module("numbabn."+_HOME[name]), name); globals()[name]=v; return v
