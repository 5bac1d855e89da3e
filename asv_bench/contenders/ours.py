"""numbabn, by its public functions."""

import numbabn

from .contender import Contender
from .problem import EPS

PICKS = {
    "masked": lambda p: {"where": p.where},
    "positions": lambda p: {"where": p.positions},
    "weighted": lambda p: {"weights": p.weights},
    "omitting": lambda p: {"nan_policy": "omit"},
    "samples": lambda p: {"where": p.samples},
    "lines": lambda p: {"weights": p.lines},
}


def contenders(task, p):
    """numbabn's forms of a task: into a given array first, then into a new one."""
    if task == "moments":
        return [_statistics("", lambda: numbabn.moments(p.x, axis=p.axis))]
    if task == "update":
        bn = numbabn.BatchNorm(p.channels, axis=p.axis, momentum=None)
        return [_statistics("", lambda: bn.update(p.x))]
    if task in PICKS:
        x, pick = p.holes if task == "omitting" else p.x, PICKS[task](p)
        return [_statistics("", lambda: numbabn.moments(x, axis=p.axis, **pick))]
    run = _OUTPUTS[task](p)
    return [
        Contender("numbabn", "", lambda: run(p.out)),
        Contender("numbabn", "fresh", lambda: run(None)),
    ]


def plain(p):
    """Plain moments of the same array: what the masks are measured against."""
    return _statistics("plain", lambda: numbabn.moments(p.x, axis=p.axis))


def _statistics(form, work):
    return Contender("numbabn", form, work, lambda m: (m.mean, m.var()))


def _inference(p):
    return lambda out: numbabn.normalize(p.x, p.mean, p.var, eps=EPS, axis=p.axis, out=out)


def _denormalize(p):
    return lambda out: numbabn.denormalize(p.x, p.mean, p.var, eps=EPS, axis=p.axis, out=out)


def _train(p):
    return lambda out: numbabn.batch_norm(p.x, eps=EPS, axis=p.axis, out=out)[0]


def _backward(p):
    m = numbabn.moments(p.x, axis=p.axis)
    return lambda out: numbabn.batch_norm_backward(p.dy, p.x, m, eps=EPS, axis=p.axis, out=out)


def _step(p):
    bn = numbabn.BatchNorm(p.channels, axis=p.axis, eps=EPS)
    return lambda out: bn(p.x, training=True, out=out)


def _layer(p):
    bn = numbabn.BatchNorm(p.channels, axis=p.axis, eps=EPS, momentum=1.0)
    bn.update(p.x)
    return lambda out: bn(p.x, out=out)


_OUTPUTS = {
    "inference": _inference,
    "denormalize": _denormalize,
    "train": _train,
    "backward": _backward,
    "step": _step,
    "layer": _layer,
}
