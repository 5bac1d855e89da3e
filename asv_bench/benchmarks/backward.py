"""The way back: gradients of x, gamma and beta."""

import numpy as np

import numbabn

from . import Timed, array, draw, touched


class Function(Timed):
    """`batch_norm_backward`, through the statistics of the batch, and with these frozen."""

    params = (("rows-3", "rows-64", "rows-1024", "nchw", "nhwc", "nchw-2048", "fortran"), ("batch", "frozen"))
    param_names = ("layout", "statistics")

    def prepare(self, layout, statistics):
        self.x, self.axis = array(layout)
        self.out, self.dy = touched(self.x), touched(self.x)
        np.copyto(self.dy, (draw(self.x.shape, seed=1) - 95) / 15 + 0.3 * self.x)
        self.gamma = np.linspace(0.5, 2, self.x.shape[self.axis])
        self.m = numbabn.moments(self.x, axis=self.axis)
        self.training = statistics == "batch"
        for out in (self.out, None):
            check_gradients(self.gradients(out), self)

    def gradients(self, out):
        return numbabn.batch_norm_backward(
            self.dy, self.x, self.m, self.gamma, axis=self.axis, training=self.training, out=out
        )

    def time_out_given(self, layout, statistics):
        self.gradients(self.out)

    def time_fresh(self, layout, statistics):
        self.gradients(None)


class Step(Timed):
    """A training step of `BatchNorm` and the way back through it, with an activation in the same pass."""

    params = (("rows-64", "nchw"), ("none", "relu"))
    param_names = ("layout", "activation")

    def prepare(self, layout, activation):
        self.x, self.axis = array(layout)
        self.out, self.dx, self.dy = (touched(self.x) for _ in range(3))
        np.copyto(self.dy, (self.x - 90) / 15)
        act = None if activation == "none" else activation
        self.bn = numbabn.BatchNorm(self.x.shape[self.axis], axis=self.axis, gamma=2.0, activation=act)
        self.m, self.gamma, self.training = numbabn.moments(self.x, axis=self.axis), 2.0, True
        result = self.step()
        passed = np.ones_like(self.dy) if act is None else (self.out > 0).astype(np.float32)
        self.dy, given = self.dy * passed, self.dy
        check_gradients(result, self)
        self.dy = given

    def step(self):
        self.bn(self.x, training=True, out=self.out)
        return self.bn.backward(self.dy, self.x, out=self.dx)

    def time_step(self, layout, activation):
        self.step()


def check_gradients(found, of):
    """AssertionError unless these are the gradients of the arrays of a benchmark."""
    from numbabn.kernels import reference

    n, mean, m2 = reference.moments(of.x, (of.axis,))
    dx, dgamma, dbeta = reference.backward(
        of.dy, of.x, (of.axis,), n, mean, m2 / n, of.gamma, frozen=not of.training
    )  # fmt: skip
    near = 1e-6 * np.abs(dx).max() + 1e-12 * np.abs(of.dy).max()  # of one value all is 0, but for float64's rounding
    np.testing.assert_allclose(found[0], dx, rtol=1e-6, atol=near, err_msg="dx")
    for mine, true, name in ((found[1], dgamma, "dgamma"), (found[2], dbeta, "dbeta")):
        np.testing.assert_allclose(mine, true, rtol=1e-9, atol=1e-9 * n, err_msg=name)
