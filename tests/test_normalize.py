"""normalize, denormalize and batch_norm: every shape and dtype against the reference; out given, in place, fresh."""

from __future__ import annotations

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, EMPTY, FLOATS, LARGE, SMALL, Case, assert_moments, assert_output, draw, parameters
from numbabn.kernels import reference

import numbabn

ROWS, PLANES = Case("rows", (1_003, 7), -1), Case("planes", (3, 4, 701), 1)
# Enough channels, and enough values, that each is trained while it is cached, and in several parts.
CACHED = Case("planes-cached", (6, 16, 3_001), 1)
FAMILIES = (ROWS, PLANES, CACHED)
RESULT = {t: np.dtype(np.float32 if t.itemsize <= 2 else np.float64) if t.kind in "iub" else t for t in DTYPES}
# (x, out) of different types: those that people ask for.
PAIRS = [(np.float32, np.float64), (np.float64, np.float32), (np.float32, np.float16), (np.float16, np.float32)]
PAIRS += [(BFLOAT16, np.float32), (np.float32, BFLOAT16), (np.uint8, np.float16), (np.int64, BFLOAT16)]


def check_all_verbs(x: np.ndarray, case: Case) -> None:
    """normalize, denormalize and batch_norm of x into new arrays."""
    mean, var, gamma, beta = parameters(case)
    kept, axis, result = case.kept, case.axis, RESULT[x.dtype]
    if x.dtype.kind in "iu":
        mean, var = mean * 10.0, var * float(np.iinfo(x.dtype).max) ** 2 / 8
    y = numbabn.normalize(x, mean, var, gamma, beta, axis=axis)
    assert y.dtype == result
    assert_output(y, reference.normalize(x, kept, mean, var, gamma, beta))
    assert_output(numbabn.normalize(x, mean, var, axis=axis, eps=0.5), reference.normalize(x, kept, mean, var, eps=0.5))
    if x.dtype.kind not in "iub":
        back = numbabn.denormalize(x, mean, var, gamma, beta, axis=axis)
        assert back.dtype == result
        assert_output(back, reference.transform(x, kept, beta, np.sqrt(var + 1e-5) / gamma, mean))
    y, m = numbabn.batch_norm(x, gamma, beta, axis=axis)
    exact, expected = reference.batch_norm(x, kept, gamma, beta)
    assert y.dtype == result
    assert_output(y, exact, slack=1e-9)
    assert_moments(m, expected)


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small(case: Case, dtype: np.dtype) -> None:
    check_all_verbs(draw(case, dtype), case)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large(case: Case) -> None:
    check_all_verbs(draw(case, np.float32), case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FAMILIES, ids=str)
def test_dtypes(case: Case, dtype: np.dtype) -> None:
    check_all_verbs(draw(case, dtype), case)


@pytest.mark.parametrize(("source", "result"), PAIRS, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("case", FAMILIES, ids=str)
def test_out_of_another_dtype(case: Case, source: np.dtype, result: np.dtype) -> None:
    x = draw(case, source)
    mean, var, gamma, beta = parameters(case)
    var = var * max(1.0, float(np.abs(x.astype(float)).max()) ** 2)
    out = np.full(x.shape, np.nan, result)
    assert numbabn.normalize(x, mean, var, gamma, beta, axis=case.axis, out=out) is out
    assert_output(out, reference.normalize(x, case.kept, mean, var, gamma, beta))
    out = np.full(x.shape, np.nan, result)
    assert numbabn.batch_norm(x, gamma, beta, axis=case.axis, out=out)[0] is out
    assert_output(out, reference.batch_norm(x, case.kept, gamma, beta)[0], slack=1e-9)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", [*FAMILIES, LARGE[0], LARGE[6], LARGE[10]], ids=str)
def test_in_place_has_the_bits_of_a_new_array(case: Case, dtype: np.dtype) -> None:
    x = draw(case, dtype)
    mean, var, gamma, beta = parameters(case)
    for verb in (numbabn.normalize, numbabn.denormalize):
        fresh, x_ = verb(x, mean, var, gamma, beta, axis=case.axis), x.copy()
        assert verb(x_, mean, var, gamma, beta, axis=case.axis, out=x_) is x_
        assert x_.tobytes() == fresh.tobytes()
    fresh, m = numbabn.batch_norm(x, gamma, beta, axis=case.axis)
    x_ = x.copy()
    y, m_ = numbabn.batch_norm(x_, gamma, beta, axis=case.axis, out=x_)
    assert y is x_
    assert y.tobytes() == fresh.tobytes()
    assert m == m_


@pytest.mark.parametrize("case", EMPTY, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.uint8], ids=lambda t: t.__name__)
def test_no_values(case: Case, dtype: np.dtype) -> None:
    x = np.empty(case.shape, dtype)
    ones = np.ones(case.channel_shape)
    for y in (
        numbabn.normalize(x, ones, ones, axis=case.axis),
        numbabn.denormalize(x, ones, ones, axis=case.axis),
        numbabn.batch_norm(x, axis=case.axis)[0],
    ):
        assert y.shape == case.shape
        assert y.dtype == RESULT[np.dtype(dtype)]
    out = np.empty(case.shape, np.float32)
    assert numbabn.normalize(x, ones, ones, axis=case.axis, out=out) is out


def test_order_of_memory_is_kept() -> None:
    x = np.asfortranarray(draw(ROWS, np.float32))
    assert numbabn.batch_norm(x)[0].flags.f_contiguous


@pytest.mark.parametrize("case", FAMILIES, ids=str)
def test_denormalize_undoes_normalize(case: Case) -> None:
    x = draw(case, np.float64)
    mean, var, gamma, beta = parameters(case)
    y = numbabn.normalize(x, mean, var, gamma, beta, axis=case.axis)
    np.testing.assert_allclose(numbabn.denormalize(y, mean, var, gamma, beta, axis=case.axis), x, rtol=0, atol=1e-13)


def test_scalar_parameters_stand_for_all_channels() -> None:
    x = draw(ROWS, np.float64)
    ones = np.ones(7)
    given = numbabn.normalize(x, 2.0, 3, np.float32(0.5), np.array(1.0))
    assert given.tobytes() == numbabn.normalize(x, 2 * ones, 3 * ones, 0.5 * ones, ones).tobytes()


@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
def test_constant_channel(case: Case) -> None:
    """A channel without variance comes out as beta, exactly, with and without eps."""
    x = np.full(case.shape, 1e6 + 0.1)
    beta = np.arange(case.channel_shape[0]) + 0.25
    exact = np.broadcast_to(reference.along(beta, case.kept, x.ndim), x.shape)
    for eps in (0.0, 1e-5):
        y, _ = numbabn.batch_norm(x, 3.0, beta, eps=eps, axis=case.axis)
        assert (y == exact).all()
        y = numbabn.normalize(x, 1e6 + 0.1, 0.0, 3.0, beta, eps=eps, axis=case.axis)
        assert (y == exact).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", FAMILIES, ids=str)
def test_nonfinite_is_what_ieee_makes_of_it(case: Case, dtype: np.dtype) -> None:
    """In inference NaN and infinity stay one value each; in training a NaN takes its channel, and no other."""
    x = draw(case, dtype)
    by_channel = np.moveaxis(x, case.kept[0], -1)
    by_channel[0, ..., 0].flat[0] = np.nan
    by_channel[1, ..., 2] = np.inf
    y = numbabn.normalize(x, 0.0, 4.0, eps=0, axis=case.axis)
    assert np.array_equal(np.isnan(y), np.isnan(x))
    assert np.array_equal(np.isposinf(y.astype(float)), np.isposinf(x.astype(float)))
    y, _ = numbabn.batch_norm(x, axis=case.axis)
    sick = np.isnan(np.moveaxis(y, case.kept[0], -1).astype(float)).reshape(-1, case.channel_shape[0])
    touched = ~np.isfinite(by_channel.astype(float)).reshape(-1, case.channel_shape[0]).all(axis=0)
    assert touched.any()
    assert not touched.all()
    assert np.array_equal(sick.all(axis=0), touched)
    assert np.array_equal(sick.any(axis=0), touched)


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
def test_overflow_of_a_small_output_is_infinity(case: Case, dtype: np.dtype) -> None:
    x = np.full(case.shape, 2.0)
    out = np.zeros(case.shape, dtype)
    top = float(np.float64(65504 if dtype == np.float16 else 3.3895313892515355e38))
    numbabn.normalize(x, 0.0, 1.0, top / 2, eps=0, axis=case.axis, out=out)
    assert (out.astype(np.float64) == top).all()
    numbabn.normalize(x, 0.0, 1.0, -top * 2, eps=0, axis=case.axis, out=out)
    assert np.isneginf(out.astype(np.float64)).all()


@pytest.mark.parametrize("dtype", FLOATS[:1] + FLOATS[2:], ids=str)
@pytest.mark.parametrize("family", ["rows", "planes"])
def test_output_is_rounded_once_and_to_even(family: str, dtype: np.dtype) -> None:
    """float64 results halfway between two outputs go to the even one, and results beside halfway to the nearer."""
    ulp = 2 * {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype.name]
    beside = 2.0**-40
    x = np.array([1 + ulp / 2, 1 + 3 * ulp / 2, 1 + ulp / 2 + beside, 1 + 3 * ulp / 2 - beside, 1 + ulp / 2 - beside])
    expected = [1, 1 + 2 * ulp, 1 + ulp, 1 + ulp, 1]
    x = np.tile(x, 20).reshape((-1, 1) if family == "rows" else (1, -1))
    y = numbabn.normalize(x, 0.0, 1.0, eps=0, axis=1 if family == "rows" else 0, out=np.empty(x.shape, dtype))
    assert y.astype(np.float64).reshape(-1)[:5].tolist() == expected


@pytest.mark.parametrize("family", ["rows", "planes"])
def test_a_scale_beyond_float64_is_infinite_and_quiet(family: str) -> None:
    """What IEEE arithmetic makes of extreme parameters, without a warning from the way there."""
    x = np.full((400, 1) if family == "rows" else (1, 400), 3.0)
    axis = 1 if family == "rows" else 0
    assert np.isposinf(numbabn.normalize(x, 1.0, 1e-300, 1e300, eps=0, axis=axis)).all()
    assert np.isposinf(numbabn.denormalize(x, 0.0, 1e300, 1e-320, eps=0, axis=axis)).all()
    x.reshape(-1)[::2] = 3.0 + 1e-15
    y, m = numbabn.batch_norm(x, 1e300, eps=0, axis=axis)
    assert m.var() > 0
    assert np.isinf(y).all()
