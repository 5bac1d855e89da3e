"""numbabn beside a plain copy and beside PyTorch: ratios of times taken in turn, which outlive a change of machine.

The whole comparison is `asv_bench/versus.py`. Without PyTorch its half of this is skipped.
"""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import numbabn

from . import array, check_moments, check_trained, touched
from .race import race

# PyTorch's threads otherwise spin for a while after each call, on cores that numbabn needs; read when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

EPS = 1e-5
ROUNDS = 15


class Ratio:
    """Median time of numbabn over that of the other: below 1 numbabn is faster."""

    params = (("rows-64", "nchw", "nhwc"), ("moments", "inference", "train"), ("copy", "PyTorch"))
    param_names = ("layout", "task", "beside")

    def setup(self, layout, task, beside):
        if beside == "PyTorch" and importlib.util.find_spec("torch") is None:
            raise NotImplementedError("PyTorch is not installed")  # which asv reads as: skip
        self.x, self.axis = array(layout)
        self.out = touched(self.x)
        self.m = numbabn.moments(self.x, axis=self.axis)
        check_moments(self.m, self.x, self.axis)
        self.works = {"numbabn": self.ours(task), beside: self.copy() if beside == "copy" else self.torch(task)}
        for name, work in self.works.items():
            self.check(name, task, work())

    def ours(self, task):
        x, axis, out = self.x, self.axis, self.out
        mean, var = self.m.mean, self.m.var()
        return {
            "moments": lambda: numbabn.moments(x, axis=axis),
            "inference": lambda: numbabn.normalize(x, mean, var, eps=EPS, axis=axis, out=out),
            "train": lambda: numbabn.batch_norm(x, eps=EPS, axis=axis, out=out)[0],
        }[task]

    def copy(self):
        """A plain copy on as many threads as numbabn has."""
        threads = numbabn.get_num_threads()
        pool = ThreadPoolExecutor(threads)
        pairs = [np.array_split(a.reshape(-1), threads) for a in (self.out, self.x)]
        return lambda: list(pool.map(np.copyto, *pairs))

    def torch(self, task):
        import torch

        torch.set_num_threads(numbabn.get_num_threads())
        x = torch.from_numpy(self.x).movedim(self.axis, 1)
        mean, var = (torch.tensor(v).float() for v in (self.m.mean, self.m.var()))
        given = (None, None) if task == "train" else (mean, var)

        def batch_norm():
            with torch.no_grad():
                y = torch.nn.functional.batch_norm(x, *given, training=task == "train", eps=EPS)
            return y.movedim(1, self.axis).numpy()

        reduced = tuple(d for d in range(x.ndim) if d != 1)
        return (lambda: torch.var_mean(x, dim=reduced, correction=0)) if task == "moments" else batch_norm

    def check(self, name, task, result):
        """AssertionError unless a work did what it should."""
        if name == "copy":
            np.testing.assert_array_equal(self.out, self.x)
        elif task == "moments":
            var, mean = (result.var(), result.mean) if name == "numbabn" else (v.numpy() for v in result)
            np.testing.assert_allclose(mean, self.m.mean, rtol=1e-3)
            np.testing.assert_allclose(var, self.m.var(), rtol=1e-2)
        else:
            check_trained(result, self.x, self.axis, eps=EPS, tolerance=1e-6 if name == "numbabn" else 5e-3)

    def track_ratio(self, layout, task, beside):
        times = race(self.works, ROUNDS)
        return times["numbabn"].median / times[beside].median

    track_ratio.unit = "times the other"
