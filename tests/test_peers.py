"""Beside what people use today: PyTorch's layers, scikit-learn's scaler, and the table of rivals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rivals import EPS, RIVALS, Rival
from sklearn.preprocessing import StandardScaler

import numbabn
from numbabn import BatchNorm

SHAPES = {"1d": (32, 6), "1d-sequence": (8, 6, 11), "2d": (5, 6, 7, 9), "3d": (3, 6, 4, 5, 3)}
LAYERS = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}


def layer(ndim: int, momentum: float | None, dtype: torch.dtype) -> torch.nn.Module:
    made = LAYERS[ndim](6, momentum=momentum, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.weight.copy_(torch.rand(6, generator=generator) + 0.5)
        made.bias.copy_(torch.randn(6, generator=generator))
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("momentum", [0.1, 0.7])
@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_layer_over_many_steps(shape: str, momentum: float, dtype: type) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng(0)
    theirs = layer(len(size), momentum, torch.float32 if dtype == np.float32 else torch.float64)
    ours = BatchNorm(
        6, axis=1, momentum=momentum, ddof=1, gamma=theirs.weight.detach().numpy(), beta=theirs.bias.detach().numpy()
    )
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    for step in range(12):
        x = rng.normal(rng.normal(size=(6, *[1] * (len(size) - 2))), rng.uniform(0.5, 3), size).astype(dtype)
        theirs.train()
        expected = theirs(torch.from_numpy(x)).detach().numpy()
        y = ours(x, training=True)
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y, expected, **tolerance)
        np.testing.assert_allclose(ours.running_mean, theirs.running_mean.numpy(), **tolerance)
        np.testing.assert_allclose(ours.running_var, theirs.running_var.numpy(), **tolerance)
        assert ours.num_batches == int(theirs.num_batches_tracked) == step + 1
        theirs.eval()
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), **tolerance)


def test_pytorch_stores_the_biased_variance_nowhere() -> None:
    """ddof is what tells the two conventions apart; without it the layers differ, so the test above can fail."""
    x = np.random.default_rng(1).normal(size=(4, 6))
    theirs = torch.nn.BatchNorm1d(6, dtype=torch.float64)
    theirs(torch.from_numpy(x))
    biased = BatchNorm(6)
    biased.update(x)
    assert np.abs(biased.running_var - theirs.running_var.numpy()).min() > 1e-4


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda t: t.__name__)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_scikit_learn_partial_fit_is_the_cumulative_average(offset: float, dtype: type) -> None:
    rng = np.random.default_rng(2)
    theirs, ours = StandardScaler(), BatchNorm(5, momentum=None, eps=0)
    everything = []
    for n in (1, 7, 100, 3, 5_000):
        x = (rng.normal(size=(n, 5)) * np.arange(1, 6) + offset).astype(dtype)
        everything.append(x)
        theirs.partial_fit(x)
        ours.update(x)
    np.testing.assert_allclose(ours.running_mean, theirs.mean_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.running_var, theirs.var_, rtol=1e-10)
    assert np.array_equal(ours.count, np.broadcast_to(theirs.n_samples_seen_, 5))
    x = everything[-1]
    tolerance = 1e-9 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(ours(x), theirs.transform(x), atol=tolerance)
    y = ours(x).astype(np.float64)
    restored = numbabn.denormalize(y, ours.running_mean, ours.running_var, eps=0)
    np.testing.assert_allclose(restored, theirs.inverse_transform(y), rtol=1e-12, atol=1e-9)
    whole = numbabn.moments(np.concatenate(everything))
    np.testing.assert_allclose(ours.running_var, whole.var(), rtol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), [((300, 7), 1), ((6, 5, 8, 9), 1), ((6, 8, 9, 5), 3)], ids=str)
@pytest.mark.parametrize("rival", RIVALS, ids=str)
def test_table_of_rivals(rival: Rival, shape: tuple[int, ...], axis: int) -> None:
    """Each rival does the same work as we do, so that benchmarks compare like with like."""
    if rival.name == "JAX" and not rival.available:
        pytest.skip("JAX is among the benchmarks' packages alone")
    assert rival.available
    x = np.random.default_rng(3).normal(2, 3, shape).astype(np.float32)
    y, m = numbabn.batch_norm(x, axis=axis, eps=EPS)
    work = rival.moments(x, axis)
    if work is None:
        assert rival.training(x, axis) is rival.inference(x, axis) is None
        assert len(shape) != 2
        return
    mean, var = work()
    np.testing.assert_allclose(m.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(m.var(), var, rtol=1e-4)
    for make in (rival.training, rival.inference):
        np.testing.assert_allclose(y, make(x, axis)(), atol=1e-4)
    assert np.array_equal(x, np.random.default_rng(3).normal(2, 3, shape).astype(np.float32))
