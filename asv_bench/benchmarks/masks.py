"""Moments of what counts, beside the plain ones: masks, weights, missing values."""

import numpy as np

import numbabn

from . import Timed, array, check_moments

# name: what `moments` is given, and how much each value counts; of x, a mask of its values, one of positions, weights
PICKS = {
    "plain": (lambda x, some, at, w: {}, lambda x, some, at, w: None),
    "value": (lambda x, some, at, w: {"where": some}, lambda x, some, at, w: some),
    "position": (lambda x, some, at, w: {"where": at}, lambda x, some, at, w: at),
    "weight": (lambda x, some, at, w: {"weights": w}, lambda x, some, at, w: w),
    "omit": (lambda x, some, at, w: {"nan_policy": "omit"}, lambda x, some, at, w: ~np.isnan(x)),
}


class Picks(Timed):
    """A boolean for each value, one for each position, a weight for each position, NaN left out."""

    params = (("rows-3", "rows-64", "rows-1024", "nchw", "nhwc", "fortran"), tuple(PICKS))
    param_names = ("layout", "pick")

    def prepare(self, layout, pick):
        self.x, self.axis = array(layout)
        beside = list(self.x.shape)
        beside[self.axis] = 1  # one for each position, as it broadcasts to x
        rng = np.random.default_rng(1)
        given = self.x < 112, rng.random(beside) < 0.8, rng.uniform(0.5, 1.5, beside)
        if pick == "omit":
            np.copyto(self.x, np.nan, where=self.x > 130)
        argument, weight = PICKS[pick]
        self.how = argument(self.x, *given)
        m = numbabn.moments(self.x, axis=self.axis, **self.how)
        check_moments(m, self.x, self.axis, weight(self.x, *given))

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
