"""Statistics that arrive in parts: merging them, and learning chunk by chunk."""

import numpy as np

import numbabn

from . import Timed, check_moments, count, draw


class Merge(Timed):
    """256 moments into one."""

    params = (64, 4096)
    param_names = ("channels",)

    def prepare(self, channels):
        x = draw((256 * 8, channels))
        self.parts = [numbabn.moments(x[i : i + 8]) for i in range(0, len(x), 8)]
        check_moments(numbabn.Moments.merge_all(self.parts), x, 1)
        check_moments(sum(self.parts), x, 1)

    def time_merge_all(self, channels):
        numbabn.Moments.merge_all(self.parts)

    def time_sum(self, channels):
        sum(self.parts)


class Update(Timed):
    """One array of 64 channels, fed to a BatchNorm in chunks of so many rows."""

    params = ((64, 4096), ("exponential", "cumulative"))
    param_names = ("rows", "average")

    def prepare(self, rows, average):
        self.x = draw((count(131_072), 64))
        self.rows = rows
        self.momentum = None if average == "cumulative" else 0.1
        bn = self.learn()
        assert bn.count[0] == len(self.x)
        if average == "cumulative":
            np.testing.assert_allclose(bn.running_mean, self.x.mean(axis=0, dtype=np.float64), rtol=1e-12)
            np.testing.assert_allclose(bn.running_var, self.x.var(axis=0, dtype=np.float64), rtol=1e-10)
        else:
            batches = -(-len(self.x) // rows)
            np.testing.assert_allclose(bn.running_mean, 100 * (1 - 0.9**batches), rtol=0.2)

    def learn(self):
        bn = numbabn.BatchNorm(64, momentum=self.momentum)
        for i in range(0, len(self.x), self.rows):
            bn.update(self.x[i : i + self.rows])
        return bn

    def time_update(self, rows, average):
        self.learn()


class MergeLayers(Timed):
    """What 64 workers have learned, into one BatchNorm."""

    params = (64, 4096)
    param_names = ("channels",)

    def prepare(self, channels):
        x = draw((64 * 8, channels))
        self.workers = []
        for i in range(64):
            worker = numbabn.BatchNorm(channels, momentum=None)
            worker.update(x[i * 8 : i * 8 + 8])
            self.workers.append(worker)
        np.testing.assert_allclose(self.merged(channels).running_var, x.var(axis=0, dtype=np.float64), rtol=1e-10)

    def merged(self, channels):
        bn = numbabn.BatchNorm(channels, momentum=None)
        for worker in self.workers:
            bn.merge(worker)
        return bn

    def time_merge(self, channels):
        self.merged(channels)
