"""The one table of awkward shapes, memory layouts, dtypes and tolerances, for tests and benchmarks alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = tuple(np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16))
INTEGERS = tuple(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))
DTYPES = (*FLOATS, *INTEGERS, np.dtype(bool))

# Unit roundoff of one rounding to the type, and the spacing of its smallest values.
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
TINY = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
MEAN_RTOL = 1e-13  # of max(|mean|, std), for moments in float64
VAR_RTOL = 1e-10
OUTPUT_SLACK = 1e-12  # of the largest value: what float64 arithmetic adds to the one rounding of an output


@dataclass(frozen=True)
class Case:
    """A shape and its channel axes."""

    name: str
    shape: tuple[int, ...]
    axis: int | tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """The channel axes, ascending and non-negative."""
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        return tuple(sorted(a % len(self.shape) for a in axes))

    @property
    def channel_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.kept)

    def __str__(self) -> str:
        return self.name


# Small and awkward: every pattern of axes, sizes around vector widths and around the thresholds of the engine.
SMALL = (
    Case("1d-one-channel", (37,), ()),
    Case("1d-all-channels", (37,), 0),
    Case("1d-one-value", (1,), 0),
    Case("2d-one-row", (1, 5), 1),
    Case("2d-one-column", (41, 1), 1),
    Case("2d-narrow", (103, 3), -1),
    Case("2d-channels-first", (3, 103), 0),
    Case("2d-both-kept", (6, 7), (0, 1)),
    Case("2d-none-kept", (6, 7), ()),
    Case("2d-wide-128", (33, 128), -1),
    Case("2d-wide-129", (9, 129), -1),
    Case("3d-inner-1", (11, 5, 1), 1),
    Case("3d-inner-31", (4, 5, 31), 1),
    Case("3d-inner-32", (4, 5, 32), 1),
    Case("3d-inner-33", (3, 2, 33), 1),
    Case("3d-inner-255", (2, 3, 255), 1),
    Case("3d-inner-256", (2, 3, 256), 1),
    Case("3d-inner-257", (2, 3, 257), 1),
    Case("3d-ends-kept", (4, 6, 5), (0, 2)),
    Case("3d-tail-kept", (6, 4, 5), (1, -1)),
    Case("3d-head-kept", (4, 5, 19), (-3, 1)),
    Case("4d-nchw", (2, 3, 7, 5), 1),
    Case("4d-nhwc", (2, 7, 5, 3), -1),
    Case("4d-ones", (1, 1, 1, 1), 1),
    Case("4d-size-1-axes", (5, 1, 4, 1), 2),
    Case("5d-middle", (2, 3, 4, 2, 3), 2),
    Case("6d-alternating", (2, 3, 2, 2, 3, 2), (1, 3, 5)),
)

# Large enough that several items, parts, blocks of columns and threads take part.
LARGE = (
    Case("rows-3", (90_001, 3), -1),
    Case("rows-130", (3_001, 130), -1),
    Case("rows-5000", (61, 5_000), -1),
    Case("rows-pseudo-channels", (1_203, 9, 31), 1),
    Case("rows-255", (37, 17, 255), 1),
    Case("planes-32-of-256", (40, 32, 256), 1),
    Case("planes-few-channels", (3, 2, 60_001), 1),
    Case("planes-one-channel", (400_003,), ()),
    Case("planes-many-channels", (2, 300, 517), 1),
    Case("channels-first", (7, 50_021), 0),
    Case("pieces-alternating", (5, 3, 31, 3, 211), (1, 3)),
    Case("pieces-kept-ends", (13, 3_001, 7), (0, 2)),
)

# Arrays without values: an axis of size 0 among the reduced, among the channels, or alone.
EMPTY = (
    Case("no-rows", (0, 4), -1),
    Case("no-channels", (4, 0), -1),
    Case("nothing", (0,), 0),
    Case("no-pixels", (2, 3, 0), 1),
)


@dataclass(frozen=True)
class Memory:
    """How an array lies in memory; `steps` gives the spacing of each axis, fastest axis last in `order`."""

    name: str
    order: Callable[[int], list[int]] = lambda ndim: list(range(ndim))
    step: Callable[[int, int], int] = lambda d, ndim: 1
    pad: Callable[[int, int], int] = lambda d, ndim: 0
    turned: Callable[[int, int], bool] = lambda d, ndim: False
    gap: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return self.name

    def empty(self, shape: tuple[int, ...], dtype: Any, guard: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """An array in this layout inside a buffer of bytes 0xA5, and the buffer."""
        dtype, ndim = np.dtype(dtype), len(shape)
        strides, lowest, spacing = [0] * ndim, 0, dtype.itemsize + self.gap
        for d in reversed(self.order(ndim)):
            strides[d] = spacing * self.step(d, ndim)
            spacing *= max(1, shape[d]) * self.step(d, ndim) + self.pad(d, ndim)
            if self.turned(d, ndim) and shape[d] > 1:
                lowest += strides[d] * (shape[d] - 1)
                strides[d] = -strides[d]
        room = spacing + 2 * guard + self.offset
        buffer = np.full(room + 64, 0xA5, np.uint8)
        buffer = buffer[-buffer.ctypes.data % 64 :][:room]
        return np.ndarray(shape, dtype, buffer.data, guard + self.offset + lowest, strides), buffer

    def of(self, values: np.ndarray) -> np.ndarray:
        """The same values in this layout."""
        array, _ = self.empty(values.shape, values.dtype)
        array[...] = values
        return array


def _last_first(ndim: int) -> list[int]:
    return [ndim - 1, *range(ndim - 1)]


MEMORIES = (
    Memory("c"),
    Memory("fortran", order=lambda ndim: list(range(ndim))[::-1]),
    Memory("last-axis-slowest", order=_last_first),
    Memory("every-second-row", step=lambda d, ndim: 2 if d == 0 else 1),
    Memory("every-second-value", step=lambda d, ndim: 2 if d == ndim - 1 else 1),
    Memory("crop", pad=lambda d, ndim: 3),
    Memory("padded-rows", pad=lambda d, ndim: 5 if d == ndim - 1 else 0),
    Memory("rows-reversed", turned=lambda d, ndim: d == 0),
    Memory("all-reversed", turned=lambda d, ndim: True),
    Memory("fortran-last-reversed", order=lambda ndim: list(range(ndim))[::-1], turned=lambda d, ndim: d == ndim - 1),
    Memory("misaligned", offset=1),
    Memory("field-of-packed-record", gap=3),
)
MEMORY = {m.name: m for m in MEMORIES}


def bytes_of(array: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """Which bytes of the buffer belong to elements of the array."""
    mask = np.zeros(buffer.size, bool)
    start = array.ctypes.data - buffer.ctypes.data
    np.ndarray((*array.shape, array.itemsize), bool, mask.data, start, (*array.strides, 1))[...] = True
    return mask


def draw(case: Case, dtype: Any, seed: int = 0, offset: float = 3.0, spread: float = 2.0) -> np.ndarray:
    """Values with another mean and spread in every channel, within what the dtype can hold."""
    rng, dtype = np.random.default_rng([seed, *case.shape]), np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(case.shape) < 0.3
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        lo, hi = (int(info.min) // 2, int(info.max) // 2) if dtype.itemsize < 8 else (-(2**52), 2**52)
        return rng.integers(max(lo, int(info.min)), hi, case.shape, dtype=dtype, endpoint=True)
    along = tuple(n if d in case.kept else 1 for d, n in enumerate(case.shape))
    values = rng.normal(size=case.shape) * spread * rng.uniform(0.5, 2, along) + offset * rng.normal(size=along)
    return values.astype(dtype)


def parameters(case: Case, seed: int = 1) -> Iterator[np.ndarray]:
    """(mean, var, gamma, beta) of each channel."""
    rng = np.random.default_rng([seed, *case.shape])
    yield rng.normal(size=case.channel_shape)
    yield rng.uniform(0.25, 4, case.channel_shape)
    yield rng.choice([-1, 1], case.channel_shape) * rng.uniform(0.5, 2, case.channel_shape)
    yield rng.normal(size=case.channel_shape)


def assert_output(y: np.ndarray, exact: np.ndarray, slack: float = OUTPUT_SLACK) -> None:
    """y is `exact` (float64) rounded to y's type, or within `slack` of the largest value of that."""
    assert y.shape == exact.shape
    if y.size == 0:
        return
    name = y.dtype.name
    got = y.astype(np.float64)
    allowed = 1.01 * ROUNDOFF[name] * np.abs(exact) + TINY[name] + slack * np.abs(exact).max()
    worst = np.abs(got - exact) - allowed
    assert np.isfinite(got).all(), "the output has values that are not finite"
    assert worst.max() <= 0, f"off by {np.abs(got - exact).max():.3g} at {np.unravel_index(worst.argmax(), y.shape)}"


def assert_moments(m: Any, expected: tuple[float, np.ndarray, np.ndarray]) -> None:
    """Count equal, mean and M2 within the promised accuracy of (count, mean, M2)."""
    count, mean, m2 = expected
    assert m.mean.dtype == m.m2.dtype == np.float64
    assert m.mean.shape == m.m2.shape == np.shape(mean)
    assert np.all(m.count == count)
    std = np.sqrt(m2 / max(count, 1))
    assert (np.abs(m.mean - mean) <= MEAN_RTOL * np.maximum(np.abs(mean), std)).all()
    assert (np.abs(m.m2 - m2) <= VAR_RTOL * m2 + 1e-24 * count * mean**2).all()
