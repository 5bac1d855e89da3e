"""Small arrays, where a call costs more than its arithmetic. NUMBABN_BENCH_SCALE does not change them.

Each time is that of a thousand calls: its milliseconds are microseconds a call.
"""

import numpy as np

import numbabn

from . import Timed, check_moments, check_output, check_trained, draw, touched
from .backward import check_gradients

CALLS = range(1000)


class Small(Timed):
    """One observation, small tables, small images."""

    params = ("1x64", "32x64", "256x128", "8x16x28x28")
    param_names = ("shape",)

    def prepare(self, shape):
        self.x = draw(tuple(map(int, shape.split("x"))))
        self.out = touched(self.x)
        self.bn = numbabn.BatchNorm(self.x.shape[1], axis=1)
        check_moments(numbabn.moments(self.x, axis=1), self.x, 1)
        check_output(self.normalize(), self.x, 1, 100.0, 225.0)
        check_trained(numbabn.batch_norm(self.x, axis=1, out=self.out)[0], self.x, 1)
        check_trained(self.bn(self.x, training=True, out=self.out), self.x, 1)
        mean, var = self.bn.running_mean, self.bn.running_var
        check_output(self.bn(self.x, out=self.out), self.x, 1, mean, var)
        check_moments(self.bn.update(self.x), self.x, 1)
        self.dy, self.axis, self.training = draw(self.x.shape, seed=1) - 95, 1, True
        self.gamma, self.m = np.linspace(0.5, 2, self.x.shape[1]), numbabn.moments(self.x, axis=1)
        check_gradients(self.gradients(), self)

    def normalize(self):
        return numbabn.normalize(self.x, 100.0, 225.0, axis=1, out=self.out)

    def gradients(self):
        return numbabn.batch_norm_backward(self.dy, self.x, self.m, self.gamma, axis=1, out=self.out)

    def time_moments(self, shape):
        for _ in CALLS:
            numbabn.moments(self.x, axis=1)

    def time_normalize(self, shape):
        for _ in CALLS:
            self.normalize()

    def time_batch_norm(self, shape):
        for _ in CALLS:
            numbabn.batch_norm(self.x, axis=1, out=self.out)

    def time_training_step(self, shape):
        for _ in CALLS:
            self.bn(self.x, training=True, out=self.out)

    def time_inference(self, shape):
        for _ in CALLS:
            self.bn(self.x, out=self.out)

    def time_update(self, shape):
        for _ in CALLS:
            self.bn.update(self.x)

    def time_backward(self, shape):
        for _ in CALLS:
            self.gradients()
