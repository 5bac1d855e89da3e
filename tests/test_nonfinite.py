"""NaN and infinity in a training batch: skip, raise, propagate."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import numbabn
from numbabn import BatchNorm

FAMILIES = {
    "rows": ((60, 5), -1),
    "planes": ((3, 5, 300), 1),
    "cached": ((3, 40, 300), 1),
    "many-rows": ((40_000, 5), -1),
}


def sick(family: str, value: float, dtype: Any = np.float64) -> tuple[np.ndarray, int]:
    """A batch with one bad value in channel 1 and one in channel 3."""
    shape, axis = FAMILIES[family]
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    by_channel = np.moveaxis(x, axis, -1)
    by_channel[(0,) * (x.ndim - 1)][1] = value
    by_channel[(-1,) * (x.ndim - 1)][3] = value
    return x, axis


def bits(bn: BatchNorm) -> dict[str, bytes]:
    return {k: np.asarray(v).tobytes() for k, v in bn.state_dict().items()}


def ready(x: np.ndarray, axis: int, **options: Any) -> BatchNorm:
    bn = BatchNorm(x.shape[axis], axis=axis, **options)
    bn.update(np.nan_to_num(x, nan=0, posinf=0, neginf=0))
    return bn


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("momentum", [0.5, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_skip(family: str, momentum: float | None, value: float) -> None:
    x, axis = sick(family, value)
    bn = ready(x, axis, momentum=momentum)
    old, batches = bn.state_dict(), bn.num_batches
    with pytest.warns(RuntimeWarning, match="NaN or infinity in channels 1 and 3; their running") as caught:
        y = bn(x, training=True)
    assert caught[0].filename == __file__
    assert bn.num_batches == batches + 1
    bad = np.isin(np.arange(x.shape[axis]), (1, 3))
    healthy = ready(x, axis, momentum=momentum)
    healthy.update(np.where(np.isfinite(x), x, 0))
    for name in ("running_mean", "running_var", "count"):
        now, before = getattr(bn, name), old[name]
        assert now[bad].tobytes() == before[bad].tobytes()
        assert (now[~bad] == getattr(healthy, name)[~bad]).all()
    by_channel = np.moveaxis(y, axis, 0)
    assert np.isnan(by_channel[bad]).all()
    assert np.isfinite(by_channel[~bad]).all()
    assert y.tobytes() == numbabn.batch_norm(x, axis=axis)[0].tobytes()


def test_skip_of_all_channels_leaves_everything_alone() -> None:
    bn = ready(np.ones((4, 2)), 1)
    before = bits(bn)
    with pytest.warns(RuntimeWarning, match="channels 0 and 1"):
        bn.update(np.full((3, 2), np.nan))
    assert bits(bn) == before


def test_skip_as_an_error_changes_nothing_but_the_output() -> None:
    """Warnings turned into errors: the state is not half changed."""
    x, axis = sick("rows", np.nan)
    bn = ready(x, axis)
    before = bits(bn)
    with pytest.raises(RuntimeWarning, match="channels 1 and 3"):
        bn(x, training=True)
    assert bits(bn) == before


def test_the_warning_points_at_the_caller() -> None:
    x, axis = sick("rows", np.nan)
    bn = ready(x, axis)
    with pytest.warns(RuntimeWarning) as caught:
        bn.update(x)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("where", ["fresh", "out", "in-place", "update"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16], ids=lambda t: t.__name__)
@pytest.mark.parametrize("family", FAMILIES)
def test_raise_changes_nothing(family: str, dtype: type, where: str) -> None:
    x, axis = sick(family, np.inf, dtype)
    bn = ready(x, axis, nonfinite="raise")
    before, x_bits = bits(bn), x.tobytes()
    out = x if where == "in-place" else np.full(x.shape, 7, dtype)
    given = {"training": True, "out": None if where == "fresh" else out}
    call = bn.update if where == "update" else functools.partial(bn, **given)
    with pytest.raises(ValueError, match="NaN or infinity in channels 1 and 3; clean it"):
        call(x)
    assert bits(bn) == before
    assert x.tobytes() == x_bits
    assert where == "in-place" or (out == 7).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_raise_gives_the_same_bits_for_sound_batches(family: str) -> None:
    x, axis = sick(family, 0.5, np.float32)
    skip, strict = (
        BatchNorm(x.shape[axis], axis=axis, nonfinite=policy, gamma=2, beta=1) for policy in ("skip", "raise")
    )
    y = skip(x, training=True)
    assert strict(x, training=True).tobytes() == y.tobytes()
    out = np.empty_like(x)
    assert strict(x, training=True, out=out) is out
    assert out.tobytes() == y.tobytes()
    skip.update(x)
    assert bits(strict) == bits(skip)
    assert strict(x, training=True, out=x).tobytes() == y.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("momentum", [0.5, None])
def test_propagate(momentum: float | None, value: float) -> None:
    x, axis = sick("rows", value)
    bn = ready(x, axis, momentum=momentum, nonfinite="propagate")
    bn(x, training=True)
    bad = np.isin(np.arange(5), (1, 3))
    assert np.array_equal(np.isnan(bn.running_var), bad)
    assert np.array_equal(~np.isfinite(bn.running_mean), bad)
    assert (bn.count == 120).all()
    assert np.array_equal(np.isnan(bn(x)).all(axis=0), bad)


def test_inference_takes_nonfinite_values_as_they_are() -> None:
    x, axis = sick("rows", np.nan)
    for policy in ("skip", "raise", "propagate"):
        bn = ready(x, axis, nonfinite=policy)
        before = bits(bn)
        assert np.array_equal(np.isnan(bn(x)), np.isnan(x))
        assert bits(bn) == before
