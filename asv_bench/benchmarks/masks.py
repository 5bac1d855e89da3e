"""Moments of what counts, beside the plain ones: masks, weights, missing values."""

import numpy as np

import numbabn

from . import Timed, array, check_moments

PICKS = ("plain", "value", "position", "weight", "sample", "line", "omit")


def picked(name, x, axis):
    """What `moments` is given, and how much each value counts, None for 1."""
    rng, positions = np.random.default_rng(1), [d for d in range(x.ndim) if d != axis % x.ndim]

    def shape(axes):
        return tuple(n if d in axes else 1 for d, n in enumerate(x.shape))

    if name == "plain":
        return {}, None
    if name == "omit":
        np.copyto(x, np.nan, where=x > 130)
        return {"nan_policy": "omit"}, ~np.isnan(x)
    if name in ("weight", "line"):
        weights = rng.uniform(0.5, 1.5, shape(positions if name == "weight" else positions[-2:-1]))
        return {"weights": weights}, weights
    where = x < 112 if name == "value" else rng.random(shape(positions if name == "position" else positions[:1])) < 0.8
    return {"where": where}, where


class Picks(Timed):
    """A boolean for each value, position or sample, a weight for each position or line of these, NaN left out."""

    params = (("rows-3", "rows-64", "rows-1024", "nchw", "nhwc", "fortran"), PICKS)
    param_names = ("layout", "pick")

    def prepare(self, layout, pick):
        self.x, self.axis = array(layout)
        if pick in ("sample", "line") and self.x.ndim == 2:
            raise NotImplementedError  # where each position is a sample
        self.how, weight = picked(pick, self.x, self.axis)
        check_moments(numbabn.moments(self.x, axis=self.axis, **self.how), self.x, self.axis, weight)

    def time_moments(self, layout, pick):
        numbabn.moments(self.x, axis=self.axis, **self.how)


class Extra(Timed):
    """More moments and extremes in the same pass."""

    params = (("rows-64", "nchw"), ("skewness", "min", "all"))
    param_names = ("layout", "extra")

    def prepare(self, layout, extra):
        self.x, self.axis = array(layout)
        m = numbabn.moments(self.x, axis=self.axis, extra=extra)
        check_moments(m, self.x, self.axis)
        others = tuple(d for d in range(self.x.ndim) if d != self.axis)
        if extra in ("min", "all"):
            np.testing.assert_array_equal(m.min, self.x.min(axis=others))
        if extra in ("skewness", "all"):
            z = self.x.astype(np.float64) - self.x.mean(axis=others, keepdims=True, dtype=np.float64)
            expected = (z**3).mean(axis=others) / (z**2).mean(axis=others) ** 1.5
            np.testing.assert_allclose(m.skewness(), expected, atol=1e-9)

    def time_moments(self, layout, extra):
        numbabn.moments(self.x, axis=self.axis, extra=extra)
