"""numbabn: batch normalization as an array operation.

Per-channel mean and variance in one pass over memory, normalization at the speed of a copy, running
averages that inference never changes, and state that can be merged, saved and carried elsewhere.
Importing this loads NumPy and nothing else; numba comes with the first call that computes.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backends import BackendUnavailableError, backend, get_backend, set_backend
    from .backends.threads import get_num_threads, num_threads, set_num_threads
    from .backward import batch_norm_backward
    from .batchnorm import BatchNorm
    from .functional import batch_norm, denormalize, moments, normalize
    from .renorm import Renorm
    from .report import config, show_config
    from .state import StateError
    from .statistics import Moments
    from .warm import warmup

__all__ = [
    "BackendUnavailableError",
    "BatchNorm",
    "Moments",
    "Renorm",
    "StateError",
    "backend",
    "batch_norm",
    "batch_norm_backward",
    "config",
    "denormalize",
    "get_backend",
    "get_num_threads",
    "moments",
    "normalize",
    "num_threads",
    "set_backend",
    "set_num_threads",
    "show_config",
    "warmup",
]

_HOMES = {
    "backends": ("BackendUnavailableError", "backend", "get_backend", "set_backend"),
    "backends.threads": ("get_num_threads", "num_threads", "set_num_threads"),
    "backward": ("batch_norm_backward",),
    "batchnorm": ("BatchNorm",),
    "functional": ("batch_norm", "denormalize", "moments", "normalize"),
    "renorm": ("Renorm",),
    "report": ("config", "show_config"),
    "state": ("StateError",),
    "statistics": ("Moments",),
    "warm": ("warmup",),
}
_ROOMS = ("averages", "backends", "contrib", "flavours", "functional", "state")  # attributes, without an import
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'numbabn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
