"""An activation and a residual in the same pass: against PyTorch, and against the steps one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BFLOAT16, LARGE, MEMORY, SMALL, Case, assert_output, draw, parameters
from numbabn.kernels import reference

import numbabn
from numbabn import batch_norm, batch_norm_backward, normalize

CASE = {case.name: case for case in (*SMALL, *LARGE)}
ACTIVATIONS: dict[Any, Any] = {
    "relu": F.relu,
    "relu6": lambda v: F.hardtanh(v, 0, 6),
    ("clip", -1, 1): F.hardtanh,
    ("clip", -0.5, 2.5): lambda v: F.hardtanh(v, -0.5, 2.5),
    "leaky_relu": F.leaky_relu,
    ("leaky_relu", 0.2): lambda v: F.leaky_relu(v, 0.2),
    "elu": F.elu,
    ("elu", 0.5): lambda v: F.elu(v, 0.5),
    "gelu": F.gelu,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
}
VALUES = np.concatenate([np.linspace(-8, 8, 160), [0.0, -0.0, 1e-300, -1e-9, 30, -30, 500, -500, 1e4, -1e4]])[:, None]
X64 = draw(CASE["2d-narrow"], np.float64, seed=5)
UNIT: dict[str, Any] = {"mean": [0.0], "var": [1.0], "eps": 0}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_each_activation_is_that_of_torch(activation: Any) -> None:
    v = torch.tensor(VALUES, requires_grad=True)
    expected = ACTIVATIONS[activation](v)
    np.testing.assert_allclose(
        normalize(VALUES, **UNIT, activation=activation), expected.detach(), rtol=1e-12, atol=1e-15
    )
    dy = np.linspace(1, 2, VALUES.size)[:, None]
    expected.backward(torch.tensor(dy))
    dx, dgamma, dbeta = batch_norm_backward(dy, VALUES, ([0.0], [1.0]), eps=0, training=False, activation=activation)
    rtol = 1e-7 if activation == "hard_sigmoid" else 1e-12  # PyTorch has the sixth in float32
    np.testing.assert_allclose(dx, v.grad, rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(dbeta, [v.grad.sum()], rtol=rtol)
    np.testing.assert_allclose(dgamma, [(v.grad * v.detach()).sum()], rtol=rtol)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_nan_passes_and_infinity_has_its_limit(activation: Any) -> None:
    y = normalize([[np.nan], [np.inf]], **UNIT, activation=activation)
    assert np.isnan(y[0, 0])
    assert y[1, 0] == ACTIVATIONS[activation](torch.tensor(np.inf, dtype=torch.float64)).item()


def test_kinks_have_the_slope_of_torch() -> None:
    for activation, at in {"relu": [0], "relu6": [0, 6], ("clip", -1, 1): [-1, 1], "leaky_relu": [0], "elu": [0],
                           "hard_sigmoid": [-3, 3], "hard_swish": [-3, 3]}.items():  # fmt: skip
        v = torch.tensor(np.array(at, float)[:, None], requires_grad=True)
        ACTIVATIONS[activation](v).sum().backward()
        x = v.detach().numpy()
        dx = batch_norm_backward(np.ones_like(x), x, ([0.0], [1.0]), eps=0, training=False, activation=activation)[0]
        assert np.array_equal(dx, v.grad), activation


def steps(case: Case, x: Any, residual: Any, training: bool) -> np.ndarray:
    """relu(bn(x) + residual) in float64, each step by itself."""
    mean, var, gamma, beta = parameters(case)
    y = reference.batch_norm(x, case.kept, gamma, beta)[0]
    if not training:
        y = reference.normalize(x, case.kept, mean, var, gamma, beta)
    return np.maximum(y + residual.astype(np.float64), 0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("2d-narrow", "float32"),
        ("2d-narrow", "float16"),
        ("planes-32-of-256", "float32"),
        ("planes-32-of-256", BFLOAT16),
        ("rows-255", "float32"),
        ("pieces-alternating", "float32"),
    ],
)
def test_relu_of_the_sum_wherever_it_is_written(name: str, dtype: Any, training: bool) -> None:
    case = CASE[name]
    x, residual = draw(case, dtype), draw(case, dtype, seed=5)
    mean, var, gamma, beta = parameters(case)
    exact = steps(case, x, residual, training)
    for into in ("new", "out", "x", "residual"):
        given = {"x": x.copy(), "residual": residual.copy()}
        out = {**given, "new": None, "out": MEMORY["padded-rows"].of(np.zeros_like(x))}[into]
        how: dict[str, Any] = {"axis": case.axis, "activation": "relu", "residual": given["residual"], "out": out}
        if training:
            y, m = batch_norm(given["x"], gamma, beta, **how)
            assert m == numbabn.moments(x, axis=case.axis)
        else:
            y = normalize(given["x"], mean, var, gamma, beta, **how)
        assert out is None or y is out
        assert_output(y, exact, slack=1e-11)
        assert all(
            name == into or np.array_equal(given[name], kept) for name, kept in (("x", x), ("residual", residual))
        )


@pytest.mark.parametrize("memory", ["fortran", "all-reversed", "field-of-packed-record"])
def test_the_residual_lies_as_it_likes(memory: str) -> None:
    for name in ("2d-narrow", "3d-inner-257", "pieces-alternating"):
        case = CASE[name]
        x, residual = draw(case, np.float32), draw(case, np.float32, seed=5)
        *_, gamma, beta = parameters(case)
        y, _ = batch_norm(
            x, gamma, beta, axis=case.axis, residual=MEMORY[memory].of(residual), activation=("clip", 0, np.inf)
        )
        assert_output(y, steps(case, x, residual, True), slack=1e-11)


def test_a_residual_alone_is_added_and_may_be_of_another_dtype() -> None:
    case = CASE["2d-narrow"]
    x, residual = draw(case, np.float32), draw(case, np.float64, seed=5)
    y, _ = batch_norm(x, residual=residual)
    assert_output(y, reference.batch_norm(x, case.kept)[0] + residual)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_the_gradient_of_the_residual_is_of_the_dtype_of_dx(activation: str | None) -> None:
    x, residual, dy = draw(CASE["2d-narrow"], np.float32), X64, draw(CASE["2d-narrow"], np.float64, seed=7)
    dx, _, _, dz = batch_norm_backward(dy, x, numbabn.moments(x), activation=activation, residual=residual)
    assert dx.dtype == dz.dtype == np.float32
    v = reference.batch_norm(x, CASE["2d-narrow"].kept)[0] + residual
    assert np.array_equal(dz, np.where(v > 0, dy, 0).astype(np.float32) if activation else dy.astype(np.float32))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["2d-narrow", "4d-nchw", "3d-inner-257"])
def test_gradients_of_the_block(name: str, training: bool, affine: bool) -> None:
    """relu(bn(x) + residual) by automatic differentiation; channels are axis 1."""
    case = CASE[name]
    mean, var, gamma, beta = parameters(case)
    values = draw(case, np.float64), gamma, beta, draw(case, np.float64, seed=5)
    x, g, b, residual = (torch.tensor(p, requires_grad=True) for p in values)
    dy = draw(case, np.float64, seed=7)
    stored = (None, None) if training else (torch.tensor(mean), torch.tensor(var))
    y = F.batch_norm(x, *stored, *((g, b) if affine else ()), training=training)
    F.relu(y + residual).backward(torch.tensor(dy))
    m = numbabn.moments(values[0], axis=1) if training else (mean, var)
    for into in ("new", "x", "residual", "dy"):
        given = {"dy": dy.copy(), "x": values[0].copy(), "residual": values[3].copy()}
        dx, dgamma, dbeta, dz = batch_norm_backward(
            given["dy"], given["x"], m, *((gamma, beta) if affine else ()), axis=1, training=training,
            activation="relu", residual=given["residual"], out=given.get(into),
        )  # fmt: skip
        np.testing.assert_allclose(dx, x.grad, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(dz, residual.grad, rtol=1e-12)
        if affine:
            np.testing.assert_allclose([dgamma, dbeta], [g.grad.numpy(), b.grad.numpy()], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["rows-130", "planes-32-of-256", "pieces-kept-ends"])
def test_threads(name: str) -> None:
    case = CASE[name]
    x, residual = draw(case, np.float32), draw(case, np.float32, seed=5)
    *_, gamma, beta = parameters(case)
    prints, how = set(), {"axis": case.axis, "activation": "relu", "residual": residual}
    for n in (1, 2, 3, 2):
        with numbabn.num_threads(n):
            y, m = batch_norm(x, gamma, beta, **how)
            back = batch_norm_backward(x, x, m, gamma, beta, **how)
            prints.add(b"".join(a.tobytes() for a in (y, *back)))
    assert len(prints) == 1


SHARED = np.zeros(30)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"activation": "Relu"}, ValueError, "expected one of 'relu'"),
        ({"activation": 3}, TypeError, "`activation` is 3"),
        ({"activation": np.tanh}, TypeError, "`activation` is <ufunc"),
        ({"activation": ()}, TypeError, "`activation`"),
        ({"activation": "clip"}, ValueError, "takes 2: for example"),
        ({"activation": ("clip", 1)}, ValueError, "with 1 number;"),
        ({"activation": ("clip", 2, 1)}, ValueError, "the lower one first"),
        ({"activation": ("relu", 1)}, ValueError, "takes 0"),
        ({"activation": ("elu", np.nan)}, ValueError, "expected numbers"),
        ({"activation": ("leaky_relu", "0.1")}, TypeError, "expected a real number"),
        ({"residual": np.zeros((4, 2))}, ValueError, "`residual` has shape"),
        ({"residual": np.zeros((5, 3), complex)}, TypeError, "`residual` has dtype"),
        ({"residual": SHARED[:15].reshape(5, 3), "out": SHARED[1:16].reshape(5, 3)}, ValueError, "overlaps `residual`"),
        ({"residual": SHARED[:15].reshape(5, 3), "x": SHARED[1:16].reshape(5, 3), "out": SHARED[1:16].reshape(5, 3)},
         ValueError, "overlaps `residual`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", [normalize, batch_norm], ids=lambda f: f.__name__)
def test_refusals_write_nothing(verb: Any, changed: dict[str, Any], error: type[Exception], words: str) -> None:
    how: dict[str, Any] = {"x": np.arange(15.0).reshape(5, 3), "out": np.full((5, 3), 7.0), **changed}
    before = {name: value.copy() for name, value in how.items() if isinstance(value, np.ndarray)}
    more = {"mean": np.zeros(3), "var": np.ones(3)} if verb is normalize else {}
    with pytest.raises(error, match=words):
        verb(**how, **more)
    assert all(np.array_equal(how[name], value) for name, value in before.items())
