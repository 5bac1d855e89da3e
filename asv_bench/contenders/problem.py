"""One array with everything that the tasks need beside it, made when it is asked for, and the true answers."""

from functools import cached_property

import numpy as np
from benchmarks import draw, touched
from numbabn.kernels import reference

from .workloads import LINES, PICKED

EPS = 1e-5
SLAB = 1 << 18  # values that are brought to float64 at a time
MASKED_ABOVE = 112.6  # hides about a fifth of values of N(100, 15)
MISSING_ABOVE = 130.0  # makes about 2 % of them NaN


class Problem:
    """x and its channel axis. The truth is computed in float64, slab by slab, from kernels/reference.py."""

    def __init__(self, x, axis, workload=None):
        self.x, self.axis, self.workload = x, axis % x.ndim, workload
        self.reduced = tuple(d for d in range(x.ndim) if d != self.axis)
        self.channels = x.shape[self.axis]
        self.n = x.size // self.channels
        self._truth = {}

    @classmethod
    def of(cls, workload, dtype, factor):
        """The array of a workload, smaller by the factor."""
        return cls(workload.view(draw(workload.memory(factor), dtype)), workload.axis, workload)

    def forget(self):
        """Free what a task has made beside x and the truth of plain moments."""
        for name in ("dy", "where", "holes"):
            self.__dict__.pop(name, None)

    # Arrays --------------------------------------------------------------------------------------

    @cached_property
    def out(self):
        """Where everybody who can writes to; every page touched."""
        return touched(self.x)

    @cached_property
    def dy(self):
        """A gradient that goes with x in part, so that both of its sums matter."""
        dy, rng = touched(self.x), np.random.default_rng(1)
        for s in self.slabs():
            noise = rng.standard_normal(self.x[s].shape, dtype=np.float32)
            dy[s] = noise + 0.3 + 0.5 * (self.x[s].astype(np.float32) - 100) / 15
        return dy

    @cached_property
    def where(self):
        """A mask with one boolean for each value."""
        return self.x < MASKED_ABOVE

    @cached_property
    def positions(self):
        """A mask with one boolean for each position, all channels alike."""
        return np.random.default_rng(2).random(self._beside()) < 0.8

    @cached_property
    def weights(self):
        """A weight for each position."""
        return np.random.default_rng(3).uniform(0.5, 1.5, self._beside())

    @cached_property
    def samples(self):
        """A mask with one boolean for each sample, which is all of an index of the first axis."""
        return np.random.default_rng(4).random(self._with_axes(0)) < 0.8

    @cached_property
    def lines(self):
        """A weight for each line of the last two axes, as latitudes have."""
        axis = max(d for d in self.reduced if d != self.reduced[-1])
        return np.random.default_rng(5).uniform(0.5, 1.5, self._with_axes(axis))

    @cached_property
    def holes(self):
        """x with NaN in it, in the same order of memory."""
        if self.workload is None or self.x.base is None:
            holes = self.x.copy(order="K")
        else:
            holes = self.workload.view(self.x.base.copy())
        np.copyto(holes, np.nan, where=self.x > MISSING_ABOVE)
        return holes

    def _beside(self):
        return tuple(self.x.shape[d] for d in self.reduced)

    def _with_axes(self, *axes):
        return tuple(n if d in axes else 1 for d, n in enumerate(self.x.shape))

    # Other views of the same memory --------------------------------------------------------------

    def table(self, a):
        """`a` as (positions, channels), or None where that would be a copy."""
        if self.x.ndim == 2 and self.axis == 1:
            return a
        last = self.axis == self.x.ndim - 1 and a.flags.c_contiguous
        return a.reshape(-1, self.channels) if last else None

    def planes(self, a):
        """`a` in C order with the channels second, or None where that would be a copy."""
        if self.axis == 1 and a.flags.c_contiguous:
            return a
        if a.ndim == 2 and a.T.flags.c_contiguous:
            return a.T[None]
        return self.table(a) if a.flags.c_contiguous else None

    # The truth -----------------------------------------------------------------------------------

    def slabs(self, most=None):
        """Slices along the first axis that cover it; `most`: only so many of them, from the first to the last."""
        length = len(self.x)
        step = max(1, SLAB * length // max(1, self.x.size))
        starts = range(0, length, step)
        if most is not None and len(starts) > most:
            starts = [starts[k] for k in np.linspace(0, len(starts) - 1, most).round().astype(int)]
        return [slice(i, i + step) for i in starts]

    @property
    def mean(self):
        """The true mean of each channel."""
        return self.moments_of("moments")[0]

    @property
    def var(self):
        """The true biased variance of each channel."""
        return self.moments_of("moments")[1]

    def moments_of(self, task):
        """(mean, biased variance) of what counts in this task."""
        picked = task if task in PICKED else "moments"
        if picked not in self._truth:
            x = self.holes if picked == "omitting" else self.x
            self._truth[picked] = self._moments(x, self._weight_of(picked))
        return self._truth[picked]

    def _weight_of(self, task):
        """A function of a slab: how much its values count, None for 1."""
        if task == "masked":
            return lambda s: self.where[s]
        if task == "omitting":
            return lambda s: ~np.isnan(self.holes[s])
        beside = self.beside(task)
        if beside is None:
            return lambda s: None
        whole = np.broadcast_to(beside, self.x.shape)
        return lambda s: whole[s]

    def beside(self, task):
        """The mask or weights of a task which all channels have alike, as they broadcast to x; None for others."""
        if task in ("positions", "weighted"):
            return np.expand_dims(self.positions if task == "positions" else self.weights, self.axis)
        return getattr(self, task) if task in LINES else None

    def _moments(self, x, weight):
        slabs = [self._of_slab(x[s], weight(s)) for s in self.slabs()]
        count, mean, m2 = (np.array(v) for v in zip(*slabs, strict=True))
        total = np.maximum(count.sum(axis=0), np.finfo(float).tiny)
        whole = (count * mean).sum(axis=0) / total
        return whole, (m2 + count * (mean - whole) ** 2).sum(axis=0) / total

    def _of_slab(self, x, weight):
        count, mean, m2 = reference.moments(x, (self.axis,), weight)
        return np.broadcast_to(count, mean.shape), mean, m2

    @cached_property
    def gradients(self):
        """(dgamma, dbeta) of each channel."""
        sums = np.zeros((2, self.channels))
        for s in self.slabs():
            g, x_hat = self.dy[s].astype(np.float64), self.x_hat(s)
            axes = self.reduced
            sums += (g * x_hat).sum(axis=axes), g.sum(axis=axes)
        return tuple(sums)

    def x_hat(self, s):
        """A slab of x, normalized, in float64."""
        return reference.normalize(self.x[s], (self.axis,), self.mean, self.var, eps=EPS)

    def dx(self, s):
        """A slab of the gradient of x, times the standard deviation."""
        dgamma, dbeta = (self.along(v / self.n) for v in self.gradients)
        std = self.along(np.sqrt(self.var))
        return std / np.sqrt(std * std + EPS) * (self.dy[s].astype(np.float64) - dbeta - self.x_hat(s) * dgamma)

    def along(self, parameter, dtype=np.float64):
        """A channel parameter that broadcasts against x."""
        return reference.along(np.asarray(parameter).astype(dtype), (self.axis,), self.x.ndim)
