"""Moments: a frozen value; merging in any order, with one count or a count for each channel."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest

import numbabn
from numbabn import Moments

A = Moments(3, [1.0, 2.0], [0.5, 8.0])
B = Moments([2, 4], [5.0, -1.0], [1.0, 0.25])
EMPTY = Moments(0, [0.0, 0.0], [0.0, 0.0])


def bits(m: Moments) -> tuple[bytes, ...]:
    return tuple(np.asarray(v).tobytes() for v in (m.count, m.mean, m.m2))


def test_merge_is_chans_formula() -> None:
    m = A + B
    assert m.count.tolist() == [5, 7]
    np.testing.assert_allclose(m.mean, [(3 * 1 + 2 * 5) / 5, (3 * 2 - 4 * 1) / 7], rtol=1e-15)
    np.testing.assert_allclose(m.m2, [0.5 + 1 + 16 * 3 * 2 / 5, 8 + 0.25 + 9 * 3 * 4 / 7], rtol=1e-15)


def test_scalar_counts_stay_scalar() -> None:
    m = A + A
    assert isinstance(m.count, float)
    assert m.count == 6
    assert isinstance((A + B).count, np.ndarray)


def test_merging_with_nothing_changes_no_bit() -> None:
    strange = Moments([1, 7], [np.inf, -0.0], [np.nan, 0.0])
    for m in (A, B, strange):
        assert (m + EMPTY) == m == (EMPTY + m)
        for merged in (m + EMPTY, EMPTY + m):
            assert merged.mean.tobytes() == m.mean.tobytes()
            assert merged.m2.tobytes() == m.m2.tobytes()
    assert EMPTY + EMPTY == EMPTY


def test_some_channels_empty() -> None:
    m = Moments([0, 2], [0.0, 1.0], [0.0, 3.0]) + Moments([5, 0], [7.0, 0.0], [2.0, 0.0])
    assert m == Moments([5, 2], [7.0, 1.0], [2.0, 3.0])


def test_sum_and_merge_all() -> None:
    parts = [A, B, EMPTY, A]
    total = Moments.merge_all(iter(parts))
    assert np.array_equal(total.count, [8, 10])
    for other in (sum(parts), A + B + A, Moments.merge_all(parts[::-1])):
        np.testing.assert_allclose(other.mean, total.mean, rtol=1e-14)
        np.testing.assert_allclose(other.m2, total.m2, rtol=1e-14)
    assert Moments.merge_all([A]) is A


def test_merge_all_of_many_is_as_exact_as_one() -> None:
    x = np.random.default_rng(0).normal(1e6, 1, (4_097, 1))
    parts = [numbabn.moments(row[None]) for row in x]
    np.testing.assert_allclose(Moments.merge_all(parts).var(), numbabn.moments(x).var(), rtol=1e-9)


def test_merge_all_refuses() -> None:
    with pytest.raises(ValueError, match="no parts"):
        Moments.merge_all([])
    with pytest.raises(TypeError, match="a part is int"):
        Moments.merge_all([A, 3])  # type: ignore[list-item]


def test_merge_refuses() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        A + Moments(1, [0.0] * 3, [0.0] * 3)
    with pytest.raises(TypeError):
        A + 1
    with pytest.raises(TypeError):
        1 + A


def test_nonfinite_parts() -> None:
    inf = Moments(2, [np.inf, 1.0], [np.nan, 1.0])
    m = inf + A
    assert np.isposinf(m.mean[0])
    assert np.isnan(m.m2[0])
    assert np.isfinite(m.mean[1])
    assert np.isnan((inf + Moments(2, [-np.inf, 0.0], [np.nan, 0.0])).mean[0])
    assert np.isnan((A + Moments(1, [np.nan, 0.0], [0.0, 0.0])).mean[0])


def test_means_whose_difference_overflows() -> None:
    m = Moments(1, [1.5e308], [0.0]) + Moments(1, [-1.5e308], [0.0])
    assert m.mean.tolist() == [0.0]
    assert np.isposinf(m.m2).all()


def test_variance_and_divisors() -> None:
    m = Moments([4, 1, 0], [0.0, 0.0, 0.0], [8.0, 0.0, 0.0])
    assert np.array_equal(m.var(), [2, 0, np.nan], equal_nan=True)
    assert np.array_equal(m.var(ddof=1), [8 / 3, np.nan, np.nan], equal_nan=True)
    assert m.std()[0] == math.sqrt(2)
    assert m.var(ddof=0.5)[0] == 8 / 3.5


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        A.count = 5
    for m in (A, B, pickle.loads(pickle.dumps(B)), copy.deepcopy(B), copy.copy(B), A + B):
        for array in (m.mean, m.m2, *([m.count] if isinstance(m.count, np.ndarray) else [])):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_it_keeps_its_own_copy() -> None:
    mean, m2, count = np.ones(2), np.ones(2), np.ones(2)
    m = Moments(count, mean, m2)
    mean[0] = m2[0] = count[0] = 9
    assert m == Moments([1, 1], [1, 1], [1, 1])


def test_equality() -> None:
    assert Moments(3, [1.0, 2.0], [0.5, 8.0]) == A
    assert Moments([3, 3], [1.0, 2.0], [0.5, 8.0]) == A
    assert Moments(4, [1.0, 2.0], [0.5, 8.0]) != A
    assert Moments(3, [1.0, 2.5], [0.5, 8.0]) != A
    assert Moments(3, [1.0, 2.0], [0.5, 8.5]) != A
    assert Moments(3, [[1.0, 2.0]], [[0.5, 8.0]]) != A
    assert Moments(3, [np.nan], [np.nan]) == Moments(3, [np.nan], [np.nan])
    assert A != "A"
    with pytest.raises(TypeError, match="unhashable"):
        hash(A)


@pytest.mark.parametrize(
    "m", [A, B, EMPTY, Moments(2, [1e-310, -0.0], [5e-324, 1e308]), Moments(2, 1.5, 2.5)], ids=repr
)
def test_dict_through_json_gives_the_same_bits(m: Moments) -> None:
    assert bits(Moments.from_dict(json.loads(json.dumps(m.to_dict())))) == bits(m)
    assert bits(pickle.loads(pickle.dumps(m))) == bits(m)


def test_dict_refuses() -> None:
    with pytest.raises(ValueError, match="lacks count, m2"):
        Moments.from_dict({"mean": [1.0]})


@pytest.mark.parametrize(
    ("count", "mean", "m2", "sentence"),
    [
        (1, [1.0], [1.0, 2.0], "have shapes"),
        ([1, 2, 3], [1.0], [1.0], "have shapes"),
        (-1, [1.0], [1.0], "`count` is negative"),
        (np.nan, [1.0], [1.0], "`count` is negative or not finite"),
        (np.inf, [1.0], [1.0], "`count` is negative or not finite"),
        (1, [1.0, 2.0], [1.0, -1.0], "`m2` is negative in channel 1"),
        (1, 0.0, -1.0, "`m2` is negative"),
    ],
)
def test_refuses(count: object, mean: object, m2: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Moments(count, mean, m2)  # type: ignore[arg-type]


def test_repr_tells_count_and_summary() -> None:
    assert repr(A) == "Moments(count=3, channels=(2,), mean=[1, 2], std=[0.4082, 1.633])"
    assert "count=2 to 4" in repr(B)
    assert "mean=0..3" in repr(Moments(2, np.arange(4.0), np.zeros(4)))
    assert "channels=(0,)" in repr(Moments(0, [], []))
    assert "count=0" in repr(EMPTY)
    assert "channels=()" in repr(Moments(2, 1.5, 2.5))
