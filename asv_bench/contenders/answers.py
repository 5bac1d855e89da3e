"""Whether an answer is right: its largest errors beside the truth, and how large they may be."""

import numpy as np
from numbabn.kernels import reference

from .problem import EPS

# Largest errors by the type of x: means in standard deviations and variances relative; outputs in standard deviations.
# numbabn keeps float64 statistics whatever x is, and rounds an output once. Peers sum in float32, PyTorch gives the
# statistics of 16-bit values in 16 bits, and scikit-learn knows no eps.
OURS = {"float64": 1e-12, "float32": 1e-6, "float16": 4e-3, "bfloat16": 4e-2}
OUR_STATISTICS = (1e-12, 1e-10)
PEERS = {"float64": 5e-3, "float32": 5e-3, "float16": 2e-2, "bfloat16": 2e-1}
PEER_STATISTICS = {"float64": 1e-3, "float32": 1e-3, "float16": 5e-3, "bfloat16": 5e-2}
OUTPUTS = ("inference", "train", "step", "layer", "denormalize")
SLABS = 16  # of an output that are compared; of a small array that is all


class WrongAnswerError(AssertionError):
    """An answer is off by more than its tolerance."""


def check(task, p, contender, result):
    """The largest errors of a result; WrongAnswerError if one is beyond the tolerance."""
    answer = contender.answer(result)
    ours, dtype = contender.library == "numbabn", p.x.dtype.name
    output = (OURS if ours else PEERS)[dtype]
    statistics = OUR_STATISTICS if ours else (PEER_STATISTICS[dtype],) * 2
    if task == "backward":
        found, allowed = _gradients(p, answer), (output, statistics[1], statistics[1])
    elif task in OUTPUTS:
        found, allowed = (_worst(p, answer, _denormalized if task == "denormalize" else _normalized),), (output,)
    else:
        found, allowed = _statistics(p.moments_of(task), answer), statistics
    if not all(e <= bound for e, bound in zip(found, allowed, strict=True)):
        off, bounds = (", ".join(f"{e:.2g}" for e in errors) for errors in (found, allowed))
        raise WrongAnswerError(f"off by {off}, allowed are {bounds}")
    return found


def _statistics(truth, answer):
    true_mean, true_var = truth
    mean, var = (np.asarray(v, dtype=np.float64).reshape(-1) for v in answer)
    scale = np.where(true_var > 0, true_var, 1.0)
    return _largest((mean - true_mean) / np.sqrt(scale)), _largest((var - true_var) / scale)


def _gradients(p, answer):
    dx, dgamma, dbeta = answer
    scale = p.along(np.sqrt(p.var))
    sums = [
        _largest((np.asarray(mine, dtype=np.float64).reshape(-1) - true) / p.n)
        for mine, true in zip((dgamma, dbeta), p.gradients, strict=True)
    ]
    return _worst(p, dx, lambda p, s: p.dx(s), scale), *sums


def _worst(p, y, expected, scale=1.0):
    y = np.asarray(y)
    if y.shape != p.x.shape:
        raise WrongAnswerError(f"the output has shape {y.shape}, x has {p.x.shape}")
    found = []
    for s in p.slabs(SLABS):
        true = expected(p, s)
        found.append(_largest((y[s].astype(np.float64) * scale - true) / np.maximum(1.0, abs(true))))
    return max(found)


def _normalized(p, s):
    return p.x_hat(s)


def _denormalized(p, s):
    return reference.transform(p.x[s], (p.axis,), 0.0, np.sqrt(p.var + EPS), p.mean)


def _largest(errors):
    """NaN counts as infinite."""
    worst = np.abs(errors).max(initial=0.0)
    return float("inf") if np.isnan(worst) else float(worst)
