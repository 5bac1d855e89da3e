"""extra=: skewness, kurtosis, extremes and non-finite values, gathered in the same pass."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.stats
from cases import LARGE, Case, draw
from hypothesis import given
from hypothesis import strategies as st
from numbabn.kernels import reference

import numbabn
from numbabn import Moments

ROWS, PLANES = Case("rows", (203, 5), -1), Case("planes", (3, 4, 701), 1)
CASES = (ROWS, LARGE[0], PLANES, LARGE[6], LARGE[10])
MORE = ("m3", "m4", "min", "max", "nonfinite")


def reduced(x: np.ndarray, case: Case) -> np.ndarray:
    """(channels..., values), float64."""
    moved = np.moveaxis(x.astype(np.float64), case.kept, range(len(case.kept)))
    return moved.reshape(*case.channel_shape, -1)


def close(m: Moments, expected: tuple[Any, ...], rtol: float = 1e-9) -> None:
    """Third and fourth moments as of the reference, measured by the spread of the channel."""
    count, mean, m2, m3, m4 = expected
    std = np.sqrt(m2 / np.maximum(count, 1))
    np.testing.assert_allclose(m.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(m.m2, m2, rtol=1e-9)
    assert (np.abs(m.m3 - m3) <= rtol * count * std**3).all()
    assert (np.abs(m.m4 - m4) <= rtol * count * std**4 * 10).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_the_formulas(case: Case, dtype: Any) -> None:
    x = np.exp(draw(case, dtype, offset=1, spread=0.5))
    runs = []
    for n in (1, 2):
        with numbabn.num_threads(n):
            runs.append(numbabn.moments(x, axis=case.axis, extra="all"))
    m, flat = runs[0], reduced(x, case)
    assert m.to_dict() == runs[1].to_dict()
    close(m, reference.higher_moments(x, case.kept))
    assert np.array_equal(m.min, flat.min(axis=-1))
    assert np.array_equal(m.max, flat.max(axis=-1))
    assert not m.nonfinite.any()
    for bias in (True, False):
        np.testing.assert_allclose(m.skewness(bias), scipy.stats.skew(flat, axis=-1, bias=bias), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(
            m.kurtosis(bias), scipy.stats.kurtosis(flat, axis=-1, bias=bias), rtol=1e-8, atol=1e-9
        )


@pytest.mark.parametrize("shape", [(70, 4), (1001, 2), (634, 16), (5000, 7), (40_003, 1)], ids=str)
def test_of_the_rows_that_are_left_when_others_are_packed(shape: tuple[int, int]) -> None:
    x = draw(Case("table", shape, -1), np.float64)
    for m in [numbabn.moments(x, extra="all") for _ in range(20)]:
        close(m, reference.higher_moments(x, (1,)))
        assert np.array_equal(m.min, x.min(axis=0))
        assert np.array_equal(m.max, x.max(axis=0))


@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
def test_with_weights(case: Case) -> None:
    rng = np.random.default_rng(3)
    x, weights = draw(case, np.float64), rng.integers(0, 9, case.shape) / 4
    m = numbabn.moments(x, axis=case.axis, weights=weights, extra="all")
    close(m, reference.higher_moments(x, case.kept, weights))
    axes = tuple(d for d in range(x.ndim) if d not in case.kept)
    assert np.array_equal(m.min, np.where(weights > 0, x, np.inf).min(axis=axes))
    assert np.array_equal(m.max, np.where(weights > 0, x, -np.inf).max(axis=axes))


def test_only_what_was_asked_for() -> None:
    x = draw(ROWS, np.float32)
    plain = numbabn.moments(x)
    assert all(getattr(plain, name) is None for name in MORE)
    for method, name in ((plain.skewness, "skewness"), (plain.kurtosis, "kurtosis")):
        with pytest.raises(ValueError, match=f"extra='{name}'"):
            method()
    for extra, there in (("skewness", MORE[:2]), (["max"], MORE[2:]), ({"kurtosis", "min"}, MORE), (("all",), MORE)):
        m = numbabn.moments(x, extra=extra)
        assert tuple(name for name in MORE if getattr(m, name) is not None) == there
        np.testing.assert_allclose(m.mean, plain.mean, rtol=1e-13)
        np.testing.assert_allclose(m.m2, plain.m2, rtol=1e-10)
        assert (m + m).m3 is None or "m3" in there
        assert [getattr(m + plain, name) for name in MORE] == [None] * 5


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "planes"])
def test_nonfinite(rows: bool) -> None:
    """NaN stays in min and max as in NumPy; infinities are extremes; both are counted, in their channel alone."""
    x = draw(Case("", (2_000, 5), -1), np.float32)
    x[7, 0], x[1_500, 0], x[3:9, 1], x[1_999, 2], x[:, 3] = np.nan, np.inf, -np.inf, np.inf, np.nan
    data, axis = (x, 1) if rows else (np.ascontiguousarray(x.T), 0)
    m = numbabn.moments(data, axis=axis, extra="all")
    assert np.array_equal(m.min, x.min(axis=0), equal_nan=True)
    assert np.array_equal(m.max, x.max(axis=0), equal_nan=True)
    assert m.nonfinite.tolist() == [2, 6, 1, 2_000, 0]
    assert np.isfinite([m.m3[4], m.m4[4], m.skewness()[4], m.kurtosis()[4]]).all()
    assert np.isnan([m.m3[:4], m.m4[:4], m.skewness()[:4], m.kurtosis()[:4]]).all()
    omitted = numbabn.moments(data, axis=axis, nan_policy="omit", extra="all")
    assert omitted.nonfinite.tolist() == [2, 6, 1, 2_000, 0]
    assert np.array_equal(omitted.count, (~np.isnan(x)).sum(axis=0))
    assert np.array_equal(omitted.min[:3], np.nanmin(x[:, :3], axis=0))
    assert (omitted.min[3], omitted.max[3], omitted.m3[3]) == (np.inf, -np.inf, 0)


def test_small_counts_and_constants() -> None:
    for n, nan in ((1, (1, 1, 1, 1)), (2, (0, 1, 0, 1)), (3, (0, 0, 0, 1)), (4, (0, 0, 0, 0))):
        m = numbabn.moments(np.arange(n, dtype=float).reshape(-1, 1) ** 2, extra="all")
        got = [f(bias)[0] for f in (m.skewness, m.kurtosis) for bias in (True, False)]
        assert np.isnan(got).tolist() == [bool(v) for v in nan]
    constant = numbabn.moments(np.full((50, 1), 0.1), extra="all")
    assert np.isnan(constant.skewness()).all()
    assert (constant.m3, constant.m4, constant.min, constant.max) == (0, 0, 0.1, 0.1)
    nothing = numbabn.moments(np.empty((0, 2)), extra="all")
    assert nothing.min.tolist() == [np.inf] * 2
    assert nothing.max.tolist() == [-np.inf] * 2
    assert nothing + constant_like(nothing) == constant_like(nothing)


def constant_like(m: Moments) -> Moments:
    return numbabn.moments(np.full((3, m.mean.size), 4.0), extra="all")


@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from([0.0, 1e4]))
def test_merging_is_concatenation(seed: int, sizes: list[int], offset: float) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.gamma(2.0, size=(n, 3)) + offset for n in sizes]
    whole = numbabn.moments(np.concatenate(parts), extra="all")
    for m in (Moments.merge_all(numbabn.moments(p, extra="all") for p in parts),
              sum(numbabn.moments(p, extra="all") for p in parts)):  # fmt: skip
        n = sum(sizes)
        assert np.all(m.count == n)
        scale = np.maximum(whole.max - whole.min, 1) if n else np.ones(3)
        slack = 1e-9 if offset else 1e-12
        for k, name in ((2, "m2"), (3, "m3"), (4, "m4")):
            assert (np.abs(getattr(m, name) - getattr(whole, name)) <= slack * max(n, 1) * scale**k).all(), name
        assert np.array_equal(m.min, whole.min)
        assert np.array_equal(m.max, whole.max)


def test_round_trips() -> None:
    x = draw(ROWS, np.float32)
    x[3, 2] = np.nan
    for extra in ((), "kurtosis", "min", "all"):
        m = numbabn.moments(x, extra=extra)
        for again in (Moments.from_dict(json.loads(json.dumps(m.to_dict()))), pickle.loads(pickle.dumps(m)),
                      copy.deepcopy(m)):  # fmt: skip
            assert again == m
            assert all((getattr(again, name) is None) == (getattr(m, name) is None) for name in MORE)
    m = numbabn.moments(x, extra="all")
    assert m != numbabn.moments(x)
    for name in MORE:
        other = m.to_dict()
        other[name][0] += 1
        assert Moments.from_dict(other) != m
    with pytest.raises(ValueError, match="read-only"):
        m.min[0] = 0


def test_refusals() -> None:
    x = np.ones((3, 2))
    for bad, error in (("mean", ValueError), (["min", "median"], ValueError), (3, TypeError), ([3], TypeError)):
        with pytest.raises(error, match=r"`extra` is .* expected names out of skewness"):
            numbabn.moments(x, extra=bad)
    with pytest.raises(ValueError, match="go together"):
        Moments(3, np.zeros(2), np.zeros(2), m3=np.zeros(2))
    with pytest.raises(ValueError, match="`min` has shape"):
        Moments(3, np.zeros(2), np.zeros(2), min=np.zeros(3))
