"""Normalization by given statistics, and its inverse."""

import numpy as np

import numbabn

from . import LAYOUTS, TOLERANCE, Timed, array, check_output, touched


class Normalize(Timed):
    """Into a given array, into a new one, in place."""

    params = (tuple(LAYOUTS),)
    param_names = ("layout",)

    def prepare(self, layout):
        self.x, self.axis = array(layout)
        self.out = touched(self.x)
        channels = self.x.shape[self.axis]
        self.mean = np.linspace(95, 105, channels)
        self.var = np.linspace(200, 250, channels)
        for out in (self.out, None):
            y = numbabn.normalize(self.x, self.mean, self.var, axis=self.axis, out=out)
            check_output(y, self.x, self.axis, self.mean, self.var)
        # Mean 0 and variance 1 do the same work and leave the values alone, however often it is repeated.
        before = self.x[:100].copy()
        numbabn.normalize(self.x, 0, 1, eps=0, axis=self.axis, out=self.x)
        np.testing.assert_array_equal(self.x[:100], before)

    def time_out_given(self, layout):
        numbabn.normalize(self.x, self.mean, self.var, axis=self.axis, out=self.out)

    def time_fresh(self, layout):
        numbabn.normalize(self.x, self.mean, self.var, axis=self.axis)

    def time_in_place(self, layout):
        numbabn.normalize(self.x, 0, 1, eps=0, axis=self.axis, out=self.x)


class Denormalize(Timed):
    """The inverse, with gamma and beta."""

    params = (("rows-64", "nchw"),)
    param_names = ("layout",)

    def prepare(self, layout):
        x, self.axis = array(layout)
        channels = x.shape[self.axis]
        self.given = (
            np.linspace(95, 105, channels),
            np.linspace(200, 250, channels),
            np.linspace(0.5, 2, channels),
            np.linspace(-1, 1, channels),
        )
        self.y = numbabn.normalize(x, *self.given, axis=self.axis)
        check_output(self.y, x, self.axis, *self.given)
        self.out = touched(x)
        numbabn.denormalize(self.y, *self.given, axis=self.axis, out=self.out)
        np.testing.assert_allclose(self.out, x, rtol=1e-6)

    def time_out_given(self, layout):
        numbabn.denormalize(self.y, *self.given, axis=self.axis, out=self.out)


class DTypes(Timed):
    """Other types: float32 comes out of 8-bit data, and a 16-bit float is rounded once."""

    params = (*TOLERANCE, "uint8")
    param_names = ("dtype",)

    def prepare(self, dtype):
        self.x, self.axis = array("rows-64", dtype)
        self.out = touched(self.x)
        self.time_out_given(dtype)
        check_output(self.out, self.x, self.axis, 100.0, 225.0, tolerance=TOLERANCE.get(dtype, 1e-6))

    def time_out_given(self, dtype):
        numbabn.normalize(self.x, 100.0, 225.0, axis=self.axis, out=self.out)
