"""What holds for any data: found by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numbabn.kernels import reference

import numbabn
from numbabn import Moments

values = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@st.composite
def arrays(draw: st.DrawFn, most_dims: int = 4) -> tuple[np.ndarray, tuple[int, ...]]:
    """An array of up to four dimensions in some layout, and channel axes of it."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=most_dims, min_side=1, max_side=9))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = draw(hnp.arrays(dtype, shape, elements=values))
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    x = x[tuple(slice(None, None, draw(st.sampled_from([1, 1, -1, 2, -3]))) for _ in range(x.ndim))]
    axes = draw(st.lists(st.integers(0, x.ndim - 1), unique=True, max_size=x.ndim))
    return x, tuple(axes)


def close(a: Moments, b: Moments, magnitude: float) -> None:
    """The same moments, up to rounding of values of this magnitude."""
    assert np.array_equal(np.broadcast_to(a.count, a.mean.shape), np.broadcast_to(b.count, b.mean.shape))
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-13, atol=1e-13 * magnitude)
    np.testing.assert_allclose(a.m2, b.m2, rtol=1e-10, atol=1e-13 * magnitude**2)


def size_of(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0)) or 1.0


@given(arrays())
def test_agrees_with_the_reference(drawn: tuple[np.ndarray, tuple[int, ...]]) -> None:
    x, axes = drawn
    m = numbabn.moments(x, axis=axes)
    close(m, Moments(*reference.moments(x, tuple(sorted(axes)))), size_of(x))
    y, m_ = numbabn.batch_norm(x, axis=axes)
    assert m == m_
    exact = reference.normalize(x, tuple(sorted(axes)), m.mean, m.var())
    roundoff = 2.0**-24 if x.dtype == np.float32 else 2.0**-51
    np.testing.assert_allclose(y, exact, rtol=1.01 * roundoff, atol=1e-12)


@given(arrays(), st.data())
def test_split_anywhere_and_merge(drawn: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject) -> None:
    x, axes = drawn
    reduced = [d for d in range(x.ndim) if d not in axes]
    assume(reduced)
    d = data.draw(st.sampled_from(reduced))
    cuts = sorted(data.draw(st.lists(st.integers(0, x.shape[d]), max_size=4)))
    parts = [numbabn.moments(p, axis=axes) for p in np.split(x, cuts, axis=d)]
    whole = numbabn.moments(x, axis=axes)
    close(sum(parts[1:], parts[0]), whole, size_of(x))
    close(Moments.merge_all(data.draw(st.permutations(parts))), whole, size_of(x))


@given(arrays(), st.data())
def test_order_of_the_values_does_not_matter(drawn: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject) -> None:
    x, axes = drawn
    whole = numbabn.moments(x, axis=axes)
    reduced = [d for d in range(x.ndim) if d not in axes]
    if reduced:
        d = data.draw(st.sampled_from(reduced))
        shuffled = x.take(data.draw(st.permutations(range(x.shape[d]))), axis=d)
        close(numbabn.moments(shuffled, axis=axes), whole, size_of(x))
    perm = data.draw(st.permutations(range(x.ndim)))
    turned = numbabn.moments(x.transpose(perm), axis=tuple(perm.index(a) for a in axes))
    # The channels come in the order of their axes.
    kept = sorted(axes)
    back = sorted(range(len(kept)), key=lambda k: perm.index(kept[k]))
    assert turned.mean.shape == tuple(whole.mean.shape[k] for k in back)
    close(turned, Moments(whole.count, whole.mean.transpose(back), whole.m2.transpose(back)), size_of(x))


@given(arrays(), st.integers(-8, 8), st.integers(-1000, 1000))
def test_scale_and_shift(drawn: tuple[np.ndarray, tuple[int, ...]], power: int, shift: int) -> None:
    x, axes = drawn
    x = x.astype(np.float64)
    m = numbabn.moments(x, axis=axes)
    scaled = numbabn.moments(x * 2.0**power, axis=axes)
    # By a power of two every step scales exactly.
    assume(not ((np.abs(x) < 1e-100) & (x != 0)).any())
    assert np.array_equal(scaled.mean, m.mean * 2.0**power)
    assert np.array_equal(scaled.m2, m.m2 * 4.0**power)
    moved = numbabn.moments(x + shift, axis=axes)
    close(moved, Moments(m.count, m.mean + shift, m.m2), size_of(x) + abs(shift))


@given(arrays(), st.integers(1, 3))
def test_repeated_data_have_the_same_variance(drawn: tuple[np.ndarray, tuple[int, ...]], times: int) -> None:
    x, axes = drawn
    reduced = [d for d in range(x.ndim) if d not in axes]
    assume(reduced)
    m = numbabn.moments(x, axis=axes)
    again = numbabn.moments(np.concatenate([x] * times, axis=reduced[0]), axis=axes)
    close(again, Moments(m.count * times, m.mean, m.m2 * times), size_of(x))


@given(arrays(), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 1))
def test_normalized_output_has_the_moments_it_should(
    drawn: tuple[np.ndarray, tuple[int, ...]], gamma: float, beta: float, eps: float
) -> None:
    x, axes = drawn
    x = x.astype(np.float64)
    y, m = numbabn.batch_norm(x, gamma, beta, eps=eps, axis=axes)
    out = numbabn.moments(y, axis=axes)
    lively = m.var() > 1e-6 * size_of(x) ** 2
    np.testing.assert_allclose(out.mean, np.full(out.mean.shape, beta), rtol=0, atol=1e-9 * (gamma + abs(beta)))
    expected = gamma**2 * m.var() / np.maximum(m.var() + eps, np.finfo(float).tiny)
    lively &= expected > 1e-12 * beta**2  # else it is lost in the rounding of y
    np.testing.assert_allclose(out.var()[lively], expected[lively], rtol=1e-8)


@given(arrays(), st.data())
def test_normalize_and_denormalize_are_inverse(drawn: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject) -> None:
    x, axes = drawn
    x = x.astype(np.float64)
    shape = tuple(x.shape[a] for a in sorted(axes))
    mean, var, gamma, beta = (
        data.draw(hnp.arrays(np.float64, shape, elements=st.floats(lo, hi)))
        for lo, hi in ((-1e3, 1e3), (1e-2, 1e4), (0.1, 10), (-10, 10))
    )
    y = numbabn.normalize(x, mean, var, gamma, beta, axis=axes)
    back = numbabn.denormalize(y, mean, var, gamma, beta, axis=axes)
    np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-9)


@given(arrays(), st.floats(0, 1), st.sampled_from([None, "ema"]))
def test_inference_never_changes_state(
    drawn: tuple[np.ndarray, tuple[int, ...]], momentum: float, kind: str | None
) -> None:
    x, axes = drawn
    channels = tuple(x.shape[a] for a in sorted(axes))
    bn = numbabn.BatchNorm(channels, axis=tuple(sorted(axes)), momentum=momentum if kind else None)
    bn(x, training=True)
    before = bn.state_dict()
    bn(x)
    bn(x, training=False, out=x.copy())
    after = bn.state_dict()
    assert {k: np.asarray(v).tobytes() for k, v in before.items()} == {
        k: np.asarray(v).tobytes() for k, v in after.items()
    }
