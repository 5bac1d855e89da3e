"""An independent model of BatchNorm in plain NumPy: slow, two passes, everything written out."""

from __future__ import annotations

from typing import Any

import numpy as np


class Model:
    """Running averages as their definition says, from all that was ever seen of each channel.

    No recursion: an exponential average is the sum of what it started from and of all batches, each times
    its weight; the others are the statistics of the values, or of the batches, that count.
    """

    def __init__(
        self,
        channels: int,
        momentum: Any = 0.1,
        ddof: int = 0,
        gamma: Any = 1.0,
        beta: Any = 0.0,
        eps: float = 1e-5,
        average: str | None = None,
        window: int | None = None,
    ) -> None:
        self.channels, self.momentum, self.ddof, self.eps, self.window = channels, momentum, ddof, eps, window
        self.average = average or ("cumulative" if momentum is None else "exponential")
        self.gamma, self.beta = np.asarray(gamma, float), np.asarray(beta, float)
        self.reset()

    def reset(self) -> None:
        self.mean, self.var = np.zeros(self.channels), np.ones(self.channels)
        self.seen: list[list[np.ndarray]] = [[] for _ in range(self.channels)]
        # What an exponential average started from, (weight, mean, var), and the (momentum, mean, var) of batches since.
        self.origin = [(0.0 if "debiased" in self.average else 1.0, 0.0, 1.0)] * self.channels
        self.since: list[list[tuple[float, float, float]]] = [[] for _ in range(self.channels)]
        self.batches = 0

    @property
    def count(self) -> np.ndarray:
        return np.array([float(sum(map(len, batches))) for batches in self.seen])

    def factor(self) -> float:
        """Momentum of the next batch."""
        if callable(self.momentum):
            return self.momentum(self.batches)
        if isinstance(self.momentum, tuple):
            return self.momentum[min(self.batches, len(self.momentum) - 1)]
        return self.momentum

    def learn(self, x: np.ndarray, where: np.ndarray | None = None) -> None:
        """x: (values, channels); channels with NaN or infinity, or without values in `where`, are left alone."""
        there = np.full(x.shape, True) if where is None else where
        columns = [x[there[:, c], c].astype(float) for c in range(self.channels)]
        learning = [c for c, column in enumerate(columns) if column.size and np.isfinite(column).all()]
        for c in learning:
            self.seen[c].append(columns[c])
            self.since[c].append((self.factor() if self.momentum is not None else 0.0, *self.statistics(columns[c])))
            self.mean[c], self.var[c] = self.averaged(c)
        self.batches += bool(learning)

    def averaged(self, c: int) -> tuple[float, float]:
        if self.average in ("cumulative", "window"):
            return self.statistics(np.concatenate(self.seen[c][-(self.window or 0) :]))
        if self.average == "equal":
            mean, var = np.mean([self.statistics(values) for values in self.seen[c]], axis=0)
            return float(mean), float(var)
        weights, means, variances = self.parts(c)
        if weights.sum() == 0:
            return 0.0, 1.0
        weights /= weights.sum()
        mean = float(weights @ means)
        between = float(weights @ (means - mean) ** 2) if "mixture" in self.average else 0.0
        return mean, float(weights @ variances) + between

    def parts(self, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means and variances of the start and of all batches since."""
        parts = np.array([self.origin[c], *self.since[c]])
        kept = np.append(np.cumprod(1 - parts[:0:-1, 0])[::-1], 1.0)  # of each, what later batches left
        return parts[:, 0] * kept, parts[:, 1], parts[:, 2]

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        mean = float(values.mean())
        return mean, float(((values - mean) ** 2).sum() / max(values.size - self.ddof, 1))

    def trained(self, x: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """All values by the statistics of those in `where`; beta where there are none."""
        x = x.astype(float)
        there = np.full(x.shape, True) if where is None else where
        y = np.empty_like(x)
        with np.errstate(invalid="ignore"):
            for c in range(self.channels):
                values = x[there[:, c], c]
                mean, var = (values.mean(), values.var()) if values.size else (0.0, np.inf)
                y[:, c] = (x[:, c] - mean) / np.sqrt(var + self.eps)
        return y * self.gamma + self.beta

    def inferred(self, x: np.ndarray) -> np.ndarray:
        return self.affine(x.astype(float), self.mean, self.var)

    def affine(self, x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        return (x - mean) / np.sqrt(var + self.eps) * self.gamma + self.beta

    def merge(self, other: Model) -> None:
        """Pool exponential averages by what they have seen; put the batches of the others together."""
        for c in range(self.channels):
            mine, its = (np.sum([v.size for v in m.seen[c]]) * (m.parts(c)[0].sum() > 0) for m in (self, other))
            weight = 1 - (1 - self.parts(c)[0].sum()) * (1 - other.parts(c)[0].sum())
            self.seen[c] = self.seen[c] + other.seen[c]
            if self.average in ("cumulative", "equal"):
                if self.seen[c]:
                    self.mean[c], self.var[c] = self.averaged(c)
            elif mine + its:
                a, b = mine / (mine + its), its / (mine + its)
                between = a * b * (other.mean[c] - self.mean[c]) ** 2
                self.mean[c] = a * self.mean[c] + b * other.mean[c]
                self.var[c] = a * self.var[c] + b * other.var[c] + between
                self.origin[c], self.since[c] = (weight, self.mean[c], self.var[c]), []
        self.batches += other.batches
