"""The one table of rivals: what people use today, each doing the same work on the same NumPy array."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Work = Callable[[], Any]


@dataclass(frozen=True)
class Rival:
    """`moments`, `inference` and `training` take (x, channel axis) and give the work: call it to do it once.

    The work returns (mean, biased variance) for `moments`, and the normalized array for the other two. What is
    prepared once (a fitted scaler, a tensor on the same memory) stays outside the work. None: there is no such thing.
    """

    name: str
    package: str
    moments: Callable[[np.ndarray, int], Work | None]
    inference: Callable[[np.ndarray, int], Work | None]
    training: Callable[[np.ndarray, int], Work | None]

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None

    def __str__(self) -> str:
        return self.name


EPS = 1e-5


def _reduced(x: np.ndarray, axis: int) -> tuple[int, ...]:
    return tuple(d for d in range(x.ndim) if d != axis % x.ndim)


def _numpy_moments(x: np.ndarray, axis: int) -> Work:
    def work() -> Any:
        return x.mean(axis=_reduced(x, axis)), x.var(axis=_reduced(x, axis))

    return work


def _numpy_inference(x: np.ndarray, axis: int) -> Work:
    mean = x.mean(axis=_reduced(x, axis), keepdims=True)
    var = x.var(axis=_reduced(x, axis), keepdims=True)
    return lambda: (x - mean) / np.sqrt(var + x.dtype.type(EPS))


def _numpy_training(x: np.ndarray, axis: int) -> Work:
    def work() -> Any:
        mean = x.mean(axis=_reduced(x, axis), keepdims=True)
        var = x.var(axis=_reduced(x, axis), keepdims=True)
        return (x - mean) / np.sqrt(var + x.dtype.type(EPS))

    return work


def _scaler() -> Any:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def _sklearn_moments(x: np.ndarray, axis: int) -> Work | None:
    if x.ndim != 2 or axis % 2 != 1:
        return None

    def work() -> Any:
        fitted = _scaler().fit(x)
        return fitted.mean_, fitted.var_

    return work


def _sklearn_inference(x: np.ndarray, axis: int) -> Work | None:
    if x.ndim != 2 or axis % 2 != 1:
        return None
    fitted = _scaler().fit(x)
    return lambda: fitted.transform(x)


def _sklearn_training(x: np.ndarray, axis: int) -> Work | None:
    return None if x.ndim != 2 or axis % 2 != 1 else lambda: _scaler().fit_transform(x)


def _tensor(x: np.ndarray, axis: int) -> Any:
    """x as a tensor with the channels second, which is where PyTorch wants them, on the same memory."""
    import torch

    return torch.from_numpy(x).movedim(axis, 1) if x.ndim > 1 else torch.from_numpy(x)[None]


def _torch_moments(x: np.ndarray, axis: int) -> Work:
    import torch

    tensor, reduced = torch.from_numpy(x), _reduced(x, axis)
    return lambda: tuple(t.numpy() for t in reversed(torch.var_mean(tensor, dim=reduced, correction=0)))


def _torch_batch_norm(training: bool) -> Callable[[np.ndarray, int], Work]:
    def make(x: np.ndarray, axis: int) -> Work:
        import torch

        tensor = _tensor(x, axis)
        var, mean = torch.var_mean(torch.from_numpy(x), dim=_reduced(x, axis), correction=0)

        def work() -> Any:
            with torch.no_grad():
                y = torch.nn.functional.batch_norm(tensor, mean.clone(), var.clone(), training=training, eps=EPS)
            return y.movedim(1, axis).numpy()

        return work

    return make


RIVALS = (
    Rival("numpy", "numpy", _numpy_moments, _numpy_inference, _numpy_training),
    Rival("scikit-learn", "sklearn", _sklearn_moments, _sklearn_inference, _sklearn_training),
    Rival("pytorch", "torch", _torch_moments, _torch_batch_norm(False), _torch_batch_norm(True)),
)
