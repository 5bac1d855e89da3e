"""NumPy, as people write it, and with `out=` where it has one. One thread: it has no more."""

import numpy as np

from .contender import Contender
from .problem import EPS


def contenders(task, p):
    return [Contender("NumPy", form, work) for form, work in _FORMS[task](p)] if task in _FORMS else []


def _wide(p):
    """What people add for 16-bit floats, whose sums overflow."""
    return {"dtype": np.float32} if p.x.itemsize == 2 else {}


def _taken(p, keepdims):
    """(mean, variance) of x."""
    how = {"axis": p.reduced, "keepdims": keepdims, **_wide(p)}
    return p.x.mean(**how), p.x.var(**how)


def _moments(p):
    return [("", lambda: _taken(p, False))]


def _given(p):
    dtype = np.float32 if p.x.itemsize == 2 else p.x.dtype
    return p.along(p.mean, dtype), p.along(p.var, dtype)


def _normalized(p, mean, var):
    return ((p.x - mean) / np.sqrt(var + mean.dtype.type(EPS))).astype(p.x.dtype, copy=False)


def _normalized_into_out(p, mean, var):
    np.subtract(p.x, mean, out=p.out, casting="same_kind")
    return np.multiply(p.out, 1 / np.sqrt(var + mean.dtype.type(EPS)), out=p.out, casting="same_kind")


def _inference(p):
    given = _given(p)
    return [("", lambda: _normalized(p, *given)), ("out=", lambda: _normalized_into_out(p, *given))]


def _train(p):
    return [
        ("", lambda: _normalized(p, *_taken(p, True))),
        ("out=", lambda: _normalized_into_out(p, *_taken(p, True))),
    ]


def _denormalize(p):
    mean, var = _given(p)
    std = np.sqrt(var + mean.dtype.type(EPS))

    def into_out():
        np.multiply(p.x, std, out=p.out, casting="same_kind")
        return np.add(p.out, mean, out=p.out, casting="same_kind")

    return [("", lambda: (p.x * std + mean).astype(p.x.dtype, copy=False)), ("out=", into_out)]


def _backward(p):
    mean, var = _given(p)
    inverse, n = 1 / np.sqrt(var + mean.dtype.type(EPS)), mean.dtype.type(p.n)
    how = {"axis": p.reduced, "keepdims": True, **_wide(p)}

    def work():
        x_hat = (p.x - mean) * inverse
        dgamma, dbeta = (p.dy * x_hat).sum(**how), p.dy.sum(**how)
        dx = inverse * (p.dy - dbeta / n - x_hat * (dgamma / n))
        return dx.astype(p.x.dtype, copy=False), dgamma, dbeta

    return [("", work)]


def _masked(p):
    masked = np.ma.masked_array(p.x, ~p.where)
    return [
        ("masked array", lambda: (masked.mean(axis=p.reduced), masked.var(axis=p.reduced))),
        ("where=", lambda: _where(p, p.where)),
    ]


def _counted(task):
    return lambda p: [("where=", lambda: _where(p, p.beside(task)))]


def _where(p, where):
    return p.x.mean(axis=p.reduced, where=where), p.x.var(axis=p.reduced, where=where)


def _weighted(task):
    def forms(p):
        weights = np.broadcast_to(p.beside(task).astype(p.x.dtype), p.x.shape)

        def work():
            mean = np.average(p.x, axis=p.reduced, weights=weights)
            deviations = (p.x - p.along(mean, p.x.dtype)) ** 2
            return mean, np.average(deviations, axis=p.reduced, weights=weights)

        return [("average", work)]

    return forms


def _omitting(p):
    return [("nanvar", lambda: (np.nanmean(p.holes, axis=p.reduced), np.nanvar(p.holes, axis=p.reduced)))]


_FORMS = {
    "moments": _moments,
    "inference": _inference,
    "denormalize": _denormalize,
    "train": _train,
    "backward": _backward,
    "masked": _masked,
    "positions": _counted("positions"),
    "samples": _counted("samples"),
    "weighted": _weighted("weighted"),
    "lines": _weighted("lines"),
    "omitting": _omitting,
}
