"""The fast lane gives what the general way gives, to the last bit, and is left when it must be."""

from __future__ import annotations

import contextlib
import copy
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import Any
from unittest import mock

import numpy as np
import pytest
from cases import BFLOAT16
from numpy.lib.stride_tricks import as_strided

import numbabn
from numbabn import BatchNorm, averages, lanes
from numbabn.backends import machine

SHAPES = {
    "rows": (32, 6),
    "one row": (1, 6),
    "planes": (2, 6, 300),
    "long planes": (1, 6, 20_000),
    "rows-inner": (3, 6, 5),
    "many rows": (80_000, 6),
    "many planes": (40, 6, 2000),
    "shared rows": (100_000, 6),
    "shared planes": (2, 6, 50_000),
}


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, shape).astype(dtype)


def made(**how: Any) -> BatchNorm:
    bn = BatchNorm(6, axis=1, gamma=np.linspace(0.5, 2, 6), beta=np.linspace(-1, 1, 6), **how)
    bn.update(drawn((50, 6), np.float64))
    return bn


def no_lane() -> Any:
    return mock.patch.object(lanes, "lane", return_value=None)


def general(bn: BatchNorm, x: np.ndarray) -> np.ndarray:
    with no_lane():
        return bn.copy()(x)


def runs_in_a_lane(bn: BatchNorm, x: np.ndarray, out: Any = None) -> bool:
    """Whether inference does; what it writes over is put back."""
    found = lanes.lane_of(bn._options, x, out)
    if found is None:
        return False
    before = np.array(out)
    written = lanes.inferred(found, x, out, lanes.Parameters(bn._options, bn._running, bn.gamma, bn.beta)) is not None
    if written and out is not None:
        out[...] = before
    assert out is None or np.array_equal(out, before, equal_nan=before.dtype.kind == "f")
    return written


def test_a_shape_that_comes_once_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_met_once", set())
    monkeypatch.setattr(lanes, "_known", {})
    bn, x = made(), drawn((41, 6))
    with mock.patch.object(lanes, "prepared", side_effect=AssertionError):
        first = bn(x)
    assert not lanes._known
    assert bn(x).tobytes() == first.tobytes()
    assert runs_in_a_lane(bn, x)
    assert len(lanes._known) == 1
    for n in range(100, 700):
        bn(np.zeros((n, 6)))
    assert len(lanes._known) == 1
    assert len(lanes._met_once) <= lanes.MOST


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_bits(name: str, dtype: Any) -> None:
    bn, x = made(), drawn(SHAPES[name], dtype)
    first = bn(x)
    assert runs_in_a_lane(bn, x)
    other = drawn(SHAPES[name], dtype, seed=1)
    for values, expected in ((x, first), (other, general(bn, other))):
        assert bn(values).tobytes() == expected.tobytes()
        out = np.full_like(values, np.nan)
        assert bn(values, out=out) is out
        assert out.tobytes() == expected.tobytes()
        place = values.copy()
        assert bn(place, out=place) is place
        assert place.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("name", SHAPES)
def test_training_gives_the_same_bits(name: str, dtype: Any) -> None:
    x, axis = drawn(SHAPES[name], dtype), {"axis": 1}
    plain, m = numbabn.batch_norm(x[::-1], [2.0] * 6, 0.5, **axis)
    general, first = numbabn.batch_norm(x, [2.0] * 6, 0.5, **axis)
    for out in (None, np.full_like(x, np.nan), x.copy()):
        bn = BatchNorm(6, axis=1, gamma=2, beta=0.5)
        given = out if out is not None and (out == x).all() else x
        given = given.copy() if out is None else given
        y, again = numbabn.batch_norm(given, np.full(6, 2.0), np.full(6, 0.5), out=out, **axis)
        assert out is None or y is out
        assert (y.tobytes(), again) == (general.tobytes(), first)
        assert again == numbabn.moments(x, **axis)
        z = x.copy()
        assert bn(z, training=True, out=z) is z
        assert z.tobytes() == general.tobytes()
        learned = BatchNorm(6, axis=1, gamma=2, beta=0.5)
        learned.update(x)
        assert bn.state_dict().keys() == learned.state_dict().keys()
        assert all(np.array_equal(v, learned.state_dict()[k]) for k, v in bn.state_dict().items())
    np.testing.assert_allclose(plain[::-1].astype(float), general.astype(float), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(m.mean, first.mean, rtol=1e-12)


def test_normalize_in_the_lane() -> None:
    x = drawn((32, 6))
    how: dict[str, Any] = {"mean": np.arange(6.0), "var": 2.0, "gamma": [1, 2, 3, 4, 5, 6.0], "beta": 0.25}
    expected = numbabn.normalize(x, **how)
    how = {name: np.full(6, p) if isinstance(p, float) else np.array(p, np.float64) for name, p in how.items()}
    assert lanes.normalized(x, None, -1, None, *how.values(), 1e-5) is not None
    place = x.copy()
    assert numbabn.normalize(place, **how, out=place) is place
    for y in (numbabn.normalize(x, **how), numbabn.normalize(x, **how, out=np.empty_like(x)), place):
        assert y.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="`var` is negative"):
        numbabn.normalize(x, 0.0, -1.0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_parameters_of_either_dtype_give_the_same_bits(name: str, kind: Any) -> None:
    x = drawn(SHAPES[name])
    mean, var, gamma, beta = (drawn((6,), kind, seed=s) ** 2 for s in range(4))
    how: dict[str, Any] = {"axis": 1, "backend": "cpu"}
    lists = [p.tolist() for p in (mean, var, gamma, beta)]
    expected = numbabn.normalize(x, *lists, **how)
    y, m = numbabn.batch_norm(x, *lists[2:], **how)
    assert lanes.normalized(x, None, 1, "cpu", mean, var, gamma, beta, 1e-5) is not None
    assert lanes.trained(x, None, 1, None, gamma, beta, 1e-5) is not None
    assert lanes.trained(x, None, 1, None, gamma, lists[3], 1e-5) is None
    for out in (None, np.full_like(x, np.nan)):
        assert numbabn.normalize(x, mean, var, gamma, beta, out=out, **how).tobytes() == expected.tobytes()
        z, again = numbabn.batch_norm(x, gamma, beta, out=out, **how)
        assert (z.tobytes(), again) == (y.tobytes(), m)
    one = numbabn.batch_norm(x, np.ones(6), np.zeros(6), **how)[0]
    assert np.array_equal(numbabn.batch_norm(x, **how)[0], one)
    for wrong in (gamma[:5], gamma.astype(complex), gamma.reshape(6, 1)):
        with pytest.raises((ValueError, TypeError), match="`gamma`"):
            numbabn.batch_norm(x, wrong, **how)


def test_the_policies_hold_in_the_lane() -> None:
    x = drawn((32, 6))
    bn = made(momentum=0.5)
    bn(x, training=True)
    bad = x.copy()
    bad[3, 2] = np.nan
    before = bn.running_mean
    with pytest.warns(RuntimeWarning, match="in channel 2") as caught:
        bn(bad, training=True)
    assert caught[0].filename == __file__
    assert bn.running_mean[2] == before[2]
    assert (bn.running_mean != before).sum() == 5
    huge = np.full((32, 6), 1e200)
    huge[::2] = -1e200
    wide = BatchNorm(6, nonfinite="skip")
    for _ in range(2):
        wide(huge / 1e150, training=True)
    assert np.isfinite(wide.running_var).all()
    assert wide.num_batches == 2


def test_a_schedule_is_asked_once_and_the_way_back_works() -> None:
    asked: list[int] = []

    def schedule(batches: int) -> float:
        asked.append(batches)
        return 0.5

    bn, x = BatchNorm(6, momentum=schedule), drawn((32, 6))
    for _ in range(3):
        bn(x, training=True)
    assert asked == [0, 1, 2]
    dx, _, dbeta = bn.backward(np.ones_like(x))
    assert abs(dx).max() < 1e-5
    assert dbeta.tolist() == [32.0] * 6
    bn(x, training=True, out=x)
    with pytest.raises(ValueError, match="was overwritten"):
        bn.backward(np.ones_like(x))


def test_every_change_of_state_is_seen() -> None:
    bn, x = made(), drawn((32, 6))
    for change in (
        lambda: bn.update(drawn((9, 6), seed=5)),
        lambda: bn(drawn((9, 6), seed=6), training=True),
        lambda: setattr(bn, "gamma", np.arange(1.0, 7.0)),
        lambda: setattr(bn, "beta", None),
        lambda: bn.merge(made()),
        lambda: bn.load_state_dict(BatchNorm(6, axis=1, gamma=3).state_dict()),
        lambda: bn.update(x),
        lambda: bn.reset(),
    ):
        before = bn(x)
        assert runs_in_a_lane(bn, x)
        change()
        assert bn(x).tobytes() == general(bn, x).tobytes()
        assert bn(x).tobytes() != before.tobytes()


def test_with_an_activation_and_several_channel_axes() -> None:
    bn, x = BatchNorm((2, 3), axis=(1, 2), activation="relu"), drawn((40, 2, 3))
    bn.update(x)
    expected = bn(x)
    assert (expected >= 0).all()
    assert runs_in_a_lane(bn, x)
    assert bn(x).tobytes() == expected.tobytes()


def test_what_is_not_plain_goes_the_general_way() -> None:
    bn, x = made(), drawn((32, 6))
    expected = bn(x)
    fixed = x.copy()
    fixed.flags.writeable = False
    wide = np.zeros((32, 12), np.float32)
    wide[:, ::2] = x
    for odd in (np.asfortranarray(x), fixed, x.tolist(), wide[:, ::2], x.astype(">f4")):
        np.testing.assert_allclose(bn(odd), expected, rtol=1e-6, atol=1e-6)
    assert bn(x.astype(np.float64)).dtype == np.float64
    double = np.empty(x.shape)
    assert bn(x, out=double) is double
    np.testing.assert_allclose(double, expected, rtol=1e-6, atol=1e-6)
    assert not runs_in_a_lane(bn, x, out=double)


def test_refusals_are_those_of_the_general_way() -> None:
    bn, x = made(), drawn((32, 6))
    bn(x)
    base = np.zeros(32 * 6 + 1, np.float32)
    a, b = base[:-1].reshape(32, 6), base[1:].reshape(32, 6)
    bn(a)
    for out, words in (
        (b, "overlaps `x`"),
        (np.zeros((6, 32), np.float32), "has shape"),
        (np.zeros((32, 6), int), "dtype"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            bn(a, out=out)
    fixed = np.zeros((32, 6), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        bn(x, out=fixed)
    with pytest.raises(numbabn.BackendUnavailableError), numbabn.backend("cuda"):
        bn(x)


ORDERS: dict[str, Any] = {
    "Fortran": lambda: np.asfortranarray(drawn((500, 6))),
    "Fortran, shared": lambda: np.asfortranarray(drawn((100_001, 6))),
    "columns": lambda: drawn((500, 64))[:, 3:21],
    "every other row": lambda: drawn((500, 40))[::2],
    "channels last": lambda: drawn((4, 9, 9, 24)).transpose(0, 3, 1, 2),
    "a window of planes": lambda: drawn((4, 6, 40, 50))[:, 1:5, :, :],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=lambda t: np.dtype(t).name)
def test_other_orders_of_memory(order: str, dtype: Any) -> None:
    x = ORDERS[order]()
    x = as_strided(  # the same strides in elements
        np.empty(1 + sum((n - 1) * s // 4 for n, s in zip(x.shape, x.strides, strict=True)), dtype),
        x.shape,
        [s // 4 * np.dtype(dtype).itemsize for s in x.strides],
    )
    x[...] = drawn(x.shape)
    bn = BatchNorm(x.shape[1], axis=1, gamma=np.linspace(0.5, 2, x.shape[1]))
    beta = np.full(x.shape[1], 0.5)
    with no_lane():
        expected, m = numbabn.batch_norm(x, bn.gamma, 0.5, axis=1)
        dx, *slopes = numbabn.batch_norm_backward(expected, x, m, bn.gamma, axis=1)
    assert runs_in_a_lane(bn, x, x)
    out = as_strided(np.full(x.size * 20, np.nan, dtype), x.shape, x.strides)
    y, again = numbabn.batch_norm(x, bn.gamma, beta, axis=1, out=out)
    assert y is out
    for found in (m, again, numbabn.moments(x, axis=1)):
        assert found.mean.tobytes() == m.mean.tobytes()
        assert found.m2.tobytes() == m.m2.tobytes()
    fresh = numbabn.batch_norm(x, bn.gamma, beta, axis=1)[0]
    for one in (y, fresh):
        assert one.tobytes() == expected.tobytes()
    assert fresh.strides == expected.strides
    given = as_strided(np.empty(x.size * 20, dtype), x.shape, x.strides)
    given[...] = expected
    assert lanes.lane(x, 1, None) is not None
    for dy in (expected, given):
        found = numbabn.batch_norm_backward(dy, x, m, bn.gamma, axis=1, out=out)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in (dx, *slopes)]
    for beside in (np.empty(x.shape, dtype), np.empty(x.shape, dtype, "F"), np.empty_like(x)):
        assert numbabn.normalize(x, m.mean, m.var(), bn.gamma, beta, axis=1, out=beside) is beside
        assert beside.tobytes() == expected.tobytes()
        beside.fill(np.nan)
        assert numbabn.batch_norm(x, bn.gamma, beta, axis=1, out=beside)[0] is beside
        assert beside.tobytes() == expected.tobytes()
    place = numbabn.normalize(x, m.mean, m.var(), bn.gamma, beta, axis=1, out=x)
    assert place.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("x", "axis"),
    [
        (drawn((40, 6))[::-1], 1),
        (as_strided(drawn((400,)), (40, 20), (4, 4)), 1),
        (np.broadcast_to(drawn((40, 1)), (40, 6)), 1),
        (drawn((40, 6, 5)).transpose(2, 1, 0), (0, 1)),
        (drawn((50, 12))[:, ::2], 1),
        (np.zeros(40 * 24 + 1, np.uint8)[1:].view(np.float32).reshape(40, 6), 1),
    ],
    ids=["turned", "overlapping", "broadcast", "channels turned", "every other channel", "not aligned"],
)
def test_orders_without_a_lane(x: Any, axis: Any) -> None:
    assert lanes.lane(x, axis, None) is None
    numbabn.batch_norm(x, axis=axis)


@pytest.mark.parametrize("shape", [(1_400_000, 6), (2, 6, 700_000), (2, 32, 131_080)], ids=str)
@pytest.mark.parametrize("past", [True, False], ids=["past the cache", "through it"])
def test_arrays_that_no_cache_holds(shape: Any, past: bool, monkeypatch: Any) -> None:
    """The same bits whether they are stored past the cache or not; in place they go the general way."""
    lanes._known.clear()
    monkeypatch.setattr(machine, "past_the_cache", lambda: past)
    x, out = drawn(shape), np.empty(shape, np.float32)
    bn = BatchNorm(shape[1], axis=1, gamma=np.linspace(0.5, 2, shape[1]))
    assert runs_in_a_lane(bn, x, out)
    assert not runs_in_a_lane(bn, x, x)
    with no_lane():
        expected, m = numbabn.batch_norm(x, bn.gamma, axis=1)
        dx = numbabn.batch_norm_backward(expected, x, m, bn.gamma, axis=1)[0]
    bn(x, training=True, out=out)
    assert out.tobytes() == expected.tobytes()
    assert numbabn.batch_norm_backward(expected, x, m, bn.gamma, axis=1, out=out)[0].tobytes() == dx.tobytes()
    numbabn.normalize(x, m.mean, m.var(), bn.gamma, axis=1, out=out)
    assert out.tobytes() == expected.tobytes()
    numbabn.batch_norm(x, bn.gamma, axis=1, out=x)
    assert x.tobytes() == expected.tobytes()
    lanes._known.clear()


def test_an_array_that_takes_long_hears_ctrl_c_on_its_way() -> None:
    bn = made()
    x = as_strided(np.zeros(1, np.float32), (lanes.LARGE // 24 + 1, 6), (24, 4))  # which nobody reads
    assert lanes.lane_of(bn._options, x) is None
    assert lanes.lane_of(bn._options, x[:-1]) is not None


def test_moments_take_no_memory_for_a_result_that_nobody_wants() -> None:
    x = drawn((50, 30))[:, 2:27]
    lanes._known.clear()
    with mock.patch.object(np, "empty_like", side_effect=MemoryError):
        m = numbabn.moments(x)
    lanes._known.clear()
    assert m.mean.tobytes() == numbabn.moments(x).mean.tobytes()


def test_the_lanes_do_not_grow_without_end() -> None:
    bn = made()
    for n in range(1, 600):
        bn(np.zeros((n, 6)))
    assert len(lanes._known) <= lanes.MOST


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(
    ("momentum", "prior"),
    [(f, (0, 0, 1)) for f in (0.0, 0.1, 0.7, 1.0, None)] + [(None, (1e-4, 0, 1)), (None, (2, 5, 3))],
)
def test_small_batches_are_learned_to_the_last_bit(momentum: float | None, ddof: int, prior: Any) -> None:
    bn = BatchNorm(6, momentum=momentum, ddof=ddof, prior=prior)
    rule, state = averages.RULES[bn.average], averages.start((6,), bn.average, prior=prior)
    for seed in range(6):
        x = drawn((32 if seed else 1, 6), np.float64, seed=seed) * 10.0 ** (30 * seed)
        with np.errstate(over="ignore"):
            state = rule.learn(state, numbabn.moments(x), momentum or 0.0, ddof)
        if seed % 2:
            bn(x, training=True)
        else:
            bn.update(x)
        assert (bn.num_batches, bn.count.tolist()) == (state.batches, state.count.tolist())
        assert bn.running_mean.tobytes() == state.mean.tobytes()
        assert bn.running_var.tobytes() == state.var.tobytes()
        assert momentum is not None or bn.state_dict()["m2"].tobytes() == state.m2.tobytes()
    assert not bn.running_mean.flags.writeable
    assert not bn.running_mean.base.flags.writeable


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_a_small_batch_that_is_not_finite_goes_the_general_way(nonfinite: str, momentum: float | None) -> None:
    quick, slow = (BatchNorm(6, nonfinite=nonfinite, momentum=momentum) for _ in range(2))
    good, bad = drawn((32, 6)), drawn((32, 6), seed=1)
    bad[3, 2], bad[4, 5] = np.nan, np.inf
    for x in (good, good, bad, good):
        for learn in (lambda x: quick(x, training=True), slow.update):
            if x is bad and nonfinite == "skip":
                with pytest.warns(RuntimeWarning, match="2 and 5|2, 5"):
                    learn(x)
            else:
                learn(x)
    assert quick == slow
    assert np.isfinite(quick.running_mean).all() == (nonfinite == "skip")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(
    ("shape", "axis"), [(shape, 1) for shape in SHAPES.values()] + [((5, 2, 3), (1, 2)), ((50,), 0)]
)
def test_moments_of_small_arrays_have_the_same_bits(shape: tuple[int, ...], axis: Any, dtype: Any) -> None:
    x = drawn(shape, dtype)
    first = numbabn.moments(x, axis=axis)
    assert lanes.lane(x, axis, None) is not None
    frozen = x.copy()
    frozen.flags.writeable = False  # is read like any other
    with no_lane():
        general = numbabn.moments(x, axis=axis)
    for again in (numbabn.moments(frozen, axis=axis), general):
        assert again == first
        assert again.mean.shape == first.mean.shape
        assert not again.mean.flags.writeable
    assert numbabn.moments(x, axis=axis, extra="min").min is not None
    assert numbabn.moments(x, axis=axis, nan_policy="omit").count.shape == first.mean.shape


class Own(np.ndarray):
    """An array of a class of its own, which may mean something by it."""


def unaligned(like: np.ndarray) -> np.ndarray:
    a = np.zeros(like.nbytes + 1, np.uint8)[1:].view(like.dtype).reshape(like.shape)
    a[...] = like
    return a


# What is not as a call can take it as it is, made from an array that is.
UNFIT: dict[str, Any] = {
    "list": lambda a: a.tolist(),
    "number": lambda a: 2.0,
    "object": lambda a: object(),
    "text": lambda a: "1",
    "flat": lambda a: a.reshape(-1),
    "more dimensions": lambda a: a[np.newaxis],
    "fewer": lambda a: a[:-1],
    "other shape": lambda a: a.reshape(a.shape[::-1]),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "Fortran": lambda a: np.asfortranarray(a),
    "half": lambda a: a.astype(np.float16),
    "whole": lambda a: a.astype(np.int64),
    "swapped": lambda a: a.astype(">f8"),
    "unaligned": unaligned,
    "class": lambda a: a.view(Own),
    "masked": lambda a: np.ma.masked_array(a),
}


def result(call: Any) -> list[Any]:
    """The bits that a call returns, or what it refuses with."""
    try:
        return [np.asarray(a).tobytes() for a in call()]
    except (TypeError, ValueError) as error:
        return [type(error), str(error)]


@pytest.mark.parametrize("slot", ["mean", "var", "gamma", "beta", "dy", "out"])
@pytest.mark.parametrize("name", UNFIT)
def test_what_a_call_cannot_take_goes_the_general_way(name: str, slot: str) -> None:
    """The same result, or the same refusal, and the lane writes nothing."""
    x, axis, eps = drawn((20, 3, 2)), (1, 2), 1e-5
    given: dict[str, Any] = {key: np.arange(1.0, 7).reshape(3, 2) for key in ("mean", "var", "gamma", "beta")}
    given |= {"dy": drawn(x.shape, seed=1), "out": np.zeros_like(x)}
    m, out = numbabn.moments(x, axis=axis), given["out"]

    def calls() -> list[Any]:
        mean, var, gamma, beta, dy, out = given.values()
        found = [lambda: lanes.propagated(dy, x, m, out, axis, None, gamma, beta, eps)]
        if slot != "dy":
            found.append(lambda: lanes.normalized(x, out, axis, None, mean, var, gamma, beta, eps))
        if slot in ("gamma", "beta", "out"):
            found.append(lambda: lanes.trained(x, out, axis, None, gamma, beta, eps))
        return found[1:] if slot in ("mean", "var") else found

    for _ in range(2):  # a shape that comes again is prepared
        fit = [call() is not None for call in calls()]
    assert all(fit)
    out[...] = 0
    given[slot] = UNFIT[name](given[slot])
    assert all(call() is None for call in calls())
    assert not out.any()
    if slot != "out":
        mean, var, gamma, beta, dy, _ = given.values()
        for call in (
            lambda: [numbabn.normalize(x, mean, var, gamma, beta, axis=axis)],
            lambda: numbabn.batch_norm(x, gamma, beta, axis=axis)[:1],
            lambda: numbabn.batch_norm_backward(dy, x, m, gamma, beta, axis=axis),
        ):
            with no_lane():
                general = result(call)
            assert result(call) == general


def test_mean_and_m2_are_made_once_they_are_asked_for() -> None:
    """In any order, by several threads, by a copy: always the same arrays, which nobody may write to."""
    x = drawn((32, 6))
    bn = BatchNorm(6)
    bn.update(x)
    expected = bn.update(x)
    for learn in (numbabn.moments, bn.update):
        m = learn(x)
        for again in (pickle.loads(pickle.dumps(learn(x))), copy.deepcopy(learn(x)), learn(x)):
            assert again == expected
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda name, m=m: getattr(m, name), ["m2", "mean"] * 8))
        assert all(a is m.mean or a is m.m2 for a in seen)
        for a in (m.mean, m.m2, m.mean.base):
            with pytest.raises(ValueError, match="read-only"):
                a[0] = 1.0
            with pytest.raises(ValueError, match="WRITEABLE"):
                m.mean.setflags(write=True)
        with pytest.raises(AttributeError, match="'Moments' object has no attribute 'median'"):
            m.median  # noqa: B018
        with pytest.raises(FrozenInstanceError):
            m.mean = x


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("given", ["all", "no gamma", "no beta"])
@pytest.mark.parametrize("name", SHAPES)
def test_parameters_that_need_no_conversion(name: str, given: str, eps: float) -> None:
    """The same bits as with lists, also for variances of 0 and what is not finite."""
    x, axis = drawn(SHAPES[name]), 1
    mean, var = np.array([0.0, 1.0, -2.0, 3.0, np.nan, 1e300]), np.array([1.0, 0.0, 2.0, np.inf, 1.0, 1e-300])
    gamma = None if given == "no gamma" else np.array([1.0, 2.0, -3.0, 0.0, 1.0, 1e300])
    beta = None if given == "no beta" else np.linspace(-1, 1, 6)
    lists = [None if p is None else p.tolist() for p in (mean, var, gamma, beta)]
    expected = numbabn.normalize(x, *lists, eps=eps, axis=axis)
    in_lane = lanes.normalized(x, None, axis, None, mean, var, gamma, beta, eps)
    assert in_lane is not None
    np.testing.assert_array_equal(in_lane, expected)
    np.testing.assert_array_equal(numbabn.normalize(x, mean, var, gamma, beta, eps=eps, axis=axis), expected)


def test_parameters_that_out_overwrites_are_read_before() -> None:
    x = drawn((32, 6), np.float64)
    expected = numbabn.normalize(x, x[0].tolist(), [1.0] * 6)
    place = x.copy()
    numbabn.normalize(place, place[0], np.ones(6), out=place)
    np.testing.assert_array_equal(place, expected)


def test_a_negative_variance_is_refused_and_nothing_written() -> None:
    x, out = drawn((32, 6)), np.full((32, 6), 7, np.float32)
    for var in (np.ones(6), np.array([1.0, 1.0, -1.0, 1.0, np.nan, 1.0])):
        if var[2] < 0:
            with pytest.raises(ValueError, match="`var` is negative in channel 2"):
                numbabn.normalize(x, np.zeros(6), var, out=out)
            assert (out == 7).all()
        else:
            numbabn.normalize(x, np.zeros(6), var)


def test_several_channel_axes_in_any_order_of_memory() -> None:
    """What is kept is C-contiguous, whatever comes in: the kernels go through it as it lies there."""
    x = drawn((40, 2, 3))
    state = BatchNorm((2, 3), axis=(1, 2), gamma=np.arange(6.0).reshape(2, 3)).state_dict()
    state |= {name: np.asfortranarray(drawn((2, 3), np.float64) ** 2) for name in ("running_mean", "running_var")}
    quick, slow = (BatchNorm((2, 3), axis=(1, 2), gamma=np.asfortranarray(np.ones((2, 3)))) for _ in range(2))
    for bn in (quick, slow):
        bn.load_state_dict(state)
    assert runs_in_a_lane(quick, x)
    for how in ({}, {"training": True}, {}, {"training": True}):
        with no_lane():
            expected = slow(x, **how)
        assert quick(x, **how).tobytes() == expected.tobytes()
    assert quick == slow


def test_no_channel_axes_and_no_values() -> None:
    for x, channels, axis in ((drawn((7, 2)), (), ()), (drawn((0, 6)), 6, 1), (drawn((4, 0)), 0, 1)):
        bn = BatchNorm(channels, axis=axis)
        for _ in range(3):
            bn(x, training=True)
            bn(x)
            bn.update(x)
        assert lanes.lane(x, axis, None) is None


def test_what_learns_meanwhile_is_not_lost() -> None:
    """A schedule that calls back learns between the look at the averages and the end of the kernel."""
    x, more = drawn((32, 6)), drawn((20, 6), seed=1)

    def made_of(quick: bool) -> BatchNorm:
        called = []

        def schedule(batches: int) -> float:
            called.append(batches)
            if called.count(1) == 1 and batches == 1:
                bn.update(more, where=True)
            return 0.25

        bn = BatchNorm(6, momentum=schedule)
        with contextlib.nullcontext() if quick else no_lane():
            for _ in range(3):
                bn(x, training=True)
                bn.update(x)
        return bn

    quick, slow = made_of(True), made_of(False)
    assert quick.num_batches == slow.num_batches > 6
    assert quick.state_dict()["running_var"].tobytes() == slow.state_dict()["running_var"].tobytes()


@pytest.mark.parametrize("axis", [True, np.int64(1), (True,), [1], 1.0, None])
def test_an_axis_of_another_type_takes_no_lane(axis: Any) -> None:
    x = drawn((32, 6))
    numbabn.moments(x, axis=1)
    assert lanes.lane(x, axis, None) is None
    assert lanes.lane(x, 1, "cuda") is None
    assert lanes.lane(x, 1, "else") is None


def test_a_view_of_x_is_x_in_place() -> None:
    """The same memory by another name goes the general way, which remembers that x is overwritten."""
    bn, x = BatchNorm(6), drawn((32, 6))
    other = BatchNorm(6)
    expected = other(x, training=True)
    view = x[:]
    assert bn(x, training=True, out=view) is view
    assert x.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="was overwritten"):
        bn.backward(np.ones_like(x))
    with no_lane():
        expected = bn(x)
    assert bn(x, out=x[:]).tobytes() == expected.tobytes()


def test_what_is_remembered_of_a_shape_has_no_memory_of_its_size() -> None:
    numbabn.moments(np.zeros((4096, 64)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(4000, 4050):
            x = np.zeros((n, 64))
            numbabn.moments(x)
            assert lanes.lane(x, -1, None) is not None
        del x
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1 << 20


def test_zeros_of_either_sign_are_one_activation() -> None:
    x = np.array([[-1.0], [-0.0], [7.0]])
    for low in (0.0, -0.0, 0):
        y = BatchNorm(1, eps=0, activation=("clip", low, 6))(x)
        assert y.ravel().tolist() == [0.0, 0.0, 6.0]
        assert not np.signbit(y[0, 0])


def test_a_momentum_that_is_code_takes_no_lane() -> None:
    """It may do anything to the arrays that were looked at before it was asked."""
    x, out = drawn((32, 6)), drawn((32, 6))

    def schedule(batches: int) -> float:
        out.flags.writeable = False
        return 0.5

    bn = BatchNorm(6, momentum=schedule)
    with mock.patch.object(lanes, "destination", side_effect=AssertionError):
        bn(x, training=True, out=out)
    assert bn.num_batches == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("name", SHAPES)
def test_the_way_back_gives_the_same_bits(name: str, dtype: Any) -> None:
    x, dy, how = drawn(SHAPES[name], dtype), drawn(SHAPES[name], dtype, seed=1), {"axis": 1}
    m, bn = numbabn.moments(x, axis=1), BatchNorm(6, axis=1, gamma=np.linspace(0.5, 2, 6), beta=1)
    bn(x, training=True)
    for gamma in (None, bn.gamma, bn.gamma.astype(np.float32)):
        with no_lane():
            expected = numbabn.batch_norm_backward(dy, x, m, gamma, **how)
        assert lanes.propagated(dy, x, m, None, 1, None, gamma, None, 1e-5) is not None
        out = np.full_like(x, np.nan)
        for got in (
            numbabn.batch_norm_backward(dy, x, m, gamma, **how),
            numbabn.batch_norm_backward(dy, x, m, gamma, 0.5, out=out, **how),
            *([bn.backward(dy), bn.backward(dy, out=out)] if gamma is bn.gamma else []),
        ):
            assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
            assert [(a.dtype, a.shape) for a in got] == [(a.dtype, a.shape) for a in expected]


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_the_way_back_through_what_is_not_finite_or_constant(eps: float) -> None:
    x, dy = drawn((32, 6), np.float64), drawn((32, 6), np.float64, seed=1)
    x[:, 0], x[3, 1], x[4, 2], dy[5, 3], dy[6, 4], dy[:, 5] = 2.0, np.nan, np.inf, np.inf, np.nan, 0.0
    m = numbabn.moments(x)
    with no_lane():
        expected = numbabn.batch_norm_backward(dy, x, m, eps=eps)
    for got, want in zip(numbabn.batch_norm_backward(dy, x, m, eps=eps), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_way_back_into_dy_or_x_and_what_is_refused() -> None:
    x, dy, gamma = drawn((32, 6)), drawn((32, 6), seed=1), np.ones(6)
    m = numbabn.moments(x)
    expected = numbabn.batch_norm_backward(dy, x, m, gamma)[0]
    for place in (dy.copy(), x.copy()):
        into_dy = (place == dy).all()
        given = (place, x) if into_dy else (dy, place)
        assert lanes.propagated(*given, m, place, -1, None, gamma, None, 1e-5) is None
        assert numbabn.batch_norm_backward(*given, m, gamma, out=place)[0].tobytes() == expected.tobytes()
    base = np.zeros(33 * 6, np.float32)
    a, b = base[:-6].reshape(32, 6), base[6:].reshape(32, 6)
    for wrong, how in (
        ({"dy": dy[:5]}, {}),
        ({"dy": a}, {"out": b}),
        ({"gamma": gamma[:5]}, {}),
        ({}, {"beta": gamma[:5]}),
        ({"m": numbabn.moments(x[:, :5])}, {}),
        ({}, {"renorm": (np.ones(5), np.zeros(6))}),
        ({}, {"eps": -1.0}),
    ):
        given = {"dy": dy, "x": x, "m": m, "gamma": gamma} | wrong
        with pytest.raises((ValueError, TypeError), match=r"`\w+`"):
            numbabn.batch_norm_backward(**given, **how)
    r = np.full(6, 2.0)
    np.testing.assert_allclose(
        numbabn.batch_norm_backward(dy, x, m, gamma, renorm=(r, np.zeros(6)))[0], 2 * expected, rtol=1e-5, atol=1e-6
    )
