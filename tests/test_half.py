"""float16 and bfloat16: every bit pattern, and one rounding from float64 to the nearest, ties to even."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from cases import FLOATS

import numbabn
from numbabn import lanes
from numbabn.arrays import kernel_ready
from numbabn.backends import cuts, machine, written

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


BESIDE = 2.0**-40  # of 1: far less than float32 can tell


def tasks(dtype: np.dtype) -> np.ndarray:
    """(mean, scale, shift) by row: of all sizes, cancelling, and such that results lie in the middle or beside it."""
    rng = np.random.default_rng(8)
    middle = float(np.finfo(np.float16).eps) / 2 if dtype == np.float16 else 2.0**-8  # above 1, between two neighbours
    ordinary = [tuple(rng.standard_normal(3)) for _ in range(8)]
    middles = [(0.0, by, middle + more) for by in (1.0, 1.0 + BESIDE, -1.0) for more in (0.0, BESIDE, -BESIDE)]
    cancelling = [
        (1000.3, 50.0, 3.0),
        (1000.3, 50.0987654, 50113.8),
        (-0.001, 300.0, 0.0),
        (40000.0, 0.7, 1e-3),
        (0, 1e6, 1e6),
    ]
    sizes = [(0.1, by, 0.2) for by in (0.0, 5e-324, 1e-40, 2.0**-101, 1e-30, 2.0**-20, 1e30, 2.0**101, 1e300)]
    far = [(1e300, 1.0, 0.0), (0.0, 1.0, 1e38), (0.0, 1.0, 1e-44), (1e38, 1e-38, 0.0), (3e4, 1.0, -3.3e38)]
    none = [(0.1, by, b) for by, b in ((np.inf, 0.0), (-1.0, np.inf), (np.nan, 0.0), (1.0, np.nan))]
    shifts = (0.0, -0.0, 0.31234567891, -1e-6, middle + 1, 1e39, np.nan)
    means = [
        (mean, by, b)
        for mean in (0.0, -0.0, 1.5, -100.0)
        for by in (1.7234567891, -1.7234567891, 0.0, -0.0)
        for b in shifts
    ]
    return np.array([*ordinary, *middles, *cancelling, *sizes, *far, *none, *means])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", ["rows", "planes"])
@pytest.mark.parametrize("past", [False, True], ids=["kept", "past the cache"])
def test_every_pattern_by_parameters_of_all_sizes(family: str, past: bool, dtype: np.dtype, monkeypatch) -> None:
    """What float32 decides is what float64 does, for all that x can be; also the sign of a zero."""
    monkeypatch.setattr(written, "PAST", 0 if past else 1 << 60)
    monkeypatch.setattr(machine, "past_the_cache", lambda: True)
    monkeypatch.setattr(lanes, "_known", {})
    x = np.arange(65_536, dtype=np.uint16).view(dtype).reshape((-1, 64) if family == "rows" else (1, -1))
    with np.errstate(invalid="ignore"):
        value = x.astype(np.float64)
    for mean, scale, shift in tasks(dtype):
        columns = np.ones(x.shape[1] if family == "rows" else 1)
        by = (columns * mean, columns, columns * scale, columns * shift)
        y = numbabn.normalize(x, *by, eps=0, axis=1 if family == "rows" else 0).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            wanted = rounded((value - mean) * scale + shift, dtype)
        np.testing.assert_array_equal(y, wanted, f"{mean}, {scale}, {shift}")
        number = ~np.isnan(wanted)
        assert np.array_equal(np.signbit(y[number]), np.signbit(wanted[number]))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", ["rows", "planes"])
def test_results_beside_the_middle_of_two_numbers(family: str, dtype: np.dtype) -> None:
    """x * scale + shift some units of float32 beside a middle, where the terms are up to 2**30 times as large."""
    rng = np.random.default_rng(9)
    n, times = 10_000, 32
    numbers = every(dtype)[1:]
    numbers = numbers[(numbers > 1e-7) & (numbers < 1e4)]
    k, larger = rng.integers(0, numbers.size - 1, n), 2.0 ** rng.uniform(-2, 30, n)
    # Below a power of two, what float32 rounds first may be above it, and be off by twice as much.
    below = np.flatnonzero(np.frexp(numbers[1:])[0] == 0.5)
    k[: n // 3] = rng.choice(below, n // 3)
    beside = rng.uniform(0.1, 4, n) * 2.0**-23 + larger * 2.0**-51  # more than float64 is off by
    y = (numbers[k] + numbers[k + 1]) / 2 * (1 + rng.choice([-1, 1], n) * beside)
    scale = rng.uniform(1, 2, n) * 2.0 ** rng.choice([-135, -125, -90, -20, -3, 0, 3, 20], n)
    with np.errstate(over="ignore"):
        x = (rng.choice([-1, 1], n) * y * larger / scale).astype(dtype)
    value = x.astype(np.float64)
    kept = np.isfinite(value) & (value != 0)
    x, value, scale, shift = x[kept], value[kept], scale[kept], (y - value * scale)[kept]
    wanted = rounded(value * scale + shift, dtype)
    none, one = np.zeros(x.size), np.ones(x.size)
    if family == "rows":
        x, none, one, scale, shift = (np.repeat(a, times) for a in (x, none, one, scale, shift))
        y = numbabn.normalize(np.stack([x] * 4), none, one, scale, shift, eps=0)[1].reshape(-1, times)
    else:
        y = numbabn.normalize(np.stack([x] * times, axis=1), none, one, scale, shift, eps=0, axis=0)
    np.testing.assert_array_equal(y.astype(np.float64), np.stack([wanted] * times, axis=1))


@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.1, 10.0])
def test_results_of_float16_below_its_normal_numbers(size: float) -> None:
    """Some units of float32 beside a middle, which is not where it would be if they were normal numbers."""
    rng = np.random.default_rng(12)
    n, times = 10_000, 32
    numbers = every(np.dtype(np.float16))[1:3000]
    k = rng.integers(0, numbers.size - 1, n)
    k[: n // 3] = np.searchsorted(numbers, 2.0**-14) - 1  # which float32 rounds to a normal number, or below
    middles = (numbers[k] + numbers[k + 1]) / 2
    x = (rng.standard_normal(n) * size).astype(np.float16)
    scale, value = rng.uniform(0.5, 2, n), x.astype(np.float64)
    beside = rng.choice([-1, 1], n) * (rng.uniform(0.1, 4, n) * 2.0**-23 * middles + 2.0**-50 * np.abs(value))
    mean = value - rng.choice([-1, 1], n) * (middles + beside) / scale
    y = numbabn.normalize(np.stack([x] * times, axis=1), mean, np.ones(n), scale, eps=0, axis=0)
    wanted = rounded((value - mean) * scale, x.dtype)
    np.testing.assert_array_equal(y.astype(np.float64), np.stack([wanted] * times, axis=1))


def gradients(dy: np.ndarray, x: np.ndarray, mean: np.ndarray, a: np.ndarray, b: np.ndarray, k: np.ndarray) -> Any:
    """dx of (rows, channels) as the kernel has it, and as float64 rounded once has it."""
    rows, channels = x.shape
    out = np.empty_like(x)
    flat = [kernel_ready(array.reshape(-1)) for array in (dy, x, out)]
    absent = (None, 0, 0)
    where = (flat[0], channels, 1, flat[1], channels, 1, *absent)
    task = cuts.kernels("forms").Gradient(*where, None, mean, None, *absent, a, b, k)
    assert cuts.kernel("written", "rows")(0, 1, task, flat[2], channels, rows, channels, 1, 1, 1, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        v, g = x.astype(np.float64), dy.astype(np.float64)
        return out.astype(np.float64), rounded(a * g - (b + (v - mean) * k), x.dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_of_numbers_of_all_sizes(dtype: np.dtype) -> None:
    rng = np.random.default_rng(10)
    shape, one = (400, 64), np.ones(64)
    sizes = [(1.0, 0.01), (1e3, 1.0), (1e-30, 1e-30), (1e30, 1e-3), (2.0**-110, 1.0), (1.0, 2.0**-110), (1e250, 1.0)]
    special = [(0.0, 0.0), (0.0, 0.3), (1.7, 0.0), (np.nan, 0.0), (np.inf, 1.0), (-3e38, 3e38), (1e5, -1e5)]
    for by, back in [*sizes, *special]:
        numbers = [one * (rng.standard_normal() * size) for size in (1.0, by, back, back)]
        for bits in (False, True):
            if bits:
                x, dy = rng.integers(0, 1 << 16, (2, *shape), np.uint16).view(dtype)
            else:
                x, dy = (rng.standard_normal((2, *shape)) * 3).astype(dtype)
            np.testing.assert_array_equal(*gradients(dy, x, *numbers), f"{by}, {back}")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_beside_the_middle_of_two_numbers(dtype: np.dtype) -> None:
    """Where what comes from x, and what comes from dy, are up to 2**18 times as large as the result."""
    rng = np.random.default_rng(11)
    n, times = 20_000, 32
    numbers = every(dtype)[1:]
    numbers = numbers[(numbers > 1e-4) & (numbers < 1e3)]
    i, larger = rng.integers(0, numbers.size - 1, n), 2.0 ** rng.uniform(-4, 18, n)
    beside = rng.choice([-1, 1], n) * 2.0 ** rng.uniform(-26, -10, n) * np.maximum(1, larger)
    y = (numbers[i] + numbers[i + 1]) / 2 * (1 + beside * 2.0**-12)
    x, dy = (rng.standard_normal((2, n)) * 3).astype(dtype)
    v, g = x.astype(np.float64), dy.astype(np.float64)
    mean, k = rng.standard_normal(n), rng.standard_normal(n)
    k *= y * larger / np.maximum(np.abs((v - mean) * k), 1e-3)
    a = rng.standard_normal(n)
    b = a * g - (v - mean) * k - y
    x, dy, *numbers_ = (np.repeat(each, times) for each in (x, dy, mean, a, b, k))
    found, wanted = gradients(np.stack([dy] * 4), np.stack([x] * 4), *numbers_)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a processor of x86")
def test_a_processor_without_instructions_that_convert() -> None:
    """All numbers, NaN, the middles and what is beside them, by the plain processor that virtual machines may have."""
    code = """
        import numpy as np, numbabn

        halves = np.arange(65536, dtype=np.uint16).view(np.float16)
        with np.errstate(invalid="ignore"):
            numbers = halves.astype(np.float64)
        middles = (numbers[1:31744] + numbers[:31743]) / 2
        beside = [np.nextafter(middles, 0), np.nextafter(middles, 9e9), [65519.9, 65520, 1e300]]
        x = np.concatenate([numbers, middles, *beside])
        x = np.concatenate([x, -x])[:, None]
        with np.errstate(over="ignore"):
            wanted = x.astype(np.float16)
        same = numbabn.normalize(halves[:, None], 0.0, 1.0, eps=0)
        assert np.array_equal(same[:, 0], halves, equal_nan=True)
        rounded = numbabn.normalize(x, 0.0, 1.0, eps=0, out=np.empty_like(wanted))
        assert np.array_equal(rounded, wanted, equal_nan=True)
        print("right")
        """
    plain = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2", "NUMBABN_CACHE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env={**os.environ, **plain}
    )
    assert result.stdout == "right\n", result.stderr
