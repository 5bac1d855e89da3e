"""All verbs, dtypes and loop families with the JIT off: ``NUMBA_DISABLE_JIT=1 python -W error tests/interpreted.py``.

Kernels that are plain Python can be stepped through and measured for coverage; this is what proves
that they still work that way. Tiny arrays: the interpreter takes a microsecond for each value.
"""

from __future__ import annotations

import numba
import numpy as np
from cases import BFLOAT16, MEMORY, Case, assert_moments, assert_output, draw, parameters
from numbabn.kernels import cpu_planes, cpu_rows, reference

import numbabn
from numbabn.backends import cpu, cuts, gradients

CASES = (
    Case("rows", (21, 3), -1),
    Case("rows-inner", (5, 3, 4), 1),
    Case("rows-wide", (9, 70), -1),
    Case("rows-packed", (70, 4), -1),
    Case("rows-packed-inner", (45, 2, 3), 1),
    Case("planes", (2, 3, 258), 1),
    Case("planes-cached", (2, 9, 1_030), 1),
    Case("channels-first", (3, 40), 0),
    Case("none-kept", (6, 7), ()),
    Case("several-kept", (3, 2, 3, 2), (1, 3)),
)
DTYPES = (np.float32, np.float64, np.float16, BFLOAT16, np.int8, np.bool_)


def check(case: Case, dtype: object, memory: str) -> None:
    """Each verb, into a new array and in place, against the reference."""
    values = draw(case, dtype)
    x = MEMORY[memory].of(values)
    mean, var, gamma, beta = parameters(case)
    exact, moments = reference.batch_norm(values, case.kept, gamma, beta)
    m = numbabn.moments(x, axis=case.axis)
    assert_moments(m, moments)
    y, m_ = numbabn.batch_norm(x, gamma, beta, axis=case.axis)
    assert m == m_
    assert_output(y, exact, slack=1e-9)
    z = numbabn.normalize(x, mean, var, gamma, beta, axis=case.axis)
    assert_output(z, reference.normalize(values, case.kept, mean, var, gamma, beta))
    if x.dtype.kind not in "iub":
        numbabn.batch_norm(x, gamma, beta, axis=case.axis, out=x)
        assert x.tobytes() == y.tobytes()


def check_picks(case: Case) -> None:
    """Masks and weights for each value, for each position and for each channel."""
    x = draw(case, np.float32)
    kept = {d % x.ndim for d in case.kept}
    for over in (range(x.ndim), [d for d in range(x.ndim) if d not in kept], kept):
        shape = tuple(n if d in over else 1 for d, n in enumerate(x.shape))
        where = (np.arange(np.prod(shape, dtype=int)) % 3 > 0).reshape(shape)
        weights = np.broadcast_to(np.arange(1.0, 1.0 + shape[0]).reshape(-1, *(1,) * (x.ndim - 1)), shape)
        for pick, one in (({"where": where}, where), ({"where": where, "weights": weights}, where * weights)):
            m = numbabn.moments(x, axis=case.axis, **pick)
            for got, expected in zip((m.count, m.mean, m.m2), reference.moments(x, case.kept, one), strict=True):
                np.testing.assert_allclose(got, np.broadcast_to(expected, np.shape(got)), rtol=1e-9, atol=1e-12)
            numbabn.batch_norm_backward(x, x, m, axis=case.axis, **pick)


def check_broadcast() -> None:
    """Masks and weights whose axes do not touch where those of x do."""
    cpu_rows.TILE, cpu_planes.PIECE = 24, 64
    for case in (Case("", (3, 5, 6, 3), -1), Case("", (3, 5, 6, 11), -1), Case("", (2, 3, 15, 40), 1)):
        x = draw(case, np.float32)
        for over in ((0,), (1,), (2,), (0, 2), (1, 3), (1, 2, 3)):
            shape = tuple(n if d in over else 1 for d, n in enumerate(x.shape))
            where, weights = (np.arange(np.prod(shape)) % 3 > 0).reshape(shape), np.ones((*x.shape[:2], 1, 1)) / 2
            m = numbabn.moments(x, axis=case.axis, where=where, weights=weights)
            for got, expected in zip(
                (m.count, m.mean, m.m2), reference.moments(x, case.kept, where * weights), strict=True
            ):
                np.testing.assert_allclose(got, np.broadcast_to(expected, np.shape(got)), rtol=1e-9, atol=1e-12)


def check_more(case: Case) -> None:
    """Third and fourth moments and extremes."""
    x = draw(case, np.float32)
    m = numbabn.moments(x, axis=case.axis, extra="all")
    _, _, _, m3, m4 = reference.higher_moments(x, case.kept)
    np.testing.assert_allclose(m.m3, m3, rtol=1e-9, atol=1e-9 * x.size)
    np.testing.assert_allclose(m.m4, m4, rtol=1e-9)
    reduced = tuple(d for d in range(x.ndim) if d not in {k % x.ndim for k in case.kept})
    np.testing.assert_array_equal(m.min, x.min(axis=reduced))
    np.testing.assert_array_equal(m.max, x.max(axis=reduced))


def check_tables() -> None:
    """Narrow rows, packed and by themselves, in tiles that are short here: what is out of its room is an IndexError."""
    cpu_rows.TILE = 24
    rng = np.random.default_rng(0)
    for channels in (*range(1, 13), 17, 30, 65):
        for rows in (1, 2 + 2000 // channels):
            x = rng.normal(size=(rows, channels))
            each, every = rng.integers(0, 3, (rows, 1)) / 2, rng.integers(0, 3, x.shape) / 2
            picks = ({}, 1.0), ({"where": each > 0}, each > 0), ({"weights": each}, each), ({"weights": every}, every)
            for pick, weight in picks:
                m = numbabn.moments(x, **pick, extra="all")
                _, mean, m2, m3, m4 = reference.higher_moments(x, (1,), weight)
                for got, expected in ((m.mean, mean), (m.m2, m2), (m.m3, m3), (m.m4, m4)):
                    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(numbabn.moments(x, **pick).m2, m2, rtol=1e-9, atol=1e-9)
                numbabn.batch_norm_backward(x, x, m, **pick)


def main() -> None:
    assert numba.config.DISABLE_JIT, "set NUMBA_DISABLE_JIT=1"
    for room in (cuts, cpu, gradients):  # several items and parts, channels trained while cached, on few values
        room.GRAIN, room.LONG = 512, 512
    for case in CASES:
        for dtype in DTYPES:
            small = np.dtype(dtype) == np.float32 and case.shape != (2, 9, 1_030)
            for memory in ("c", "fortran", "crop") if small else ("c",):
                check(case, dtype, memory)
        check_picks(case)
        check_more(case)
    check_tables()
    check_broadcast()
    special = np.array([[np.nan, np.inf, 1e300, 1.0], [1.0, 2.0, 3.0, 4.0]])
    with np.errstate(over="ignore", invalid="ignore"):  # compiled code never warns; NumPy's scalars do
        m = numbabn.moments(special)
    assert np.isnan(m.mean[0])
    assert np.isposinf(m.mean[1])
    assert m.mean[3] == 2.5
    assert np.isposinf(m.m2[2])
    for dtype in (np.float16, BFLOAT16):
        y = numbabn.normalize(special[:, ::3], 0.0, 1.0, eps=0, out=np.empty((2, 2), dtype))
        assert np.isnan(y[0, 0].astype(float))
        assert y[0, 1] == 1
    print("ok")


if __name__ == "__main__":
    main()
