"""The way back: against automatic differentiation, differences of the forward pass, and plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import BFLOAT16, EMPTY, LARGE, MEMORY, ROUNDOFF, SMALL, TINY, Case, draw, parameters
from hypothesis import given
from hypothesis import strategies as st
from numbabn.kernels import reference

import numbabn
from numbabn import batch_norm, batch_norm_backward, normalize

CASE = {case.name: case for case in (*SMALL, *LARGE)}
X = draw(Case("small", (7, 3), -1), np.float64)
DY = draw(Case("small", (7, 3), -1), np.float64, seed=9)
GAMMA, BETA = np.array([1.5, -0.5, 2.0]), np.array([0.1, 0.0, -0.3])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3), (2, 3, 400)], ids=str)
def test_torch_differentiates_to_the_same(shape: tuple[int, ...], training: bool, affine: bool) -> None:
    case = Case("torch", shape, 1)
    dy, (mean, var, gamma, beta) = draw(case, np.float64, seed=3), parameters(case)
    x, g, b = (torch.tensor(p, requires_grad=True) for p in (draw(case, np.float64), gamma, beta))
    stored = (None, None) if training else (torch.tensor(mean), torch.tensor(var))
    y = torch.nn.functional.batch_norm(x, *stored, *((g, b) if affine else ()), training=training, eps=1e-3)
    y.backward(torch.tensor(dy))
    m = numbabn.moments(x.detach().numpy(), axis=1) if training else (mean, var)
    scale = gamma if affine else None
    dx, *rest = batch_norm_backward(dy, x.detach().numpy(), m, scale, eps=1e-3, axis=1, training=training)
    np.testing.assert_allclose(dx, x.grad, rtol=1e-10, atol=1e-11)
    if affine:
        np.testing.assert_allclose(rest, [g.grad.numpy(), b.grad.numpy()], rtol=1e-10, atol=1e-11)


def differences(loss: Any, at: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """The gradient of a function of one array, by central differences."""
    result = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i], down[i] = at[i] + h, at[i] - h
        result[i] = (loss(up) - loss(down)) / (2 * h)
    return result


@pytest.mark.parametrize(
    "how",
    [
        {"where": np.arange(7) % 3 > 0},
        {"where": np.arange(21).reshape(7, 3) % 4 > 0},
        {"weights": np.array([1, 0, 0.25, 3, 1, 2, 1])},
        {"where": np.arange(7) > 1, "weights": np.linspace(0, 2, 21).reshape(7, 3), "activation": "tanh"},
    ],
    ids=lambda how: "-".join(how),
)
def test_what_counts_less_takes_less_of_the_gradient(how: dict[str, Any]) -> None:
    """The pick goes into the statistics; the loss is over all of y, also what did not count."""

    def loss(x: np.ndarray, gamma: np.ndarray = GAMMA, beta: np.ndarray = BETA) -> float:
        return float((DY * batch_norm(x, gamma, beta, **how)[0]).sum())

    m = batch_norm(X, GAMMA, BETA, **how)[1]
    dx, dgamma, dbeta = batch_norm_backward(DY, X, m, GAMMA, BETA, **how)
    np.testing.assert_allclose(dx, differences(loss, X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(dgamma, differences(lambda p: loss(X, p), GAMMA), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(dbeta, differences(lambda p: loss(X, GAMMA, p), BETA), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_no_gradient_passes_through_renorm(activation: str | None) -> None:
    r, d = np.array([0.5, 2.0, 1.0]), np.array([-1.0, 0.0, 0.75])

    def loss(x: np.ndarray, gamma: np.ndarray = GAMMA) -> float:
        m = numbabn.moments(x)
        return float((DY * normalize(x, m.mean, m.var(), gamma * r, gamma * d + BETA, activation=activation)).sum())

    m, how = numbabn.moments(X), {"renorm": (r, d), "activation": activation}
    dx, dgamma, dbeta = batch_norm_backward(DY, X, m, GAMMA, BETA, **how)
    np.testing.assert_allclose(dx, differences(loss, X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(dgamma, differences(lambda p: loss(X, p), GAMMA), rtol=1e-6, atol=1e-7)
    if activation is None:
        np.testing.assert_allclose(dbeta, DY.sum(axis=0), rtol=1e-12)


def test_omitted_nan_take_no_part() -> None:
    x = X.copy()
    x[[1, 4, 4], [0, 0, 2]] = np.nan
    m = batch_norm(x, GAMMA, nan_policy="omit")[1]
    dx, dgamma, dbeta = batch_norm_backward(DY, x, m, GAMMA, nan_policy="omit")
    seen = np.isfinite(x)
    assert (dx[~seen] == 0).all()
    for c in range(3):
        alone = x[seen[:, c], c, None]
        dy, g = DY[seen[:, c], c, None], GAMMA[c : c + 1]
        expected = batch_norm_backward(dy, alone, numbabn.moments(alone), g)
        for got, wanted in zip((dx[seen[:, c], c], dgamma[c], dbeta[c]), expected, strict=True):
            np.testing.assert_allclose(got, wanted.reshape(np.shape(got)), rtol=1e-12, atol=1e-13)
        slow = differences(lambda a, dy=dy, g=g: float((dy * batch_norm(a, g)[0]).sum()), alone)
        np.testing.assert_allclose(expected[0], slow, rtol=1e-6, atol=1e-7)


def test_infinity_that_does_not_count_adds_nothing() -> None:
    x, where = X.copy(), np.arange(7) != 2
    x[2] = [np.inf, np.nan, -np.inf]
    m = batch_norm(x, where=where)[1]
    dx, dgamma, dbeta = batch_norm_backward(DY, x, m, where=where)
    expected = batch_norm_backward(DY[where], x[where], m)
    assert (dx[2] == 0).all()
    for got, wanted in zip((dx[where], dgamma, dbeta), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)


def against_reference(case: Case, x: np.ndarray, dy: np.ndarray, training: bool = True, **more: Any) -> None:
    """Float64 formulas over the values that x and dy hold; x and dy may be overwritten."""
    mean, var, gamma, _ = parameters(case)
    values, g = x.astype(np.float64), dy.astype(np.float64)
    count, own_mean, m2 = reference.moments(values, case.kept)
    m: Any = numbabn.Moments(count, own_mean, m2) if training else (mean, var)
    if training:
        mean, var = own_mean, m2 / count
    exact = reference.backward(g, values, case.kept, count, mean, var, gamma, frozen=not training)
    dx, dgamma, dbeta = batch_norm_backward(dy, x, m, gamma, axis=case.axis, training=training, **more)
    # With one value for each channel all cancels: what arithmetic adds is in the size of the terms, not of the result.
    terms = np.abs(g).max() * np.abs(gamma / np.sqrt(var + 1e-5)).max()
    name = dx.dtype.name
    allowed = 1.01 * ROUNDOFF[name] * np.abs(exact[0]) + TINY[name] + 1e-12 * terms
    assert dx.shape == exact[0].shape
    assert (np.abs(dx.astype(np.float64) - exact[0]) <= allowed).all()
    for got, wanted in zip((dgamma, dbeta), exact[1:], strict=True):
        assert got.dtype == np.float64
        assert got.shape == case.channel_shape
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11 * np.abs(g).sum())


@pytest.mark.parametrize("case", [*SMALL, *(c for c in LARGE if c.name != "planes-one-channel")], ids=str)
def test_every_shape(case: Case) -> None:
    against_reference(case, draw(case, np.float32), draw(case, np.float32, seed=7))


@pytest.mark.parametrize("memory", ["fortran", "crop", "every-second-value", "all-reversed", "field-of-packed-record"])
@pytest.mark.parametrize("name", ["2d-narrow", "3d-inner-257", "pieces-alternating", "rows-255"])
def test_every_memory(name: str, memory: str) -> None:
    """x and dy each in a layout of its own, frozen as well."""
    case = CASE[name]
    x, dy = draw(case, np.float32), draw(case, np.float32, seed=7)
    for training in (True, False):
        against_reference(case, MEMORY[memory].of(x), dy, training)
        against_reference(case, x, MEMORY[memory].of(dy), training)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.int16], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("name", ["2d-narrow", "3d-inner-257"])
def test_every_dtype(name: str, dtype: Any) -> None:
    case = CASE[name]
    x, dy = draw(case, dtype), draw(case, np.float32, seed=7)
    against_reference(case, x, dy if dtype == np.int16 else dy.astype(dtype))


@pytest.mark.parametrize("name", ["2d-narrow", "3d-inner-257"])
def test_dx_is_of_the_dtype_of_x(name: str) -> None:
    case = CASE[name]
    for dtype, wanted in ((np.float32, np.float32), (np.float16, np.float16), (np.int16, np.float32)):
        x, dy = draw(case, dtype), draw(case, np.float32, seed=7)
        assert batch_norm_backward(dy, x, numbabn.moments(x, axis=case.axis), axis=case.axis)[0].dtype == wanted
        against_reference(case, x, dy)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("into", ["dy", "x", "out"])
@pytest.mark.parametrize("name", ["2d-narrow", "planes-32-of-256", "pieces-alternating"])
def test_into_dy_into_x_and_into_out(name: str, into: str, training: bool) -> None:
    case = CASE[name]
    x, dy = draw(case, np.float32), draw(case, np.float32, seed=7)
    given = {"x": x.copy(), "dy": dy.copy()}
    out = {**given, "out": MEMORY["padded-rows"].of(np.zeros_like(x))}[into]
    m = numbabn.moments(x, axis=case.axis) if training else tuple(parameters(case))[:2]
    expected = batch_norm_backward(dy, x, m, axis=case.axis, training=training)
    got = batch_norm_backward(given["dy"], given["x"], m, axis=case.axis, training=training, out=out)
    assert got[0] is out
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-12, atol=1e-9)
    assert into == "x" or np.array_equal(given["x"], x)
    assert into == "dy" or np.array_equal(given["dy"], dy)


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0, 10))
def test_the_gradient_is_apart_from_the_statistics(n: int, channels: int, seed: int, eps: float) -> None:
    """What y does not change by, x has no gradient along: an offset; and with eps=0 a scale. It is linear in dy."""
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(3, 2, (n, channels)), rng.normal(size=(n, channels))
    m = numbabn.moments(x)
    dx, dgamma, dbeta = batch_norm_backward(dy, x, m, eps=eps)
    bound = 1e-10 * np.abs(dy).sum() * (1 + 1 / np.sqrt(m.var()).min()) ** 2
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=bound)
    twice = batch_norm_backward(2 * dy, x, m, eps=eps)
    assert all(np.array_equal(2 * a, b) for a, b in zip((dx, dgamma, dbeta), twice, strict=True))
    free = batch_norm_backward(dy, x, m, eps=0)[0]
    np.testing.assert_allclose((free * (x - m.mean)).sum(axis=0), 0, atol=bound)


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_no_values(case: Case) -> None:
    x = np.zeros(case.shape, np.float32)
    dx, dgamma, dbeta, dz = batch_norm_backward(x, x, numbabn.moments(x, axis=case.axis), axis=case.axis, residual=x)
    assert dx.shape == dz.shape == case.shape
    assert dx.dtype == np.float32
    assert dgamma.tolist() == dbeta.tolist() == np.zeros(case.channel_shape).tolist()


def test_constant_channels_have_a_gradient_of_zero_without_eps() -> None:
    x = np.array([[5.0, 1.0], [5.0, 2.0], [5.0, 6.0]])
    dx, dgamma, _ = batch_norm_backward(DY[:3, :2], x, numbabn.moments(x), eps=0)
    assert np.isfinite(dx).all()
    assert (dx[:, 0] == 0).all()
    assert dgamma[0] == 0


def test_a_pair_is_as_good_as_the_moments() -> None:
    m = numbabn.moments(X)
    for training in (True, False):
        by_moments = batch_norm_backward(DY, X, m, GAMMA, training=training)
        by_pair = batch_norm_backward(DY, X, (m.mean, m.var()), GAMMA, training=np.array(training))
        assert all(np.array_equal(a, b) for a, b in zip(by_moments, by_pair, strict=True))


def test_tensors_come_back_as_tensors() -> None:
    x, dy = torch.tensor(X), torch.tensor(DY)
    dx, dgamma, _ = batch_norm_backward(dy, x, numbabn.moments(x))
    assert isinstance(dx, torch.Tensor)
    assert isinstance(dgamma, np.ndarray)


@pytest.mark.parametrize("name", ["rows-130", "planes-32-of-256", "planes-few-channels", "pieces-kept-ends"])
def test_threads(name: str) -> None:
    case = CASE[name]
    x, dy = draw(case, np.float32, offset=1e3), draw(case, np.float32, seed=7)
    m, prints = numbabn.moments(x, axis=case.axis), set()
    for n in (1, 2, 3, 2):
        with numbabn.num_threads(n):
            prints.add(b"".join(a.tobytes() for a in batch_norm_backward(dy, x, m, axis=case.axis)))
    assert len(prints) == 1


SHARED = np.zeros(42)
MOMENTS = numbabn.Moments(7.0, X.mean(0), X.var(0) * 7)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"dy": DY[:5]}, ValueError, "`dy` has shape"),
        ({"dy": DY + 1j}, TypeError, "`dy` has dtype"),
        ({"m": (np.zeros(3),)}, TypeError, "pair"),
        ({"m": 0.5}, TypeError, "expected Moments"),
        ({"m": (np.zeros(2), np.ones(2))}, ValueError, "`mean` has 2 channels"),
        ({"m": (np.zeros(3), -np.ones(3))}, ValueError, "`var` is negative"),
        ({"m": numbabn.Moments(7.0, np.zeros(2), np.ones(2))}, ValueError, "`m` has channels of shape"),
        ({"m": (np.zeros(3), np.ones(3)), "where": np.ones(7, bool)}, TypeError, "how many values counted"),
        ({"gamma": np.ones(4)}, ValueError, "`gamma` has 4 channels"),
        ({"beta": np.ones(2)}, ValueError, "`beta` has 2 channels"),
        ({"renorm": 1.0}, TypeError, r"pair \(r, d\)"),
        ({"renorm": (1.0, np.zeros(2))}, ValueError, "`d` has 2 channels"),
        ({"training": 1}, TypeError, "`training`"),
        ({"eps": -1}, ValueError, "`eps`"),
        ({"axis": 2}, np.exceptions.AxisError, "`axis`"),
        ({"where": np.ones(4, bool)}, ValueError, "`where` has shape"),
        ({"weights": -np.ones(7)}, ValueError, "negative"),
        ({"nan_policy": "drop"}, ValueError, "`nan_policy`"),
        ({"activation": "swoosh"}, ValueError, "`activation`"),
        ({"residual": DY[:5]}, ValueError, "`residual` has shape"),
        ({"residual": DY.astype(str)}, TypeError, "`residual` has dtype"),
        ({"out": np.zeros((7, 2))}, ValueError, "`out` has shape"),
        ({"out": np.zeros((7, 3), int)}, TypeError, "`out` has dtype"),
        ({"dy": SHARED[:21].reshape(7, 3), "out": SHARED[1:22].reshape(7, 3)}, ValueError, "overlaps `dy`"),
        ({"x": SHARED[:21].reshape(7, 3), "out": SHARED[1:22].reshape(7, 3)}, ValueError, "overlaps `x`"),
        ({"residual": SHARED[:21].reshape(7, 3), "out": SHARED[1:22].reshape(7, 3)}, ValueError, "overlaps `residual`"),
    ],
)
def test_refusals_write_nothing(changed: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"dy": DY.copy(), "x": X.copy(), "m": MOMENTS, "out": np.full((7, 3), 7.0), **changed}
    before = {name: value.copy() for name, value in given.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error, match=words):
        batch_norm_backward(given.pop("dy"), given.pop("x"), given.pop("m"), **given)
    for name, value in before.items():
        assert np.array_equal({**given, **changed}.get(name, value), value)
