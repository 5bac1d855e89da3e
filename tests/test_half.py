"""float16 and bfloat16: every bit pattern, and one rounding from float64 to the nearest, ties to even."""

from __future__ import annotations

import numpy as np
import pytest
from cases import FLOATS

import numbabn

HALVES = FLOATS[2:]
assert {t.itemsize for t in HALVES} == {2}


def every(dtype: np.dtype) -> np.ndarray:
    """All numbers of a type that are not negative, as float64."""
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = np.arange(32_768, dtype=np.uint16).view(dtype).astype(np.float64)
    return values[np.isfinite(values)]


def rounded(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What rounding to a type should give, as float64, by search among all its numbers."""
    numbers = every(dtype)
    numbers = np.append(numbers, 2 * numbers[-1] - numbers[-2])  # the first that is too large
    size = np.where(np.isnan(x), 0.0, np.abs(x))
    below = np.clip(np.searchsorted(numbers, size, "right") - 1, 0, numbers.size - 2)
    down, up = size - numbers[below], numbers[below + 1] - size
    nearest = np.where((down > up) | ((down == up) & (below % 2 == 1)), below + 1, below)
    result = np.where(nearest == numbers.size - 1, np.inf, numbers[nearest])
    return np.where(np.isnan(x), np.nan, np.copysign(result, x))


def shaped(x: np.ndarray, family: str) -> np.ndarray:
    return x.reshape((-1, 1) if family == "rows" else (1, -1))


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
@pytest.mark.parametrize("family", ["rows", "planes"])
def test_every_16_bit_pattern_comes_through(family: str, dtype: np.dtype) -> None:
    """All 65536 bit patterns through load and store: values to the bit, NaN as NaN."""
    x = np.arange(65_536, dtype=np.uint16).view(dtype).reshape((-1, 4) if family == "rows" else (1, -1))
    y = numbabn.normalize(x, 0.0, 1.0, eps=0, axis=1 if family == "rows" else 0)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        before, after = x.astype(np.float64), y.astype(np.float64)
    assert np.array_equal(before, after, equal_nan=True)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", ["rows", "planes"])
def test_every_tie_and_what_is_beside_it(family: str, dtype: np.dtype) -> None:
    """Normal numbers, those below them, the way to infinity; float32 in between would round some of them twice."""
    numbers = every(dtype)
    ties = np.append((numbers[1:] + numbers[:-1]) / 2, numbers[-1] + (numbers[-1] - numbers[-2]) / 2)
    beside = [np.nextafter(ties, np.inf), np.nextafter(ties, 0), ties * (1 + 2.0**-30), ties * (1 - 2.0**-30)]
    far = [
        2.0**127,
        2.0**128,
        1e300,
        2.0**978,
        2.0**1000,
        np.finfo(float).max,
        np.inf,
        5e-324,
        1e-200,
        2.0**-126,
        1e-40,
    ]
    x = np.concatenate([ties, *beside, far])
    x = np.concatenate([x, -x, [np.nan]])
    y = numbabn.normalize(
        shaped(x, family),
        0.0,
        1.0,
        eps=0,
        axis=1 if family == "rows" else 0,
        out=shaped(np.empty(x.size, dtype), family),
    )
    np.testing.assert_array_equal(y.astype(np.float64).reshape(-1), rounded(x, dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_numbers_of_all_sizes(dtype: np.dtype) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(100_000) * 2.0 ** rng.integers(-150, 140, 100_000)
    y = numbabn.normalize(x[:, None], 0.0, 1.0, eps=0, out=np.empty((x.size, 1), dtype))
    np.testing.assert_array_equal(y[:, 0].astype(np.float64), rounded(x, dtype))


@pytest.mark.parametrize(
    "bits", [0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0001, 0x7FF8_0000_0000_0001]
)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_no_nan_becomes_a_number(dtype: np.dtype, bits: int) -> None:
    x = np.full((40, 1), np.uint64(bits)).view(np.float64)
    assert np.isnan(numbabn.normalize(x, 0.0, 1.0, eps=0, out=np.empty(x.shape, dtype)).astype(np.float64)).all()
