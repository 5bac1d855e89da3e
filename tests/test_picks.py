"""where, weights and nan_policy: which values count, and how often."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import LARGE, MEAN_RTOL, MEMORIES, SMALL, VAR_RTOL, Case, Memory, assert_output, draw
from hypothesis import given
from hypothesis import strategies as st
from numbabn.kernels import reference

import numbabn
from numbabn import Moments

ROWS, PLANES = Case("rows", (203, 5), -1), Case("planes", (3, 4, 701), 1)
PACKED, PIECES = LARGE[0], LARGE[10]
CASES = (ROWS, PACKED, Case("wide-rows", (307, 9, 31), 1), PLANES, LARGE[6], PIECES)
FORMS = ("full", "by channel", "by position", "reduced", "per sample", "trailing", "scalar")


def agree(m: Moments, expected: tuple[Any, np.ndarray, np.ndarray], slack: float = 1.0) -> None:
    count, mean, m2 = expected
    count = np.broadcast_to(count, mean.shape)
    assert np.array_equal(np.broadcast_to(m.count, mean.shape), count)
    std = np.sqrt(m2 / np.maximum(count, 1))
    assert (np.abs(m.mean - mean) <= slack * MEAN_RTOL * np.maximum(np.abs(mean), std)).all()
    assert (np.abs(m.m2 - m2) <= slack * VAR_RTOL * m2 + 1e-24 * count * mean**2).all()


def values(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """A mask, or weights whose sums are exact."""
    rng = np.random.default_rng([len(kind), *shape])
    return rng.random(shape) < 0.7 if kind == "where" else rng.integers(0, 9, shape) / 4


def pick_of(kind: str, form: str, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A pick in one of the accepted shapes, and the same with as many axes as x has."""
    shape = case.shape
    reduced = [d for d in range(len(shape)) if d not in case.kept]
    over = {
        "full": range(len(shape)),
        "by channel": case.kept,
        "by position": reduced,
        "reduced": reduced,
        "per sample": reduced[:1],
        "trailing": range(1, len(shape)),
        "scalar": (),
    }[form]
    p = values(kind, tuple(n if d in over else 1 for d, n in enumerate(shape)))
    if form == "scalar":
        p[...] = 1
    return p if form in ("full", "by channel", "by position") else p.reshape([shape[d] for d in over]), p


@pytest.mark.parametrize("kind", ["where", "weights"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms(case: Case, form: str, kind: str) -> None:
    x = draw(case, np.float32, offset=50)
    pick, full = pick_of(kind, form, case)
    runs = []
    for n in (1, 2):
        with numbabn.num_threads(n):
            runs.append(numbabn.moments(x, axis=case.axis, **{kind: pick}))
    agree(runs[0], reference.moments(x, case.kept, full))
    assert runs[0].to_dict() == runs[1].to_dict()


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 9, 15, 16, 33, 64])
def test_one_value_for_each_row(channels: int, dtype: str) -> None:
    """Rows of any width, several of which a kernel takes as one, and what is repeated along them lies in any way."""
    case = Case("", (1_003, channels), -1)
    x, dy = draw(case, np.float32), draw(case, np.float32, offset=-3)
    several = np.random.default_rng(channels).integers(0, 4, 2 * len(x)).astype(dtype)
    kind = "where" if dtype == "bool" else "weights"
    for by_row in (several[: len(x)], several[: len(x)][::-1], several[::2], np.ones((), dtype)):
        rows = np.broadcast_to(by_row, len(x)).reshape(-1, 1)
        m = numbabn.moments(x, axis=-1, **{kind: by_row})
        agree(m, reference.moments(x, case.kept, rows))
        if kind == "where":
            full = np.broadcast_to(rows, x.shape).copy()
            got, same = (numbabn.batch_norm_backward(dy, x, m, axis=-1, where=where) for where in (by_row, full))
            for one, other in zip(got, same, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_one_axis_means_samples_first() -> None:
    x, weights = draw(Case("", (4, 3, 4), 1), np.float32), np.array([1.0, 2.0, 0.0, 3.0])
    agree(numbabn.moments(x, axis=1, weights=weights), reference.moments(x, (1,), weights[:, None, None]))
    agree(numbabn.moments(x, axis=1, weights=weights[None]), reference.moments(x, (1,), weights))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small(case: Case) -> None:
    x, where = draw(case, np.float64), values("where", case.shape)
    agree(numbabn.moments(x, axis=case.axis, where=where), reference.moments(x, case.kept, where))
    y, m = numbabn.batch_norm(x, axis=case.axis, where=where)
    exact, expected = reference.batch_norm(x, case.kept, weight=where)
    assert_output(y, np.where(np.broadcast_to(_along(expected[0], case), x.shape) > 0, exact, 0.0))
    assert m == numbabn.moments(x, axis=case.axis, where=where)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("case", [ROWS, PLANES], ids=str)
def test_memories(case: Case, memory: Memory) -> None:
    """Both x and the mask lie in any way."""
    x, where = draw(case, np.float32), values("where", case.shape)
    m = numbabn.moments(memory.of(x), axis=case.axis, where=memory.of(where))
    agree(m, reference.moments(x, case.kept, where))


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", [PACKED, PLANES, PIECES], ids=str)
def test_all_together(case: Case, dtype: Any) -> None:
    """A mask, weights and missing values at once, forward too, with the same bits for any threads."""
    x = draw(case, dtype)
    (where, w), (weights, v) = pick_of("where", "per sample", case), pick_of("weights", "full", case)
    x[values("where", case.shape)] = np.nan
    expected = reference.moments(np.nan_to_num(x), case.kept, w * v * ~np.isnan(x))
    runs = []
    for n in (1, 2):
        with numbabn.num_threads(n):
            y, m = numbabn.batch_norm(x, axis=case.axis, where=where, weights=weights, nan_policy="omit")
            runs.append((y.tobytes(), m.to_dict()))
    agree(m, expected)
    assert runs[0] == runs[1]
    exact = reference.normalize(x, case.kept, expected[1], expected[2] / expected[0])
    assert np.array_equal(np.isnan(y), np.isnan(x))
    assert_output(np.nan_to_num(y), np.nan_to_num(exact))


@pytest.mark.parametrize("kind", ["where", "weights"])
@pytest.mark.parametrize("case", [ROWS, PACKED, PLANES, PIECES], ids=str)
@pytest.mark.parametrize("bad", [1e30, np.nan, np.inf, -np.inf])
def test_what_does_not_count_changes_nothing(case: Case, bad: float, kind: str) -> None:
    x, pick = draw(case, np.float32), values(kind, case.shape)
    spoilt = np.where(pick != 0, x, np.float32(bad))
    y, m = numbabn.batch_norm(x, axis=case.axis, **{kind: pick})
    z, n = numbabn.batch_norm(spoilt, axis=case.axis, **{kind: pick})
    assert m.to_dict() == n.to_dict()
    assert y[pick != 0].tobytes() == z[pick != 0].tobytes()
    assert numbabn.moments(spoilt, axis=case.axis, **{kind: pick}).to_dict() == m.to_dict()


@pytest.mark.parametrize("case", [ROWS, PLANES, PIECES], ids=str)
def test_a_channel_without_values(case: Case) -> None:
    x, where = draw(case, np.float32), np.ones(case.channel_shape, bool)
    where.reshape(-1)[1] = False
    beta = np.arange(where.size, dtype=float).reshape(where.shape)
    y, m = numbabn.batch_norm(x, beta=beta, axis=case.axis, where=_along(where, case))
    assert [a.reshape(-1)[1] for a in (m.count, m.mean, m.m2)] == [0, 0, 0]
    assert np.isnan(m.var().reshape(-1)[1])
    assert (np.moveaxis(y, case.kept, range(len(case.kept)))[np.unravel_index(1, where.shape)] == 1).all()
    none = numbabn.moments(x, axis=case.axis, where=False, nan_policy="raise")
    assert none == Moments(0, np.zeros(where.shape), np.zeros(where.shape))


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 5), st.sampled_from([0.0, 1e4]))
def test_by_repetition_and_removal(seed: int, n: int, channels: int, offset: float) -> None:
    """Whole weights repeat, a mask removes, "omit" removes NaN: in each channel what is left by itself."""
    rng = np.random.default_rng(seed)
    x, times, where = rng.normal(size=(n, channels)) + offset, rng.integers(0, 4, (n, channels)), rng.random(n) < 0.6
    holes = np.where(rng.random(x.shape) < 0.3, np.nan, x)
    slack = 1e3 if offset else 10
    agree(numbabn.moments(x, weights=times[:, 0]), reference.moments(np.repeat(x, times[:, 0], axis=0), (1,)), slack)
    agree(numbabn.moments(x, where=where), reference.moments(x[where], (1,)), slack)
    weighted, omitted = numbabn.moments(x, weights=times), numbabn.moments(holes, nan_policy="omit")
    for c in range(channels):
        column = slice(c, c + 1)
        for m, left in ((weighted, np.repeat(x[:, c], times[:, c])), (omitted, x[~np.isnan(holes[:, c]), c])):
            one = Moments(m.count[column], m.mean[column], m.m2[column])
            agree(one, reference.moments(left[:, None], (1,)), slack)


@pytest.mark.parametrize("case", [ROWS, PLANES, PIECES], ids=str)
def test_raise(case: Case) -> None:
    x, last = draw(case, np.float32), np.prod(case.channel_shape, dtype=int) - 1
    one, two, three = (np.unravel_index(c, case.channel_shape) for c in (0, 1, last))
    by_channel = np.moveaxis(x, case.kept, range(len(case.kept)))  # a view
    by_channel[one].flat[:2], by_channel[two].flat[0], by_channel[three].flat[-1] = (np.inf, -np.inf), np.nan, np.nan
    out, before = np.full(case.shape, 7, np.float32), x.copy()
    named = r"channels \(0, 1\) and \(2, 2\)" if len(case.kept) > 1 else f"channels 1 and {last}"
    for call in (lambda **k: numbabn.moments(x, **k), lambda **k: numbabn.batch_norm(x, out=out, **k),
                 lambda **k: numbabn.batch_norm(x, out=x, **k)):  # fmt: skip
        with pytest.raises(ValueError, match=f"NaN in {named} and `nan_policy` is 'raise'"):
            call(axis=case.axis, nan_policy="raise")
        assert (out == 7).all()
        assert x.tobytes() == before.tobytes()
    where = ~np.isnan(x)
    for pick in ({"where": where}, {"weights": where.astype(float)}):  # both infinities: no number, and no NaN in x
        m = numbabn.moments(x, axis=case.axis, nan_policy="raise", **pick)
        assert np.isnan(m.mean).sum() == 1
        agree_but_for(m, reference.moments(np.where(np.isfinite(x), x, 0), case.kept, where & np.isfinite(x)))
    assert np.isnan(numbabn.moments(np.where(where, x, 0), axis=case.axis, nan_policy="raise").mean).sum() == 1


def agree_but_for(m: Moments, expected: tuple[Any, np.ndarray, np.ndarray]) -> None:
    fine = np.isfinite(m.mean)
    agree(Moments(m.count[fine], m.mean[fine], m.m2[fine]), tuple(e[fine] for e in expected))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"where": np.ones((4, 3))}, TypeError, "`where` has dtype float64; expected booleans"),
        ({"where": np.ones(5, bool)}, ValueError, r"`where` has shape \(5,\), which does not broadcast"),
        ({"where": np.ones((1, 4, 3), bool)}, ValueError, r"`where` has shape \(1, 4, 3\)"),
        ({"weights": np.ones((3, 4))}, ValueError, r"`weights` has shape \(3, 4\)"),
        ({"weights": np.ones(4, complex)}, TypeError, "`weights` has dtype complex128; expected real"),
        ({"weights": [1, 1, -1, 1]}, ValueError, "negative, infinite or NaN weight"),
        ({"weights": [1, 1, np.nan, 1]}, ValueError, "negative, infinite or NaN weight"),
        ({"weights": [1, 1, np.inf, 1]}, ValueError, "negative, infinite or NaN weight"),
        ({"nan_policy": "skip"}, ValueError, "`nan_policy` is 'skip'; expected one of 'propagate', 'raise', 'omit'"),
        ({"nan_policy": 3}, TypeError, "`nan_policy` is 3; expected one of"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], match: str) -> None:
    x, out = np.ones((4, 3)), np.full((4, 3), 7.0)
    for call in (lambda: numbabn.moments(x, **options), lambda: numbabn.batch_norm(x, out=out, **options)):
        with pytest.raises(error, match=match):
            call()
    assert (out == 7).all()


MANY_WEIGHTS = {
    "rows": ((700_000, 2), -1, (700_000,)),
    "rows by themselves": ((600_000, 9), -1, (600_000,)),
    "each value": ((300_000, 2), -1, (300_000, 2)),
    "wide rows": ((40, 40_000), -1, (40, 40_000)),
    "planes": ((60, 3, 100, 100), 1, (60, 1, 100, 100)),
    "many planes": ((20, 70, 20, 20), 1, (20, 70, 20, 20)),
    "pieces": ((40, 4, 50, 4, 30), (1, 3), (40, 4, 50, 4, 30)),
}


@pytest.mark.parametrize("kind", ["where", "weights"])
@pytest.mark.parametrize("channels", [4, 5, 7, 8, 16, 31, 33])
def test_long_tables_by_the_row(channels: int, kind: str) -> None:
    """Rows that are packed, or taken by themselves in tiles as long as they get, and what is left of them."""
    rng = np.random.default_rng(channels)
    x = rng.normal(1000, 1, (17_000 * (1 + 40 // channels) + 5, channels)).astype(np.float32)
    each = values(kind, x.shape[:1])
    agree(numbabn.moments(x, **{kind: each}), reference.moments(x, (1,), each[:, None]))


@pytest.mark.parametrize("layout", MANY_WEIGHTS)
@pytest.mark.parametrize("bad", [-1e-30, np.nan, np.inf])
def test_one_of_many_weights_is_refused_wherever_it_lies(layout: str, bad: float) -> None:
    shape, axis, of = MANY_WEIGHTS[layout]
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=shape).astype(np.float32), rng.random(of)
    fine = numbabn.moments(x, axis=axis, weights=weights)
    bn = numbabn.BatchNorm(fine.mean.shape, axis=axis)
    assert fine == bn.update(x, weights=weights)  # which looks through them first
    where = np.zeros(shape, bool)
    for place in (0, weights.size - 1, *rng.integers(weights.size, size=4)):
        spoilt = weights.copy()
        spoilt.flat[place] = bad
        for options in ({}, {"where": where}):
            for call in (partial(numbabn.moments, axis=axis), bn.update):
                with pytest.raises(ValueError, match="`weights` holds a negative, infinite or NaN weight"):
                    call(x, weights=spoilt, **options)
    assert fine == numbabn.moments(x, axis=axis, weights=weights)


def test_bad_weights_of_nothing_are_refused_too() -> None:
    for n in (1_000, 600_000):
        with pytest.raises(ValueError, match="negative, infinite or NaN weight"):
            numbabn.moments(np.zeros((n, 0)), weights=np.full(n, -1.0))


@pytest.mark.parametrize("kind", ["where", "weights"])
def test_one_odd_first_row_costs_no_digits(kind: str) -> None:
    """The first value is the pivot of the first tile alone, as long as later ones may be."""
    rng = np.random.default_rng(0)
    x = rng.normal(1e6, 1, (32_000, 8))
    x[0] = 0.0
    m = numbabn.moments(x, **{kind: np.ones(len(x), bool)})
    exact = x.astype(np.longdouble)
    m2 = ((exact - exact.mean(axis=0)) ** 2).sum(axis=0).astype(float)
    np.testing.assert_allclose(m.m2, m2, rtol=4e-11)


def _along(parameter: np.ndarray, case: Case) -> np.ndarray:
    return reference.along(parameter, case.kept, len(case.shape))
