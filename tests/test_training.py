"""Training with options: renormalization, ghost batches, adjustment, masks, activation; and the way back."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbabn import BatchNorm, Renorm, StateError

GAMMA, BETA, EPS = np.array([1.0, 2.0, 3.0, 4.0]), 0.5, 1e-5
ADJUST = (np.array([0.9, 1.0, 1.1, 1.2]), 0.25)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ghost": {"ghost": 8},
    "interleaved": {"ghost": (8, "interleaved")},
    "renorm": {"renorm": Renorm(rmin=0.7, rmax=1.5, dmax=0.5)},
    "debiased": {"renorm": Renorm(rmin=0.7, rmax=1.5, dmax=0.5, debias=True)},
    "adjustment": {"adjustment": lambda shape: ADJUST},
    "activation": {"activation": "silu"},
    "both": {"activation": "relu", "ghost": 5},
}


def data(n: int = 37, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, (n, 4))


def made(**options: Any) -> BatchNorm:
    return BatchNorm(4, gamma=GAMMA, beta=BETA, eps=EPS, **options)


def x_hat(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + EPS)


def groups(n: int, size: int, order: str) -> list[np.ndarray]:
    if order == "consecutive":
        return [np.arange(k, min(k + size, n)) for k in range(0, n, size)]
    number = -(-n // size)
    return [np.arange(k, n, number) for k in range(number)]


@given(st.integers(1, 40), st.integers(1, 45), st.sampled_from(["consecutive", "interleaved"]))
def test_ghost_batches_are_normalized_apart(n: int, size: int, order: str) -> None:
    x, bn = data(n), made(ghost=(size, order), momentum=1)
    y, parts = bn(x, training=True), groups(n, min(size, n), order)
    assert sum(map(len, parts)) == n
    for rows in parts:
        np.testing.assert_allclose(y[rows], x_hat(x[rows]) * GAMMA + BETA, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bn.running_mean, x.mean(axis=0), rtol=1e-12)
    inside = sum(len(rows) * x[rows].var(axis=0) for rows in parts) / n
    np.testing.assert_allclose(bn.running_var, inside, rtol=1e-9, atol=1e-12)


def test_one_ghost_batch_is_plain() -> None:
    x, plain, ghost = data(), made(), made(ghost=100)
    assert np.array_equal(plain(x, training=True), ghost(x, training=True))
    np.testing.assert_allclose(ghost.running_var, plain.running_var, rtol=1e-14)


def test_an_average_that_keeps_the_variance_between_batches_keeps_that_between_ghosts() -> None:
    x = data() + np.arange(37)[:, np.newaxis]
    bn = made(ghost=6, momentum=None)
    bn(x, training=True)
    np.testing.assert_allclose(bn.running_var, x.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize("order", ["consecutive", "interleaved"])
def test_ghost_batches_of_images_with_a_mask_and_strides(order: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, (10, 5, 6, 7)).astype(np.float32)[:, ::2, ::-1]
    mask = rng.random((10, 1, 6, 7)) < 0.6
    bn = BatchNorm(3, axis=1, ghost=(4, order), eps=EPS)
    y = bn(x, training=True, where=mask, out=np.empty(x.shape, np.float32))
    for rows in groups(10, 4, order):
        w = np.broadcast_to(mask[rows], x[rows].shape)
        mean = (x[rows] * w).sum(axis=(0, 2, 3)) / w.sum(axis=(0, 2, 3))
        var = ((x[rows] - mean[:, None, None]) ** 2 * w).sum(axis=(0, 2, 3)) / w.sum(axis=(0, 2, 3))
        expected = (x[rows] - mean[:, None, None]) / np.sqrt(var + EPS)[:, None, None]
        np.testing.assert_allclose(y[rows], expected, rtol=1e-4, atol=1e-5)


def test_renorm_of_r_1_and_d_0_is_plain() -> None:
    plain, bound = made(), made(renorm=Renorm(rmin=1, rmax=1, dmax=0))
    for seed in range(3):
        assert np.array_equal(plain(data(seed=seed), training=True), bound(data(seed=seed), training=True))
    assert np.array_equal(plain.running_mean, bound.running_mean)
    assert np.array_equal(plain.running_var, bound.running_var)


@pytest.mark.parametrize("debias", [False, True])
def test_renorm_over_many_steps(debias: bool) -> None:
    """Beside the formulas of TensorFlow, written out."""
    rmax, dmax, m = (1, 1.5, 3), lambda k: 0.3 * k, 0.2
    bn = made(renorm=Renorm(rmin=0.5, rmax=rmax, dmax=dmax, momentum=m, debias=debias))
    mean, std, w = np.zeros(4), np.full(4, 0.0 if debias else 1.0), 0.0
    for k in range(8):
        x = data(20 + k, seed=k) * (1 + k)
        mu, s = x.mean(axis=0), np.sqrt(x.var(axis=0) + EPS)
        known_mean, known_std = (
            (mean + (1 - w) * mu, std + (1 - w) * s) if debias else (mean, np.maximum(std, EPS**0.5))
        )
        r = np.clip(s / known_std, 0.5, rmax[min(k, 2)])
        d = np.clip((mu - known_mean) / known_std, -dmax(k), dmax(k))
        if k == 0 and debias:
            np.testing.assert_allclose((r, d), (np.ones(4), np.zeros(4)), atol=1e-12)
        y = bn(x, training=True)
        np.testing.assert_allclose(y, (x_hat(x) * r + d) * GAMMA + BETA, rtol=1e-9, atol=1e-9)
        mean, std, w = (1 - m) * mean + m * mu, (1 - m) * std + m * s, (1 - m) * w + m
        before = bn.state_dict()
        np.testing.assert_allclose(
            bn(x), (x - bn.running_mean) / np.sqrt(bn.running_var + EPS) * GAMMA + BETA, rtol=1e-9, atol=1e-9
        )
        assert all(np.array_equal(before[name], value) for name, value in bn.state_dict().items())
    np.testing.assert_allclose(bn.state_dict()["renorm_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(bn.state_dict()["renorm_std"], std, rtol=1e-12)


def test_adjustment_is_for_training_only() -> None:
    shapes: list[tuple[int, ...]] = []

    def adjustment(shape: tuple[int, ...]) -> tuple[Any, Any]:
        shapes.append(shape)
        return ADJUST[0].reshape(1, 4), ADJUST[1]

    bn, x = made(adjustment=adjustment), data()
    y = bn(x, training=True)
    np.testing.assert_allclose(y, (x_hat(x) * ADJUST[0] + ADJUST[1]) * GAMMA + BETA, rtol=1e-9, atol=1e-9)
    bn(x)
    bn.update(x)
    assert shapes == [(37, 4)]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_way_back_agrees_with_differences(name: str) -> None:
    x, dy = data(), np.random.default_rng(9).normal(size=(37, 4))
    where = np.random.default_rng(3).random(37) < 0.7

    def begun() -> BatchNorm:
        bn = made(**OPTIONS[name])
        bn.update(data(seed=7))
        return bn

    bn = begun()
    bn(x, training=True, where=where)
    dx, dgamma, dbeta = bn.backward(dy)
    fixed = None if bn._step is None else (bn._step.r, bn._step.d)
    for at in [(0, 0), (5, 1), (20, 2), (36, 3), *[(k, 0) for k in np.flatnonzero(~where)[:2]]]:
        losses = []
        for h in (1e-5, -1e-5):
            moved = x.copy()
            moved[at] += h
            again = begun()
            if again.renorm is not None:  # no gradient passes through r and d
                w = where[:, np.newaxis] / where.sum()
                mean = (moved * w).sum(axis=0)
                s = np.sqrt(((moved - mean) ** 2 * w).sum(axis=0) + EPS)
                y = ((moved - mean) / s * fixed[0] + fixed[1]) * GAMMA + BETA
            else:
                y = again(moved, training=True, where=where)
            losses.append((y * dy).sum())
        assert abs(dx[at] - (losses[0] - losses[1]) / 2e-5) < 1e-5 * (1 + abs(dx[at]))
    for parameter, gradient in (("gamma", dgamma), ("beta", dbeta)):
        losses = []
        for h in (1e-6, -1e-6):
            again = begun()
            value = np.broadcast_to(getattr(again, parameter), 4).copy()
            value[2] += h
            setattr(again, parameter, value)
            losses.append((again(x, training=True, where=where) * dy).sum())
        assert abs(gradient[2] - (losses[0] - losses[1]) / 2e-6) < 1e-5 * (1 + abs(gradient[2]))


def test_the_way_back_through_inference() -> None:
    bn, x, dy = made(), data(), np.ones((37, 4))
    bn.update(x)
    dx, dgamma, dbeta = bn.backward(dy, x, training=False)
    inverse = 1 / np.sqrt(bn.running_var + EPS)
    np.testing.assert_allclose(dx, np.broadcast_to(GAMMA * inverse, x.shape), rtol=1e-12)
    np.testing.assert_allclose(dgamma, ((x - bn.running_mean) * inverse).sum(axis=0), rtol=1e-9)
    assert dbeta.tolist() == [37.0] * 4


def test_backward_keeps_no_array_alive_and_says_what_is_missing() -> None:
    bn, dy = made(), np.ones((37, 4))
    with pytest.raises(ValueError, match="no training call"):
        bn.backward(dy)
    x = data()
    bn(x, training=True)
    expected = bn.backward(dy)[0]
    bn(x, training=True, out=x)
    with pytest.raises(ValueError, match="overwritten"):
        bn.backward(dy)
    assert np.array_equal(bn.backward(dy, data())[0], expected)
    y = data()
    bn(y, training=True)
    del y
    gc.collect()
    with pytest.raises(ValueError, match="no longer exists"):
        bn.backward(dy)
    with pytest.raises(ValueError, match="`x` is missing"):
        bn.backward(dy, training=False)


def test_residual_and_its_gradient() -> None:
    bn, x, residual = made(activation="relu"), data(), np.random.default_rng(2).normal(size=(37, 4))
    y = bn(x, training=True, residual=residual)
    np.testing.assert_allclose(y, np.maximum(x_hat(x) * GAMMA + BETA + residual, 0), rtol=1e-9, atol=1e-9)
    dx, _, dbeta, dresidual = bn.backward(np.ones((37, 4)))
    assert np.array_equal(dresidual, (y > 0).astype(float))
    np.testing.assert_allclose(dbeta, dresidual.sum(axis=0))
    assert np.abs(dx.sum(axis=0)).max() < 1e-10


def test_masks_weights_and_missing_values_in_training() -> None:
    x, mask = data(), np.random.default_rng(3).random(37) < 0.6
    masked, removed = made(), made()
    y = masked(x, training=True, where=mask)
    np.testing.assert_allclose(y[mask], removed(x[mask], training=True), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(masked.running_var, removed.running_var, rtol=1e-12)
    times = np.random.default_rng(4).integers(0, 4, 37)
    weighted, repeated = made(), made()
    weighted.update(x, weights=times)
    repeated.update(np.repeat(x, times, axis=0))
    np.testing.assert_allclose(weighted.running_var, repeated.running_var, rtol=1e-12)
    x[3, 1] = x[:, 2] = np.nan
    bn = made(nan_policy="omit")
    before = bn.running_mean[2], bn.running_var[2]
    y = bn(x, training=True)
    assert (bn.running_mean[2], bn.running_var[2]) == before
    assert bn.count.tolist() == [37, 36, 0, 37]
    assert np.isnan(y).sum() == 38
    strict, out = made(nan_policy="raise"), np.zeros((37, 4))
    with pytest.raises(ValueError, match="NaN in channels 1 and 2"):
        strict(x, training=True, out=out)
    assert not out.any()
    assert strict == made(nan_policy="raise")


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "adjustment"])
def test_options_are_saved(name: str, tmp_path: Any) -> None:
    bn = made(**OPTIONS[name], nan_policy="omit")
    bn(data(), training=True)
    bn.save(tmp_path / "bn.npz")
    loaded = BatchNorm.load(tmp_path / "bn.npz")
    assert loaded == bn
    for twin in (loaded, bn.copy()):
        assert np.array_equal(twin(data(seed=1), training=True), made_on(bn, data(seed=1)))


def made_on(bn: BatchNorm, x: np.ndarray) -> np.ndarray:
    return np.asarray(bn.copy()(x, training=True))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "ghost size": ({"ghost": 0}, ValueError, "`ghost` is 0"),
    "ghost order": ({"ghost": (4, "random")}, ValueError, "'interleaved'"),
    "ghost kind": ({"ghost": "4"}, TypeError, "`ghost`"),
    "ghost and renorm": ({"ghost": 4, "renorm": True}, ValueError, "give one"),
    "ghost and adjustment": ({"ghost": 4, "adjustment": lambda s: (1, 0)}, ValueError, "no ghost batches"),
    "adjustment": ({"adjustment": 3}, TypeError, "a function of the shape"),
    "renorm": ({"renorm": 3}, TypeError, "numbabn.Renorm"),
    "renorm names": ({"renorm": {"rmix": 1}}, ValueError, "rmix"),
    "renorm sign": ({"renorm": {"dmax": -1}}, ValueError, "`dmax` is -1"),
    "activation": ({"activation": "relux"}, ValueError, "'relu'"),
    "numbers": ({"activation": ("relu", 3)}, ValueError, "takes 0"),
    "clip": ({"activation": ("clip", 3, -3)}, ValueError, "lower one first"),
    "policy": ({"nan_policy": "skip"}, ValueError, "'omit'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    options, error, sentence = REFUSED[name]
    with pytest.raises(error, match=sentence):
        made(**options)


def test_a_refused_call_changes_nothing(tmp_path: Any) -> None:
    def broken(k: int) -> float:
        raise KeyError("mine")

    x, out = data(), np.zeros((37, 4))
    for options, error in (
        ({"renorm": Renorm(rmax=broken)}, KeyError),
        ({"renorm": Renorm(rmin=2, rmax=lambda k: 1)}, ValueError),
        ({"adjustment": lambda shape: 1}, TypeError),
        ({"adjustment": lambda shape: (1, [1, 2])}, ValueError),
    ):
        bn = made(**options)  # type: ignore[arg-type]
        before = bn.state_dict()
        with pytest.raises(error):
            bn(x, training=True, out=out)
        assert not out.any()
        assert all(np.array_equal(before[name], value) for name, value in bn.state_dict().items())
    with pytest.raises(ValueError, match="a sequence of numbers"):
        made(renorm=Renorm(rmax=broken)).save(tmp_path / "bn.npz")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="every axis"):
        BatchNorm((37, 4), axis=(0, 1), ghost=3)(x, training=True)
    made().save(tmp_path / "bn.npz")
    with pytest.raises(StateError):
        BatchNorm.load(tmp_path / "bn.npz", momentum=lambda k: 0.1)
