"""Who takes part in versus.py: one module for each library, the plain copies and reads, and the check of answers."""

import importlib
import importlib.util

from . import ours
from .answers import WrongAnswerError, check
from .contender import Contender
from .memory import check_reference, references
from .problem import EPS, Problem
from .workloads import DTYPES, PICKED, TASKS, WORKLOADS, Workload

# library: (package that it needs, module here)
PEERS = {
    "NumPy": ("numpy", "with_numpy"),
    "scikit-learn": ("sklearn", "with_sklearn"),
    "PyTorch": ("torch", "with_torch"),
    "JAX": ("jax", "with_jax"),
    "onnxruntime": ("onnxruntime", "with_onnxruntime"),
}

__all__ = [
    "DTYPES",
    "EPS",
    "PEERS",
    "PICKED",
    "TASKS",
    "WORKLOADS",
    "Contender",
    "Problem",
    "Workload",
    "WrongAnswerError",
    "check",
    "check_reference",
    "missing",
    "ours",
    "peers",
    "references",
]


def missing():
    """Libraries that are not installed."""
    return [library for library, (package, _) in PEERS.items() if importlib.util.find_spec(package) is None]


def peers(library, task, p):
    """The forms in which a library can do this task on this array; none where it cannot."""
    module = importlib.import_module(f".{PEERS[library][1]}", __name__)
    return module.contenders(task, p)
