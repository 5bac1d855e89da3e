"""Accuracy against exact arithmetic: fractions, and sums that are rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

import numbabn
from numbabn import Moments

EPS = 2.0**-52
FAMILIES = ("rows", "planes", "pieces")


def exact(x: np.ndarray) -> tuple[Fraction, Fraction]:
    """Mean and biased variance of float64 (or narrower) values, without any rounding."""
    # All values over one power of two, so that sums are sums of Python integers.
    values = np.asarray(x, dtype=np.float64).reshape(-1)
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2.0**53).astype(np.int64).tolist()
    lowest = int(exponent.min())
    shift = (exponent - lowest).tolist()
    scaled = [w << s for w, s in zip(whole, shift, strict=True)]
    n, total, squares = len(scaled), sum(scaled), sum(s * s for s in scaled)
    unit = Fraction(2) ** (lowest - 53)
    return Fraction(total, n) * unit, Fraction(n * squares - total * total, n * n) * unit * unit


def relative(got: float, true: Fraction) -> float:
    return float(abs(Fraction(float(got)) - true) / abs(true)) if true else abs(float(got))


def laid_out(values: np.ndarray, family: str) -> tuple[np.ndarray, int]:
    """The values as one of three equal channels, in memory for the family; and the channel axis."""
    if family == "rows":
        return np.stack([values] * 3, axis=-1), -1
    if family == "planes":
        return np.stack([values] * 3), 0
    return np.ascontiguousarray(np.repeat(np.stack([values] * 3, axis=-1), 2, axis=1))[:, ::2], -1


def test_the_exact_sums_are_exact() -> None:
    values = [0.1, 1e10, -3.7, 2.0**-30]
    mean, var = exact(np.array(values))
    fractions = [Fraction(v) for v in values]
    assert mean == sum(fractions) / 4
    assert var == sum((f - mean) ** 2 for f in fractions) / 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1_000, 200_001])
def test_float32_mean_1000_std_1(family: str, n: int) -> None:
    values = np.random.default_rng(1).normal(1000, 1, n).astype(np.float32)
    x, axis = laid_out(values, family)
    m, (mean, var) = numbabn.moments(x, axis=axis), exact(values)
    for c in range(3):
        assert relative(m.mean[c], mean) <= 1e-13
        assert relative(m.var()[c], var) <= 1e-10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1_000, 200_001])
def test_float64_mean_over_std_1e8(family: str, n: int) -> None:
    values = np.random.default_rng(2).normal(1e8, 1, n)
    x, axis = laid_out(values, family)
    m, (mean, var) = numbabn.moments(x, axis=axis), exact(values)
    for c in range(3):
        assert relative(m.mean[c], mean) <= 4 * EPS
        assert relative(m.var()[c], var) <= 1e-7


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("outlier", [1e10, -1e16, 1e5])
def test_first_value_far_away(family: str, outlier: float) -> None:
    """A first value that is no guide to the others, as the pivot of the first tile."""
    values = np.random.default_rng(3).normal(size=50_000)
    values[0] = outlier
    x, axis = laid_out(values, family)
    m, (mean, var) = numbabn.moments(x, axis=axis), exact(values)
    # The rounding of the sum alone is of the order of the standard deviation times eps, not of the mean's.
    assert abs(Fraction(float(m.mean[0])) - mean) <= Fraction(1e-13 * max(abs(float(mean)), math.sqrt(var)))
    # One tile of m values has the far pivot: its M2 is off by some m * eps of itself, m = 43 thousand here.
    assert relative(m.var()[0], var) <= 3e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_two_far_populations(family: str) -> None:
    """Half the data at one place, half at another: the merge of parts carries the variance between them."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(-1e6, 1e-3, 60_000), rng.normal(1e6, 1e-3, 90_001)])
    x, axis = laid_out(values, family)
    m, (mean, var) = numbabn.moments(x, axis=axis), exact(values)
    assert relative(m.mean[0], mean) <= 1e-13
    assert relative(m.var()[0], var) <= 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_a_slow_drift(family: str) -> None:
    values = np.linspace(0, 1e9, 150_001) + np.random.default_rng(5).normal(size=150_001)
    x, axis = laid_out(values, family)
    m, (mean, var) = numbabn.moments(x, axis=axis), exact(values)
    assert relative(m.mean[0], mean) <= 1e-13
    assert relative(m.var()[0], var) <= 1e-12


@pytest.mark.parametrize("dtype", [np.int64, np.uint64], ids=lambda t: t.__name__)
def test_integers_beyond_2_to_the_53(dtype: type) -> None:
    """Each is rounded to float64 once; the statistics of those are right."""
    rng = np.random.default_rng(6)
    x = rng.integers(2**62, 2**62 + 2**40, (20_000, 2), dtype=dtype)
    m, (mean, var) = numbabn.moments(x), exact(x[:, 1].astype(np.float64))
    assert relative(m.mean[1], mean) <= 4 * EPS
    assert relative(m.var()[1], var) <= 1e-7


# NIST's Statistical Reference Datasets, univariate summary statistics, by their published construction.
NIST: dict[str, tuple[list[str], str, str, float]] = {
    # decimals, certified mean, certified sd (ddof 1), digits that float64 carries of the sd
    "NumAcc1": (["10000001", "10000003", "10000002"], "10000002", "1", 14.5),
    "NumAcc2": (["1.2", *["1.1", "1.3"] * 500], "1.2", "0.1", 14.5),
    "NumAcc3": (["1000000.2", *["1000000.1", "1000000.3"] * 500], "1000000.2", "0.1", 9.4),
    "NumAcc4": (["10000000.2", *["10000000.1", "10000000.3"] * 500], "10000000.2", "0.1", 8.2),
}


def streamed(x: np.ndarray, axis: int, size: int) -> Moments:
    """The moments through `+`, from batches of `size` values."""
    total = Moments(0, np.zeros(1), np.zeros(1))
    length = x.shape[1 - axis]
    for lo in range(0, length, size):
        total = total + numbabn.moments(x[lo : lo + size] if axis == 1 else x[:, lo : lo + size], axis=axis)
    return total


WAYS: dict[str, tuple[Callable[[np.ndarray, int], Moments], float]] = {
    "one-shot": (lambda x, axis: numbabn.moments(x, axis=axis), 8),
    "in-ones": (lambda x, axis: streamed(x, axis, 1), 32),
    "in-sevens": (lambda x, axis: streamed(x, axis, 7), 32),
}


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)], ids=["column", "row"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NIST)
def test_nist(name: str, way: str, shape: tuple[int, int]) -> None:
    decimals, mean_text, sd_text, digits = NIST[name]
    values = np.array([float(d) for d in decimals])
    measure, factor = WAYS[way]
    m = measure(values.reshape(shape), 1 if shape == (-1, 1) else 0)
    assert m.count == len(decimals)
    # Against the float64 values themselves, in exact arithmetic.
    mean, var = exact(values)
    ratio = float(mean) / math.sqrt(var)
    assert relative(m.mean[0], mean) <= 4 * EPS
    assert relative(m.var()[0], var) <= factor * EPS * (1 + ratio)
    # Against the certified values, as far as float64 holds the decimals.
    slack = 0 if way == "one-shot" else factor * EPS * ratio
    assert relative(m.mean[0], Fraction(mean_text)) <= 1e-15
    assert relative(m.std(ddof=1)[0], Fraction(sd_text)) <= 10**-digits + slack


def test_nist_needs_more_than_the_textbook_formula() -> None:
    """The same check refuses E[x^2] - E[x]^2, so it can fail."""
    values = np.array([float(d) for d in NIST["NumAcc4"][0]])
    _, var = exact(values)
    assert relative((values**2).mean() - values.mean() ** 2, var) > 0.01


@pytest.mark.parametrize("family", ["rows", "planes"])
def test_float32_output_at_large_offsets(family: str) -> None:
    """N(1e6, 1) in float32 comes out centred, to less than 1e-6; scikit-learn's float32 does not."""
    from sklearn.preprocessing import StandardScaler

    values = np.random.default_rng(7).normal(1e6, 1, (100_000, 4)).astype(np.float32)
    x, axis = (values, 1) if family == "rows" else (np.ascontiguousarray(values.T), 0)
    y, _ = numbabn.batch_norm(x, axis=axis, eps=0)
    assert y.dtype == np.float32
    centre = np.abs(y.astype(np.float64).mean(axis=1 - axis))
    spread = y.astype(np.float64).std(axis=1 - axis)
    assert centre.max() < 1e-6
    assert np.abs(spread - 1).max() < 1e-6
    bn = numbabn.BatchNorm(4, axis=axis, momentum=1.0, eps=0)
    bn.update(x)
    assert np.abs(bn(x).astype(np.float64).mean(axis=1 - axis)).max() < 1e-6
    theirs = np.abs(StandardScaler().fit_transform(values).astype(np.float64).mean(axis=0))
    assert theirs.max() > 100 * centre.max()


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"], ids=str)
def test_16_bit_inputs_are_measured_exactly(dtype: object) -> None:
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    values = np.random.default_rng(8).normal(100, 3, 70_000).astype(dtype)
    m, (mean, var) = numbabn.moments(values[:, None]), exact(values.astype(np.float64))
    assert relative(m.mean[0], mean) <= 1e-13
    assert relative(m.var()[0], var) <= 1e-11
