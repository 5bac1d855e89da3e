"""The one table of rivals: what people use today, each doing the same work on the same NumPy array.

The work itself is that of the benchmarks (`asv_bench/contenders`), in the form that gives a new array.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], Any]


def from_the_suite(name: str) -> Any:
    """A module of the benchmarks' folder, which is not installed."""
    sys.path.insert(0, os.fspath(SUITE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(os.fspath(SUITE))


SUITE = Path(__file__).parent.parent / "asv_bench"
CONTENDERS = from_the_suite("contenders")
EPS: float = CONTENDERS.EPS


@dataclass(frozen=True)
class Rival:
    """`moments`, `inference` and `training` take (x, channel axis) and give the work: call it to do it once.

    The work returns (mean, biased variance) for `moments`, and the normalized array for the other two. What is
    prepared once (a fitted scaler, a tensor on the same memory) stays outside the work. None: there is no such thing.
    """

    name: str

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return self.name not in CONTENDERS.missing()

    def moments(self, x: np.ndarray, axis: int) -> Work | None:
        """Mean and variance of x."""
        return self._work("moments", x, axis)

    def inference(self, x: np.ndarray, axis: int) -> Work | None:
        """x normalized by its statistics, which are known before."""
        return self._work("inference", x, axis)

    def training(self, x: np.ndarray, axis: int) -> Work | None:
        """x normalized by its statistics."""
        return self._work("train", x, axis)

    def _work(self, task: str, x: np.ndarray, axis: int) -> Work | None:
        forms = CONTENDERS.peers(self.name, task, CONTENDERS.Problem(x, axis))
        usual = [c for c in forms if not c.form]
        return (lambda: usual[0].answer(usual[0].work())) if usual else None

    def __str__(self) -> str:
        return self.name


RIVALS = tuple(Rival(name) for name in ("NumPy", "scikit-learn", "PyTorch", "JAX"))
