"""Batch normalization in training mode: moments, and the transform by them."""

import numpy as np

import numbabn

from . import TOLERANCE, Timed, array, check_moments, check_output, check_trained, touched

LAYOUTS = ("rows-3", "rows-16", "rows-64", "rows-1024", "rows-16384", "nchw", "nhwc", "nchw-3", "nchw-2048", "fortran")


class Function(Timed):
    """`batch_norm`, the pure function, with gamma and beta."""

    params = (LAYOUTS,)
    param_names = ("layout",)

    def prepare(self, layout):
        self.x, self.axis = array(layout)
        self.out = touched(self.x)
        channels = self.x.shape[self.axis]
        self.gamma, self.beta = np.linspace(0.5, 2, channels), np.linspace(-1, 1, channels)
        for out in (self.out, None):
            y, m = numbabn.batch_norm(self.x, self.gamma, self.beta, axis=self.axis, out=out)
            check_moments(m, self.x, self.axis)
            check_trained(y, self.x, self.axis, self.gamma, self.beta)

    def time_out_given(self, layout):
        numbabn.batch_norm(self.x, self.gamma, self.beta, axis=self.axis, out=self.out)

    def time_fresh(self, layout):
        numbabn.batch_norm(self.x, self.gamma, self.beta, axis=self.axis)


class DTypes(Timed):
    """Other types: the output is of the same."""

    params = tuple(TOLERANCE)
    param_names = ("dtype",)

    def prepare(self, dtype):
        self.x, self.axis = array("rows-64", dtype)
        self.out = touched(self.x)
        self.time_out_given(dtype)
        check_trained(self.out, self.x, self.axis, tolerance=TOLERANCE[dtype])

    def time_out_given(self, dtype):
        numbabn.batch_norm(self.x, axis=self.axis, out=self.out)


class Step(Timed):
    """`BatchNorm`, with running averages: a training step and inference."""

    params = (("rows-64", "nchw"),)
    param_names = ("layout",)

    def prepare(self, layout):
        self.x, self.axis = array(layout)
        self.out = touched(self.x)
        self.bn = numbabn.BatchNorm(self.x.shape[self.axis], axis=self.axis, momentum=0.1)
        self.time_training(layout)
        check_trained(self.out, self.x, self.axis)
        np.testing.assert_allclose(self.bn.running_mean, 0.1 * numbabn.moments(self.x, axis=self.axis).mean)
        mean, var = self.bn.running_mean, self.bn.running_var
        self.time_inference(layout)
        check_output(self.out, self.x, self.axis, mean, var)
        np.testing.assert_array_equal(self.bn.running_mean, mean)

    def time_training(self, layout):
        self.bn(self.x, training=True, out=self.out)

    def time_inference(self, layout):
        self.bn(self.x, out=self.out)
