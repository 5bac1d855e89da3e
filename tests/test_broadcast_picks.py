"""Masks and weights that are broadcast along any axes of x, so that their axes do not touch where those of x do."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
import test_picks
from cases import MEMORY, Case, draw
from numbabn.kernels import reference
from test_picks import values

import numbabn
from numbabn import Moments
from numbabn.layout import canonical

# Of each family, one that is packed, one of rows by themselves, and some that are cut into several items.
CASES = (
    Case("rgb", (6, 11, 13, 3), -1),
    Case("rgb-many", (9, 130, 150, 3), -1),
    Case("one-channel", (7, 9, 31, 1), -1),
    Case("nhwc", (5, 24, 9, 40), -1),
    Case("nhwc-many", (7, 60, 61, 21), -1),
    Case("climate", (12, 60, 90), 2),
    Case("nchw", (5, 3, 40, 52), 1),
    Case("nchw-many", (3, 3, 260, 310), 1),
    Case("ncdhw", (4, 2, 7, 9, 11), 1),
    Case("times", (40, 81, 103), 0),
    Case("maps", (40, 18, 36), (1, 2)),
    Case("zones", (40, 18, 36), 1),
    Case("small-planes", (7, 6, 4, 5), 1),
    Case("alternating", (3, 4, 5, 6, 7), (1, 3)),
    Case("none-kept", (9, 30, 40), ()),
)


def axes_of(case: Case) -> list[tuple[int, ...]]:
    """Every choice of axes."""
    every = range(len(case.shape))
    return list(chain.from_iterable(combinations(every, k) for k in range(len(case.shape) + 1)))


def picks(shape: tuple[int, ...], over: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A mask and weights that have those axes."""
    shape = tuple(n if d in over else 1 for d, n in enumerate(shape))
    return values("where", shape), values("weights", shape)


def agree(m: Moments, x: np.ndarray, case: Case, weight: np.ndarray) -> None:
    test_picks.agree(m, reference.moments(x, case.kept, weight))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_over_any_axes(case: Case) -> None:
    x = draw(case, np.float32, offset=50)
    for over in axes_of(case):
        where, weights = picks(case.shape, over)
        agree(numbabn.moments(x, axis=case.axis, where=where), x, case, where)
        m = numbabn.moments(x, axis=case.axis, weights=weights)
        agree(m, x, case, weights)
        with numbabn.num_threads(1):
            assert m.to_dict() == numbabn.moments(x, axis=case.axis, weights=weights).to_dict()


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[6], CASES[9]], ids=str)
def test_both_over_different_axes(case: Case) -> None:
    x = draw(case, np.float64, offset=50)
    for over, other in zip(axes_of(case), reversed(axes_of(case)), strict=True):
        (where, _), (_, weights) = picks(case.shape, over), picks(case.shape, other)
        m = numbabn.moments(x, axis=case.axis, where=where, weights=weights.astype(np.float32))
        agree(m, x, case, where * weights)


@pytest.mark.parametrize("memory", ["fortran", "crop", "all-reversed", "every-second-value"])
@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[6], CASES[8], CASES[9]], ids=str)
def test_picks_in_any_memory(case: Case, memory: str) -> None:
    x = draw(case, np.float32)
    for over in axes_of(case):
        where, weights = picks(case.shape, over)
        agree(numbabn.moments(x, axis=case.axis, where=MEMORY[memory].of(where)), x, case, where)
        agree(numbabn.moments(x, axis=case.axis, weights=MEMORY[memory].of(weights)), x, case, weights)


@pytest.mark.parametrize("case", [CASES[1], CASES[7]], ids=str)
def test_with_what_else_there_is(case: Case) -> None:
    """Missing values, higher moments, training and a running average, with a mask of samples and weights of lines."""
    x = draw(case, np.float32)
    x[np.random.default_rng(0).random(x.shape) < 0.01] = np.nan
    (where, _), (_, weights) = picks(case.shape, (0,)), picks(case.shape, (1 if case.axis == -1 else 2,))
    options: dict[str, Any] = {"axis": case.axis, "where": where, "weights": weights, "nan_policy": "omit"}
    weight = where * weights * ~np.isnan(x)
    m = numbabn.moments(x, **options, extra="all")
    agree(m, np.nan_to_num(x), case, weight)
    _, _, _, m3, m4 = reference.higher_moments(np.nan_to_num(x), case.kept, weight)
    np.testing.assert_allclose(m.m3, m3, rtol=1e-9, atol=1e-9 * x.size)
    np.testing.assert_allclose(m.m4, m4, rtol=1e-9)
    y, trained = numbabn.batch_norm(x, **options)
    assert trained == numbabn.moments(x, **options)
    same, _ = numbabn.batch_norm(x, **options | {"where": np.broadcast_to(where, x.shape).copy()})
    np.testing.assert_allclose(y, same, rtol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in ("small-planes", "alternating")], ids=str)
def test_no_axis_makes_pieces_of_x(case: Case) -> None:
    """What is taken whole stays so, with a mask over any of the axes that are summed over, with or without channels."""
    x = np.zeros(case.shape, np.float32)
    alone = canonical({"x": x}, case.kept).window()
    assert alone is not None
    for over in axes_of(case):
        if set(case.kept) <= set(over) or not set(case.kept) & set(over):
            where, _ = picks(case.shape, over)
            window = canonical({"x": x}, case.kept, {"where": np.broadcast_to(where, x.shape)}).window(nested=True)
            assert window is not None, over
            if alone.geometry.channels > 1:
                assert window.geometry.shared == alone.geometry.shared


@pytest.mark.parametrize("case", [Case("table", (5_000, 70), -1), CASES[3], Case("planes", (3, 40, 900), 1)], ids=str)
@pytest.mark.parametrize("kind", ["where", "omit"])
def test_channels_that_never_count(case: Case, kind: str) -> None:
    """Stations without data, land in an ocean's archive: they count nothing, and the others are exact beside them."""
    x = draw(case, np.float64, offset=1e6, spread=1.0)
    seen = np.random.default_rng(1).random(case.shape) < 0.5
    never = np.arange(case.channel_shape[0]) % 3 == 0
    seen &= ~reference.along(never, case.kept, x.ndim)
    late = np.zeros(case.shape, bool)
    late[-1:] = True
    seen &= late | reference.along(np.arange(len(never)) % 3 != 1, case.kept, x.ndim)
    if kind == "omit":
        m = numbabn.moments(np.where(seen, x, np.nan), axis=case.axis, nan_policy="omit")
    else:
        m = numbabn.moments(np.where(seen, x, 1e30), axis=case.axis, where=seen)
    agree(m, x, case, seen)
    assert (m.count[never] == 0).all()
