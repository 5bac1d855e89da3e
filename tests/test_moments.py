"""moments: every shape, dtype and loop family against the plain float64 reference."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, EMPTY, FLOATS, LARGE, SMALL, Case, assert_moments, draw
from numbabn.kernels import reference

import numbabn
from numbabn import Moments

ROWS, PLANES = Case("rows", (1_003, 7), -1), Case("planes", (3, 4, 701), 1)
LARGE_ROWS, LARGE_PLANES = Case("rows", (20_003, 7), -1), Case("planes", (3, 2, 40_001), 1)


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small(case: Case, dtype: np.dtype) -> None:
    x = draw(case, dtype)
    m = numbabn.moments(x, axis=case.axis)
    assert_moments(m, reference.moments(x, case.kept))
    assert m.mean.shape == case.channel_shape


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large(case: Case) -> None:
    x = draw(case, np.float32, offset=100)
    assert_moments(numbabn.moments(x, axis=case.axis), reference.moments(x, case.kept))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", [ROWS, PLANES, LARGE_ROWS, LARGE_PLANES], ids=lambda c: f"{c.name}-{c.shape[-1]}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(case: Case, dtype: np.dtype) -> None:
    x = draw(case, dtype)
    assert_moments(numbabn.moments(x, axis=case.axis), reference.moments(x, case.kept))


@pytest.mark.parametrize("dtype", [t for t in DTYPES if t.kind in "iu"], ids=str)
@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
def test_extreme_integers(case: Case, dtype: np.dtype) -> None:
    """Nothing wraps around: half the values at each end of the range."""
    info = np.iinfo(dtype)
    x = np.where(np.arange(np.prod(case.shape)).reshape(case.shape) % 2, info.max, info.min).astype(dtype)
    m = numbabn.moments(x, axis=case.axis)
    count, mean, m2 = reference.moments(x, case.kept)
    span = float(info.max) - float(info.min)
    assert m.count == count
    np.testing.assert_allclose(m.mean, mean, rtol=0, atol=1e-12 * span)
    np.testing.assert_allclose(m.m2, m2, rtol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order(dtype: np.dtype, order: str) -> None:
    if dtype == BFLOAT16:
        pytest.skip("ml_dtypes has native bfloat16 only")
    x = draw(PLANES, dtype)
    swapped = x.astype(x.dtype.newbyteorder(order))
    assert_moments(numbabn.moments(swapped, axis=1), reference.moments(x, (1,)))


@pytest.mark.parametrize("case", EMPTY, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, BFLOAT16], ids=lambda t: np.dtype(t).name)
def test_no_values(case: Case, dtype: np.dtype) -> None:
    m = numbabn.moments(np.empty(case.shape, dtype), axis=case.axis)
    assert m.mean.shape == case.channel_shape
    assert m == Moments(0, np.zeros(case.channel_shape), np.zeros(case.channel_shape))
    assert np.isnan(m.var()).all()


def test_one_value_per_channel() -> None:
    m = numbabn.moments(np.array([[5.0, -1e300, 0.0]]))
    assert m.count == 1
    assert m.mean.tolist() == [5.0, -1e300, 0.0]
    assert m.m2.tolist() == [0, 0, 0]
    assert m.var().tolist() == [0, 0, 0]
    assert np.isnan(m.var(ddof=1)).all()


@pytest.mark.parametrize("value", [0.1, 1e-310, 1e300, -123456789.123, 5e-324])
@pytest.mark.parametrize("case", [ROWS, PLANES, LARGE_ROWS, LARGE_PLANES], ids=lambda c: f"{c.name}-{c.shape[-1]}")
def test_constant_is_exact(case: Case, value: float) -> None:
    """A constant channel has exactly its value as mean and exactly no variance."""
    m = numbabn.moments(np.full(case.shape, value), axis=case.axis)
    assert (m.mean == value).all()
    assert (m.m2 == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_nonfinite_stays_in_its_channel(case: Case, dtype: np.dtype, bad: float, where: str) -> None:
    x = draw(case, dtype)
    before = numbabn.moments(x, axis=case.axis)
    by_channel = np.moveaxis(x, case.kept[0], 0)
    plane = by_channel[2]
    at = {"first": 0, "middle": plane.size // 2, "last": plane.size - 1}[where]
    plane[np.unravel_index(at, plane.shape)] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = numbabn.moments(x, axis=case.axis)
    others = np.arange(case.channel_shape[0]) != 2
    assert m.mean[others].tobytes() == before.mean[others].tobytes()
    assert m.m2[others].tobytes() == before.m2[others].tobytes()
    assert np.array_equal(m.mean[2], bad, equal_nan=True)
    assert np.isnan(m.m2[2])


def test_both_infinities_give_nan() -> None:
    x = np.zeros((50, 2))
    x[3, 0], x[40, 0] = np.inf, -np.inf
    m = numbabn.moments(x)
    assert np.isnan(m.mean).tolist() == [True, False]


@pytest.mark.parametrize("family", ["rows", "planes"])
def test_squares_beyond_float64(family: str) -> None:
    """Deviations of 1e200 have a finite mean, and a variance that is infinite rather than NaN."""
    x = np.tile([1e200, -1e200, 3e200], 3_000).reshape(-1, 1)
    m = numbabn.moments(x if family == "rows" else x.T, axis=1 if family == "rows" else 0)
    np.testing.assert_allclose(m.mean, [1e200], rtol=1e-13)
    assert np.isposinf(m.m2).all()
    assert np.isposinf(m.std()).all()


@pytest.mark.parametrize("family", ["rows", "planes"])
def test_far_subnormals(family: str) -> None:
    """Subnormal data keep their exact mean; squares below float64's range count as nothing, never as less."""
    x = np.arange(1, 1_002, dtype=np.float64).reshape(-1, 1) * 5e-324
    m = numbabn.moments(x if family == "rows" else x.T, axis=1 if family == "rows" else 0)
    assert m.mean.tolist() == [501 * 5e-324]
    assert m.m2.tolist() == [0]


def test_channel_axes_of_any_order_and_sign() -> None:
    x = draw(Case("", (3, 4, 5, 6), (1, 3)), np.float64)
    expected = reference.moments(x, (1, 3))
    for axis in ((1, 3), (3, 1), (-1, 1), [1, 3], (np.int64(3), -3)):
        m = numbabn.moments(x, axis=axis)
        assert_moments(m, expected)


def test_x_is_not_written_and_results_are_fresh() -> None:
    x = draw(ROWS, np.float64)
    x.flags.writeable = False
    before = x.tobytes()
    m = numbabn.moments(x)
    assert x.tobytes() == before
    assert not np.shares_memory(m.mean, x)
