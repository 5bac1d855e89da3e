"""An independent model of BatchNorm in plain NumPy: slow, two passes, everything written out."""

from __future__ import annotations

from typing import Any

import numpy as np


class Model:
    """Running averages as their definition says; keeps every value ever seen where the average is cumulative."""

    def __init__(
        self, channels: int, momentum: float | None, ddof: int = 0, gamma: Any = 1.0, beta: Any = 0.0, eps: float = 1e-5
    ) -> None:
        self.channels, self.momentum, self.ddof, self.eps = channels, momentum, ddof, eps
        self.gamma, self.beta = np.asarray(gamma, float), np.asarray(beta, float)
        self.reset()

    def reset(self) -> None:
        self.mean, self.var = np.zeros(self.channels), np.ones(self.channels)
        self.seen: list[np.ndarray] = [np.empty(0) for _ in range(self.channels)]
        self.batches = 0

    @property
    def count(self) -> np.ndarray:
        return np.array([float(s.size) for s in self.seen])

    def learn(self, x: np.ndarray) -> None:
        """x: (values, channels); channels with NaN or infinity are left alone."""
        if x.shape[0] == 0 or not np.isfinite(x).all(axis=0).any():
            return
        self.batches += 1
        for c in range(self.channels):
            column = x[:, c].astype(float)
            if not np.isfinite(column).all():
                continue
            self.seen[c] = np.concatenate([self.seen[c], column])
            if self.momentum is None:
                self.mean[c], self.var[c] = self.statistics(self.seen[c])
            else:
                mean, var = self.statistics(column)
                self.mean[c] = (1 - self.momentum) * self.mean[c] + self.momentum * mean
                self.var[c] = (1 - self.momentum) * self.var[c] + self.momentum * var

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        mean = float(values.mean())
        return mean, float(((values - mean) ** 2).sum() / max(values.size - self.ddof, 1))

    def trained(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(float)
        if x.shape[0] == 0:
            return x
        with np.errstate(invalid="ignore"):
            mean = x.mean(axis=0)
            return self.affine(x, mean, ((x - mean) ** 2).mean(axis=0))

    def inferred(self, x: np.ndarray) -> np.ndarray:
        return self.affine(x.astype(float), self.mean, self.var)

    def affine(self, x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        return (x - mean) / np.sqrt(var + self.eps) * self.gamma + self.beta

    def merge(self, other: Model) -> None:
        n = self.count + other.count
        w = np.divide(other.count, n, out=np.zeros(self.channels), where=n > 0)
        d = other.mean - self.mean
        self.var = (1 - w) * self.var + w * other.var + w * (1 - w) * d**2
        self.mean = self.mean + w * d
        self.seen = [np.concatenate(pair) for pair in zip(self.seen, other.seen, strict=True)]
        if self.momentum is None:
            for c, values in enumerate(self.seen):
                if values.size:
                    self.mean[c], self.var[c] = self.statistics(values)
        self.batches += other.batches
