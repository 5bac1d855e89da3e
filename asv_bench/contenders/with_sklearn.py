"""scikit-learn's StandardScaler, for arrays that are a table or a view of one. One thread, always a new array."""

import numpy as np

from .contender import Contender


def contenders(task, p):
    if task not in _WORKS or p.table(p.x) is None:
        return []
    work = _WORKS[task](p, p.table(p.x))
    if task in ("inference", "denormalize", "train"):
        return [Contender("scikit-learn", "", work, lambda y: y.reshape(p.x.shape))]
    return [Contender("scikit-learn", "", work, lambda fitted: (fitted.mean_, fitted.var_))]


def _scaler():
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def _moments(p, x):
    return lambda: _scaler().fit(x)


def _inference(p, x):
    fitted = _scaler().fit(x)
    return lambda: fitted.transform(x)


def _denormalize(p, x):
    fitted = _scaler().fit(x)
    return lambda: fitted.inverse_transform(x)


def _train(p, x):
    return lambda: _scaler().fit_transform(x)


def _update(p, x):
    scaler = _scaler()
    return lambda: scaler.partial_fit(x)


def _beside(task):
    def work(p, x):
        beside = p.beside(task)
        weights = np.broadcast_to(beside, (*p.x.shape[:-1], 1)).astype(x.dtype).reshape(-1)
        return lambda: _scaler().fit(x, sample_weight=weights)

    return work


def _omitting(p, x):
    holes = p.table(p.holes)
    return lambda: _scaler().fit(holes)


_WORKS = {
    "moments": _moments,
    "inference": _inference,
    "denormalize": _denormalize,
    "train": _train,
    "update": _update,
    "omitting": _omitting,
    **{task: _beside(task) for task in ("positions", "weighted", "samples", "lines")},
}
