"""BatchNorm: running averages, flags, policies; against an independent model in plain NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from model import Model

import numbabn
from numbabn import BatchNorm

RNG = np.random.default_rng(0)
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"momentum": 0.3},
    {"decay": 0.75},
    {"momentum": 1},
    {"momentum": 0},
    {"momentum": None},
    {"average": "cumulative"},
    {"momentum": (0.5, 0.25, 0.1)},
    {"average": "debiased"},
    {"average": "debiased", "momentum": 1},
    {"average": "debiased", "momentum": 0},
    {"average": "debiased", "momentum": (0.0, 0.5, 0.0, 0.2)},
    {"average": "mixture", "momentum": 0.3},
    {"average": "mixture", "momentum": (1.0, 0.5)},
    {"average": "debiased-mixture"},
    {"average": "debiased-mixture", "momentum": (0.9, 0.3, 0.01)},
    {"average": "equal"},
    {"average": "window", "window": 1},
    {"average": "window", "window": 4},
)


def momentum_of(batches: int) -> float:
    return 1 / (batches + 2)


def batch(n: int = 40, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, n])
    return rng.normal(rng.normal(size=channels) * 5, rng.uniform(0.5, 2, channels), (n, channels))


def bits(bn: BatchNorm) -> dict[str, bytes]:
    return {k: np.asarray(v).tobytes() for k, v in bn.state_dict().items()}


def assert_like(bn: BatchNorm, model: Model) -> None:
    assert bn.num_batches == model.batches
    assert np.array_equal(bn.count, model.count)
    np.testing.assert_allclose(bn.running_mean, model.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bn.running_var, model.var, rtol=1e-11)


def model_of(rule: dict[str, Any], **more: Any) -> Model:
    """A model of the same rule; it knows momentum alone."""
    given = dict(rule)
    if "decay" in given:
        given["momentum"] = 1 - given.pop("decay")
    return Model(3, **given, **more)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_many_batches_follow_the_model(rule: dict[str, Any], ddof: int) -> None:
    gamma, beta = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, -1.0])
    bn = BatchNorm(3, gamma=gamma, beta=beta, ddof=ddof, eps=1e-3, **rule)
    model = model_of(rule, ddof=ddof, gamma=gamma, beta=beta, eps=1e-3)
    assert_like(bn, model)
    for seed, n in enumerate((40, 1, 7, 1000, 2)):
        x = batch(n, seed=seed)
        np.testing.assert_allclose(bn(x, training=True), model.trained(x), rtol=1e-9, atol=1e-9)
        model.learn(x)
        assert_like(bn, model)
        np.testing.assert_allclose(bn(x), model.inferred(x), rtol=1e-10, atol=1e-10)
        bn.update(x[::-1])
        model.learn(x)
    assert_like(bn, model)


@pytest.mark.parametrize(
    ("channels", "axis", "shape"), [((3, 2), (1, 3), (5, 3, 4, 2)), ((), (), (7, 2)), (4, 0, (4, 9))]
)
def test_channel_axes(channels: Any, axis: Any, shape: tuple[int, ...]) -> None:
    bn = BatchNorm(channels, axis=axis, momentum=1.0, eps=0)
    x = RNG.normal(size=shape)
    y = bn(x, training=True)
    kept = axis if isinstance(axis, tuple) else (axis,)
    reduced = tuple(d for d in range(x.ndim) if d not in kept)
    np.testing.assert_allclose(bn.running_mean, x.mean(axis=reduced), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(bn.running_var, x.var(axis=reduced), rtol=1e-12)
    np.testing.assert_allclose(bn(x), y, rtol=1e-12)
    assert bn.channels == bn.running_mean.shape == (channels if isinstance(channels, tuple) else (channels,))


def test_attributes() -> None:
    bn = BatchNorm(2, decay=0.75, eps=0.5, ddof=1, gamma=2, nonfinite="raise")
    assert (bn.momentum, bn.decay, bn.eps, bn.ddof, bn.axis, bn.nonfinite) == (0.25, 0.75, 0.5, 1, -1, "raise")
    assert BatchNorm(2, momentum=None).decay is None
    assert (bn.average, bn.window, BatchNorm(2, momentum=None).average) == ("exponential", None, "cumulative")
    assert (BatchNorm(2, average="window", window=5).window, BatchNorm(2, average="equal").momentum) == (5, None)
    assert BatchNorm(2, momentum=[0.5, 0.25]).decay == (0.5, 0.75)
    assert np.array_equal(bn.gamma, [2, 2])
    assert bn.beta is None
    bn.beta, bn.gamma = [1, 2], None
    assert np.array_equal(bn(np.zeros((1, 2))), [[1, 2]])


TRUE = (True, np.True_, np.array(True), torch.tensor(True), 1 > 0)
NOT_FLAGS = (
    1,
    0,
    None,
    "yes",
    1.0,
    np.int64(1),
    np.array(1),
    np.array([True]),
    torch.tensor(1),
    torch.tensor([True]),
    [],
)


@pytest.mark.parametrize("flag", TRUE, ids=lambda f: type(f).__name__)
def test_training_flag(flag: Any) -> None:
    x, off = batch(), flag == False if isinstance(flag, torch.Tensor) else np.logical_not(flag)  # noqa: E712
    bn = BatchNorm(3)
    bn(x, training=off)
    assert bn.num_batches == 0
    assert bn(x, training=flag).tobytes() == numbabn.batch_norm(x)[0].tobytes()
    assert bn.num_batches == 1


@pytest.mark.parametrize("flag", NOT_FLAGS, ids=repr)
def test_what_is_no_flag(flag: Any) -> None:
    bn = BatchNorm(3)
    with pytest.raises(TypeError, match="`training` is"):
        bn(batch(), training=flag)
    assert bn.num_batches == 0


BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "both": ({"momentum": 0.1, "decay": 0.9}, ValueError, "`momentum` is 0.1 and `decay` is 0.9; give one"),
    "none-and-decay": ({"momentum": None, "decay": 0.9}, ValueError, "`momentum` is None and `decay`"),
    "momentum-high": ({"momentum": 1.1}, ValueError, "`momentum` is 1.1"),
    "momentum-nan": ({"momentum": np.nan}, ValueError, "`momentum` is nan"),
    "momentum-text": ({"momentum": "0.1"}, TypeError, "`momentum` is '0.1'"),
    "decay-low": ({"decay": -0.1}, ValueError, "`decay` is -0.1"),
    "momentum-empty": ({"momentum": []}, ValueError, "`momentum` is empty"),
    "momentum-second": ({"momentum": [0.1, 2]}, ValueError, r"`momentum\[1\]` is 2.0"),
    "momentum-table": ({"momentum": np.ones((2, 2))}, TypeError, r"`momentum\[0\]` is array"),
    "momentum-set": ({"momentum": {0.1}}, TypeError, "`momentum` is {0.1}"),
    "decay-third": ({"decay": (0.1, 0.2, "x")}, TypeError, r"`decay\[2\]` is 'x'"),
    "average": ({"average": "ema"}, ValueError, "`average` is 'ema'; expected one of 'exponential', 'cumulative'"),
    "average-type": ({"average": 1}, TypeError, "`average` is 1"),
    "average-momentum": ({"average": "equal", "momentum": 0.1}, ValueError, "`momentum`.* is 0.1, but average='equal'"),
    "average-decay": ({"average": "cumulative", "decay": 0.75}, ValueError, "is 0.25, but average='cumulative'"),
    "average-none": (
        {"average": "debiased", "momentum": None},
        ValueError,
        "`momentum` is None, but average='debiased'",
    ),
    "window-alone": ({"window": 3}, ValueError, "`window` is 3, but average='exponential' would ignore it"),
    "window-missing": ({"average": "window"}, ValueError, "give window=100, for example"),
    "window-zero": ({"average": "window", "window": 0}, ValueError, "`window` is 0; expected 1 batch or more"),
    "window-float": ({"average": "window", "window": 2.5}, TypeError, "`window` is 2.5"),
    "window-several": ({"average": "window", "window": (2,)}, TypeError, r"`window` is \(2,\); expected an int"),
    "window-bool": ({"average": "window", "window": True}, TypeError, "`window` is True"),
    "eps": ({"eps": -1}, ValueError, "`eps` is -1"),
    "ddof": ({"ddof": 2}, ValueError, "`ddof` is 2"),
    "ddof-text": ({"ddof": "1"}, TypeError, "`ddof` is '1'"),
    "policy": ({"nonfinite": "ignore"}, ValueError, "`nonfinite` is 'ignore'"),
    "policy-type": ({"nonfinite": None}, TypeError, "`nonfinite` is None"),
    "backend": ({"backend": "tpu"}, ValueError, "`backend` is 'tpu'"),
    "gamma": ({"gamma": [1, 2]}, ValueError, "`gamma` has shape"),
    "beta": ({"beta": "x"}, TypeError, "`beta` is str"),
    "axis-count": ({"axis": (0, 1)}, ValueError, "`axis` is"),
    "axis-type": ({"axis": 1.5}, TypeError, r"`axis` is .*1\.5"),
    "channels-negative": ({"channels": -3}, ValueError, "`channels` is -3"),
    "channels-float": ({"channels": 3.0}, TypeError, "`channels` is 3.0"),
    "channels-bool": ({"channels": True}, TypeError, "`channels` is True"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name: str) -> None:
    given, error, sentence = BAD_OPTIONS[name]
    with pytest.raises(error, match=sentence):
        BatchNorm(**({"channels": 3} | given))


def test_refused_calls_change_nothing() -> None:
    bn = BatchNorm(3, axis=1)
    bn.update(batch())
    before = bits(bn)
    with pytest.raises(ValueError, match="`running_mean` has 3 channels but `x` has 4 along axis 1"):
        bn(np.zeros((5, 4)), training=True)
    with pytest.raises(np.exceptions.AxisError, match="`axis` is 1"):
        bn.update(np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        BatchNorm((3, 2), axis=(0, 1))(np.zeros((2, 3)))
    for attribute in ("gamma", "beta"):
        with pytest.raises(ValueError, match=f"`{attribute}` has shape"):
            setattr(bn, attribute, [1, 2])
    assert bits(bn) == before


def test_repr_tells_count_and_summary() -> None:
    bn = BatchNorm(2, axis=1, momentum=0.5)
    assert repr(bn) == "<BatchNorm(2, axis=1, momentum=0.5, eps=1e-05): nothing learned yet>"
    bn = BatchNorm(2, axis=1, momentum=1.0)
    bn.update([[1.0, 2.0], [3.0, 2.0]])
    for words in ("2 values per channel", "mean [2, 2]", "std [1, 0]"):
        assert words in repr(bn)
    with pytest.warns(RuntimeWarning, match="channel 1"):
        bn.update([[1.0, np.nan]])
    assert "2 to 3 values per channel" in repr(bn)
    assert "BatchNorm((2, 3), axis=(0, 1)" in repr(BatchNorm((2, 3), axis=(0, 1)))
    for given, words in (
        ({"momentum": None}, "momentum=None"),
        ({"average": "debiased"}, "average='debiased', momentum=0.1"),
        ({"average": "equal"}, "average='equal', eps"),
        ({"average": "window", "window": 7}, "average='window', window=7"),
        ({"momentum": (0.5, 0.25)}, "momentum=(0.5, 0.25)"),
        ({"momentum": [1 / (k + 1) for k in range(20)]}, "momentum=(1, 0.5, ..., 0.05)"),
        ({"momentum": momentum_of}, "momentum=momentum_of"),
        ({"decay": momentum_of}, "momentum=1 - momentum_of"),
    ):
        assert words in repr(BatchNorm(2, **given))


@pytest.mark.parametrize("channels", [3, 0])
@pytest.mark.parametrize("momentum", [0.5, None])
def test_empty_batch_changes_nothing(momentum: float | None, channels: int) -> None:
    bn = BatchNorm(channels, momentum=momentum)
    before = bits(bn)
    x = np.empty((0 if channels else 5, channels), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = bn(x, training=True)
        assert bn.update(x).count == 0
        assert bn(x).shape == x.shape
    assert y.shape == x.shape
    assert y.dtype == np.float32
    assert bits(bn) == before
    assert "nothing learned yet" in repr(bn)


def test_one_value_per_channel_gives_beta_and_variance_0() -> None:
    for ddof in (0, 1):
        bn = BatchNorm(2, momentum=0.5, ddof=ddof, beta=[3, 4])
        assert bn(np.array([[7.0, 9.0]]), training=True).tolist() == [[3, 4]]
        assert bn.running_mean.tolist() == [3.5, 4.5]
        assert bn.running_var.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_constant_channel(eps: float) -> None:
    bn = BatchNorm(2, momentum=None, eps=eps, beta=1.5)
    x = np.stack([np.full(50, 0.1), np.arange(50.0)], axis=1)
    assert (bn(x, training=True)[:, 0] == 1.5).all()
    assert bn.running_var[0] == 0
    assert (bn(x)[:, 0] == 1.5).all()
