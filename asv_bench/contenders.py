"""Who takes part in versus.py: numbabn, the plain copies, and the peers, each with the check of its answer.

The peers come from tests/rivals.py, the one table of rivals; here they get their forms that write into a given array.
"""

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import draw, scaled, touched
from numbabn.kernels import reference

import numbabn
from numbabn.backends.threads import parallel_for

JOBS = ("moments", "inference", "training")
SHAPES = {
    "2-D": ((1_048_576, 64), 1),
    "2-D wide": ((65_536, 1024), 1),
    "NCHW": ((64, 64, 112, 112), 1),
    "NHWC": ((64, 112, 112, 64), 3),
}
LABELS = {"numpy": "NumPy", "scikit-learn": "scikit-learn", "pytorch": "PyTorch"}
EPS = 1e-5
# (mean in standard deviations, variance relative, output absolute): float32 output to its last bits, float64
# statistics; the peers sum in float32, and scikit-learn knows no eps.
OURS = (1e-12, 1e-10, 1e-6)
PEERS = (1e-3, 1e-3, 5e-3)


@dataclass(frozen=True)
class Problem:
    """One array with its true moments; `out` is where everybody who can writes to."""

    name: str
    x: np.ndarray
    axis: int
    out: np.ndarray
    mean: np.ndarray
    var: np.ndarray


@dataclass(frozen=True)
class Contender:
    """`work` gives (mean, variance) for moments, nothing for a copy, else the output in x's shape."""

    name: str
    work: Callable[[], Any]
    tolerance: tuple[float, float, float] = field(default=PEERS)

    @property
    def peer(self):
        return not self.name.startswith(("numbabn", "copy"))


def problem(name, factor):
    """The array of this name, smaller by the factor, and its moments by the reference."""
    shape, axis = SHAPES[name]
    x = draw(scaled(shape, axis, factor))
    n, mean, m2 = reference.moments(x, (axis,))
    return Problem(name, x, axis, touched(x), mean, m2 / n)


def copies(p):
    """Plain copies of x into out, on several threads."""
    x, out = p.x.reshape(-1), p.out.reshape(-1)
    parts = [slice(x.size * i // 64, x.size * (i + 1) // 64) for i in range(64)]

    def part(lo, hi):
        for at in parts[lo:hi]:
            np.copyto(out[at], x[at])

    found = [Contender("copy, np.copyto on numbabn's threads", lambda: parallel_for(part, len(parts)))]
    if _installed("torch"):
        import torch

        source, target = torch.from_numpy(x), torch.from_numpy(out)
        found.append(Contender("copy, torch copy_", lambda: target.copy_(source)))
    return found


def contenders(job, p):
    """Everybody who can do this job on this array; ours first."""
    return [*_numbabn(job, p), *_rivals(job, p), *_into_out(job, p)]


def missing():
    """Names of peers that are not installed."""
    return [LABELS[r.name] for r in _table() if not r.available]


def error(job, p, result):
    """The largest errors of a result against the reference, as the numbers of a tolerance."""
    if job == "moments":
        mean, var = (np.asarray(v, dtype=np.float64).reshape(-1) for v in result)
        return float(np.abs((mean - p.mean) / np.sqrt(p.var)).max()), float(np.abs(var / p.var - 1).max())
    y = np.asarray(result)
    if y.shape != p.x.shape:
        raise AssertionError(f"the output has shape {y.shape}, x has {p.x.shape}")
    worst, step = 0.0, max(1, len(y) // 32)
    for i in range(0, len(y), step):  # in parts: the whole in float64 would be most of the memory
        expected = reference.normalize(p.x[i : i + step], (p.axis,), p.mean, p.var, eps=EPS)
        difference = np.abs(y[i : i + step] - expected).max()
        worst = max(worst, math.inf if np.isnan(difference) else float(difference))
    return (worst,)


def check(job, p, contender, result):
    """The largest errors; AssertionError if one is beyond the tolerance."""
    found = error(job, p, result)
    bounds = contender.tolerance[:2] if job == "moments" else contender.tolerance[2:]
    if not all(e <= b for e, b in zip(found, bounds, strict=True)):
        raise AssertionError(f"{contender.name} on {job} {p.x.shape} is off by {found}, tolerance {bounds}")
    return found


def _numbabn(job, p):
    if job == "moments":

        def moments():
            m = numbabn.moments(p.x, axis=p.axis)
            return m.mean, m.var()

        return [Contender("numbabn", moments, OURS)]
    if job == "inference":

        def run(out):
            return numbabn.normalize(p.x, p.mean, p.var, eps=EPS, axis=p.axis, out=out)
    else:

        def run(out):
            return numbabn.batch_norm(p.x, eps=EPS, axis=p.axis, out=out)[0]

    return [
        Contender("numbabn", lambda: run(p.out), OURS),
        Contender("numbabn, fresh", lambda: run(None), OURS),
    ]


def _table():
    """The rows of tests/rivals.py."""
    if "numbabn_rivals" not in sys.modules:
        path = Path(__file__).parent.parent / "tests" / "rivals.py"
        spec = importlib.util.spec_from_file_location("numbabn_rivals", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return sys.modules["numbabn_rivals"].RIVALS


def _rivals(job, p):
    """Peers in the form that people use: a new output."""
    found = []
    for rival in _table():
        if not rival.available:
            continue
        x, axis = p.x, p.axis
        if rival.name == "scikit-learn" and axis == x.ndim - 1:
            x, axis = x.reshape(-1, x.shape[-1]), 1  # a view: a table is all it takes
        work = getattr(rival, job)(x, axis)
        if work is not None:
            found.append(Contender(LABELS[rival.name], _reshaped(work, p.x.shape, job)))
    return found


def _reshaped(work, shape, job):
    return work if job == "moments" else lambda: work().reshape(shape)


def _into_out(job, p):
    """Peers in their form that writes into a given array."""
    if job == "moments":
        return []
    found = [Contender("NumPy, out=", _numpy_out(job, p))]
    if _installed("torch"):
        found.append(Contender("PyTorch, out=", _torch_out(job, p)))
    return found


def _numpy_out(job, p):
    reduced = tuple(d for d in range(p.x.ndim) if d != p.axis)
    given = [reference.along(v, (p.axis,), p.x.ndim).astype(np.float32) for v in (p.mean, p.var)]

    def work():
        mean, var = given
        if job == "training":
            mean, var = p.x.mean(axis=reduced, keepdims=True), p.x.var(axis=reduced, keepdims=True)
        np.subtract(p.x, mean, out=p.out)
        return np.multiply(p.out, 1 / np.sqrt(var + np.float32(EPS)), out=p.out)

    return work


def _torch_out(job, p):
    import torch

    x, out = (torch.from_numpy(a).movedim(p.axis, 1) for a in (p.x, p.out))
    training = job == "training"
    mean, var = (None, None) if training else (torch.from_numpy(v).float() for v in (p.mean, p.var))
    saved = [torch.empty(p.mean.size if training else 0) for _ in range(2)]
    batch_norm = torch.ops.aten.native_batch_norm.out

    def work():
        with torch.inference_mode():
            batch_norm(x, None, None, mean, var, training, 0.1, EPS, out=out, save_mean=saved[0], save_invstd=saved[1])
        return p.out

    return work


def _installed(package):
    return importlib.util.find_spec(package) is not None
