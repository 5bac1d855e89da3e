"""Relative errors against exact arithmetic, in float64's own units: 1e-16 is as good as a float64 can say."""

from fractions import Fraction

import numpy as np

import numbabn

from . import count

# name: (dtype, mean, bits of the step: no value has finer ones, bounds of the errors of mean and variance)
DATA = {
    "float32 N(1000, 1)": ("float32", 1000.0, 14, (1e-13, 1e-10)),
    "float64 N(1e8, 1)": ("float64", 1e8, 26, (1e-13, 1e-7)),
}


def exact_moments(column, pivot, bits):
    """(mean, variance) of a column as fractions; its values less the pivot are whole multiples of 2**-bits."""
    steps = np.ldexp(column.astype(np.float64) - pivot, bits)
    whole = steps.astype(np.int64)
    assert (whole == steps).all(), "the values are no multiples of the step"
    values = whole.tolist()
    n, s1, s2 = len(values), sum(values), sum(v * v for v in values)
    mean = Fraction(s1, n)
    var = Fraction(s2, n) - mean * mean
    return pivot + mean / 2**bits, var / 4**bits


class Moments:
    """The worst of 4 channels: data whose mean is far from 0."""

    params = tuple(DATA)
    param_names = ("data",)

    def setup(self, data):
        dtype, mean, bits, bounds = DATA[data]
        z = np.random.default_rng(0).standard_normal((count(131_072), 4))
        x = (mean + z).astype(dtype)
        m = numbabn.moments(x)
        self.errors = [0.0, 0.0]
        for c in range(4):
            exact = exact_moments(x[:, c], int(mean), bits)
            for k, value in enumerate((m.mean[c], m.var()[c])):
                self.errors[k] = max(self.errors[k], float(abs(Fraction(float(value)) / exact[k] - 1)))
        for error, bound in zip(self.errors, bounds, strict=True):
            assert error <= bound, f"relative error {error:.2g}, more than {bound:g}"

    def track_mean_error(self, data):
        return self.errors[0]

    def track_variance_error(self, data):
        return self.errors[1]

    track_mean_error.unit = track_variance_error.unit = "relative error"


class Output:
    """float32 N(1e6, 1) normalized by its own statistics: how far from exact the output is."""

    def setup(self):
        from numbabn.kernels import reference

        z = np.random.default_rng(1).standard_normal((count(131_072), 4))
        x = (1e6 + z).astype(np.float32)
        y, _ = numbabn.batch_norm(x)
        expected, _ = reference.batch_norm(x, (1,))
        self.worst = float(np.abs(y - expected).max())
        self.mean = float(np.abs(y.mean(axis=0, dtype=np.float64)).max())
        assert max(self.worst, self.mean) < 1e-6, (self.worst, self.mean)

    def track_worst_value(self):
        return self.worst

    def track_mean(self):
        return self.mean

    track_worst_value.unit = track_mean.unit = "standard deviations"
