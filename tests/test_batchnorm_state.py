"""The state of a BatchNorm: state_dict, merge, copy, pickle, equality; what it shows cannot be written."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from model import Model
from test_batchnorm import assert_like, batch, bits

from numbabn import BatchNorm


@pytest.mark.parametrize("name", ["running_mean", "running_var", "count", "gamma"])
@pytest.mark.parametrize("how", ["itself", "copy", "copy.copy", "copy.deepcopy", "pickle", "state_dict"])
def test_what_it_shows_cannot_be_written(how: str, name: str) -> None:
    bn = BatchNorm(2, gamma=1)
    bn.update(batch(channels=2))
    loaded = BatchNorm(2)
    loaded.load_state_dict(bn.state_dict())
    twin = {
        "itself": bn,
        "copy": bn.copy(),
        "copy.copy": copy.copy(bn),
        "copy.deepcopy": copy.deepcopy(bn),
        "pickle": pickle.loads(pickle.dumps(bn)),
        "state_dict": loaded,
    }[how]
    with pytest.raises(ValueError, match="read-only"):
        getattr(twin, name)[0] = 5


def test_state_dict_is_a_copy_and_comes_back() -> None:
    bn = BatchNorm(3, momentum=None, gamma=2)
    bn.update(batch())
    before, d = bits(bn), bn.state_dict()
    other = BatchNorm(3, momentum=None)
    other.load_state_dict(d)
    assert bits(other) == before
    for array in d.values():
        if isinstance(array, np.ndarray):
            array[...] = -5
    assert bits(bn) == bits(other) == before


BAD_STATES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown": ({"extra": 1}, ValueError, "unknown extra"),
    "shape": ({"running_mean": [1.0, 2.0]}, ValueError, "`running_mean` has shape"),
    "negative-var": ({"running_var": [1.0, -1.0, 1.0]}, ValueError, "`running_var` is negative in channel 1"),
    "negative-m2": ({"m2": [-1.0] * 3}, ValueError, "`m2` is negative"),
    "infinite-count": ({"count": [np.inf] * 3}, ValueError, "`count` is not finite"),
    "nan-count": ({"count": [np.nan] * 3}, ValueError, "`count` is not finite"),
    "negative-batches": ({"num_batches": -1}, ValueError, "`num_batches` is -1"),
    "gamma": ({"gamma": [1.0, 2.0]}, ValueError, "`gamma` has shape"),
    "text": ({"running_mean": "zero"}, (TypeError, ValueError), "`running_mean`"),
    "batches-type": ({"num_batches": 1.5}, TypeError, "`num_batches` is 1.5"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_bad_state_dict(name: str) -> None:
    given, error, sentence = BAD_STATES[name]
    bn = BatchNorm(3, momentum=None, beta=1)
    bn.update(batch())
    before = bits(bn)
    with pytest.raises(error, match=sentence):
        bn.load_state_dict(bn.state_dict() | given)
    with pytest.raises(ValueError, match=r"the state lacks m2, running_mean; .* for average='cumulative'"):
        bn.load_state_dict({k: v for k, v in bn.state_dict().items() if k not in ("m2", "running_mean")})
    assert bits(bn) == before


def test_merge_refuses() -> None:
    bn = BatchNorm(3)
    for other, sentence in (
        (BatchNorm(4), r"channels \(4,\)"),
        (BatchNorm(3, momentum=None), "cumulative"),
        (BatchNorm(3, average="debiased"), "average debiased but this BatchNorm has exponential"),
        (BatchNorm(3, ddof=1), "ddof 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            bn.merge(other)
    with pytest.raises(TypeError, match="`other` is dict"):
        bn.merge({})  # type: ignore[arg-type]
    assert bn == BatchNorm(3)


MERGING: tuple[dict[str, Any], ...] = (
    {"momentum": 0.25},
    {"momentum": None},
    {"average": "debiased"},
    {"average": "mixture"},
    {"average": "debiased-mixture", "momentum": (0.0, 0.5, 0.1)},
    {"average": "equal"},
)


@pytest.mark.parametrize("given", MERGING, ids=str)
def test_merge(given: dict[str, Any]) -> None:
    pairs = [(BatchNorm(3, **given), Model(3, **given)) for _ in range(3)]
    for k, (bn, model) in enumerate(pairs[:2]):
        for n in (5, 20):
            bn.update(batch(n, seed=k + n))
            model.learn(batch(n, seed=k + n))
    (a, ma), (b, mb), (empty, nothing) = pairs
    theirs = bits(b)
    assert a.merge(b) is a
    ma.merge(mb)
    assert_like(a, ma)
    assert bits(b) == theirs
    before = bits(a)
    assert bits(a.merge(empty)) == before
    assert_like(empty.merge(a), ma)
    assert_like(BatchNorm(3, **given).merge(BatchNorm(3, **given)), nothing)
    a.update(batch(9))
    ma.learn(batch(9))
    assert_like(a, ma)  # and it goes on from there


@pytest.mark.parametrize("momentum", [0.25, None])
def test_merge_of_what_is_not_finite_is_quiet(momentum: float | None) -> None:
    a, b = (BatchNorm(1, momentum=momentum, nonfinite="propagate") for _ in range(2))
    a.update([[np.inf], [1.0]])
    b.update([[np.inf], [2.0]])
    before = bits(a)
    assert bits(a.merge(BatchNorm(1, momentum=momentum))) == before
    a.merge(b)
    assert np.isnan(a.running_var).all()


def test_copy_reset_and_equality() -> None:
    bn = BatchNorm(3, gamma=[1, 2, 3], momentum=None)
    bn.update(batch())
    for twin in (bn.copy(), copy.copy(bn), copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        assert twin == bn
        assert bits(twin) == bits(bn)
        twin.update(batch(seed=1))
        assert twin != bn
    assert bn != BatchNorm(3, gamma=[1, 2, 3], momentum=None)
    bn.reset()
    assert bn == BatchNorm(3, gamma=[1, 2, 3], momentum=None)
    assert bn != BatchNorm(3, gamma=[1, 2, 3])
    assert bn != "bn"
    with pytest.raises(TypeError, match="unhashable"):
        hash(bn)
