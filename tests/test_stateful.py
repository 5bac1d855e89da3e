"""Random sequences of calls on a BatchNorm, beside an independent model; inference never changes a bit.

Every rule of averaging takes part, with every kind of momentum.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model import Model

from numbabn import BatchNorm

CHANNELS = 3
masks = st.one_of(st.none(), st.integers(0, 2**16))
batches = st.tuples(st.integers(0, 12), st.integers(0, 2**16), st.sampled_from([np.float32, np.float64]), st.booleans())


def harmonic(batches: int) -> float:
    """A schedule that is a function: 1, 1/2, 1/3, ..."""
    return 1 / (batches + 1)


momenta = st.sampled_from([0.1, 0.5, 1.0, 0.0, (0.5, 0.0, 0.25), harmonic])
rules = st.one_of(
    st.fixed_dictionaries(
        {"average": st.sampled_from(["exponential", "debiased", "mixture", "debiased-mixture"]), "momentum": momenta}
    ),
    st.sampled_from([{"momentum": None}, {"average": "equal"}]),
    st.fixed_dictionaries({"average": st.just("window"), "window": st.integers(1, 4)}),
)


def made(drawn: tuple[int, int, Any, bool]) -> np.ndarray:
    """(values, channels), sometimes with NaN or infinity in some channels, sometimes with a large offset."""
    n, seed, dtype, sick = drawn
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.choice([0, 10, -100]), rng.uniform(0.1, 3), (n, CHANNELS)).astype(dtype)
    if sick and n:
        x[rng.integers(n), rng.choice(CHANNELS, rng.integers(1, CHANNELS + 1), replace=False)] = rng.choice(
            [np.nan, np.inf]
        )
    return x


def mask(seed: int | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Which values count: half of them, and in one channel of four none."""
    if seed is None:
        return None
    rng = np.random.default_rng(seed)
    return (rng.random(shape) < 0.5) & (rng.random(shape[1]) < 0.75)


def laid(x: np.ndarray, axis: int) -> np.ndarray:
    """With the channels along `axis`."""
    return x if axis == 1 else np.ascontiguousarray(x.T)


class Life(RuleBasedStateMachine):
    """What a BatchNorm goes through."""

    @initialize(
        given=rules,
        ddof=st.sampled_from([0, 1]),
        axis=st.sampled_from([0, 1]),
        gamma=st.sampled_from([None, 2.0, [1.0, -1.0, 0.5]]),
    )
    def begin(self, given: dict[str, Any], ddof: int, axis: int, gamma: Any) -> None:
        self.axis = axis
        self.make = lambda: BatchNorm(CHANNELS, axis=axis, ddof=ddof, gamma=gamma, beta=0.25, **given)
        self.model_of = lambda: Model(CHANNELS, ddof=ddof, gamma=1.0 if gamma is None else gamma, beta=0.25, **given)
        self.bn, self.model = self.make(), self.model_of()

    def bits(self) -> dict[str, bytes]:
        return {k: np.asarray(v).tobytes() for k, v in self.bn.state_dict().items()}

    def same(self, y: np.ndarray, exact: np.ndarray) -> None:
        unit = 1e-6 if y.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(laid(y, self.axis), exact, rtol=unit, atol=unit * 100)

    @rule(drawn=batches, masked=masks, out=st.sampled_from(["fresh", "given", "in-place"]))
    def train(self, drawn: Any, masked: int | None, out: str) -> None:
        values = made(drawn)
        x, where = laid(values, self.axis).copy(), mask(masked, values.shape)
        exact, into = self.model.trained(values, where), {"fresh": None, "given": np.empty_like(x), "in-place": x}[out]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            y = self.bn(x, training=True, out=into, where=None if where is None else laid(where, self.axis))
        assert out == "fresh" or y is into
        assert out == "in-place" or np.array_equal(x, laid(values, self.axis), equal_nan=True)
        self.same(y, exact)
        self.model.learn(values, where)

    @rule(drawn=batches, masked=masks)
    def update(self, drawn: Any, masked: int | None) -> None:
        values = made(drawn)
        where = mask(masked, values.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            m = self.bn.update(laid(values, self.axis), where=None if where is None else laid(where, self.axis))
        assert np.equal(m.count, len(values) if where is None else where.sum(axis=0)).all()
        self.model.learn(values, where)

    @rule(
        drawn=batches,
        out=st.sampled_from(["fresh", "given", "in-place"]),
        flag=st.sampled_from([False, np.array(False)]),
    )
    def infer(self, drawn: Any, out: str, flag: Any) -> None:
        values, before = made(drawn), self.bits()
        x = laid(values, self.axis).copy()
        into = {"fresh": None, "given": np.empty_like(x), "in-place": x}[out]
        y = self.bn(x, training=flag, out=into)
        assert self.bits() == before
        self.same(y, self.model.inferred(values))

    @rule(drawn=batches, how=st.sampled_from(["channels", "dtype", "out", "overlap", "flag", "merge", "gamma", "load"]))
    def refuse(self, drawn: Any, how: str) -> None:
        x, before = laid(made(drawn), self.axis), self.bits()
        wide = np.zeros((CHANNELS + 2, CHANNELS + 2))
        try:
            match how:
                case "channels":
                    self.bn(wide, training=True)
                case "dtype":
                    self.bn(x.astype(complex), training=True)
                case "out":
                    self.bn(x, training=True, out=np.zeros(x.shape, int))
                case "overlap":
                    base = np.zeros((CHANNELS, CHANNELS + 1) if self.axis == 0 else (CHANNELS + 1, CHANNELS))
                    a, b = (base[:, :-1], base[:, 1:]) if self.axis == 0 else (base[:-1], base[1:])
                    self.bn(a, training=True, out=b)
                case "flag":
                    self.bn(x, training=1)
                case "merge":
                    self.bn.merge(BatchNorm(CHANNELS + 1))
                case "gamma":
                    self.bn.gamma = [1.0, 2.0]
                case "load":
                    self.bn.load_state_dict(self.bn.state_dict() | {"running_var": [-1.0] * CHANNELS})
        except (TypeError, ValueError):
            assert self.bits() == before
        else:
            raise AssertionError(f"{how} was not refused")

    @rule(drawn=batches, mine_first=st.booleans())
    def merge(self, drawn: Any, mine_first: bool) -> None:
        values = np.nan_to_num(made(drawn), nan=1.0, posinf=2.0)
        other, other_model = self.make(), self.model_of()
        other.update(laid(values, self.axis))
        other_model.learn(values)
        if self.bn.average == "window":
            before = self.bits()
            with pytest.raises(ValueError, match="cannot be merged"):
                self.bn.merge(other)
            assert self.bits() == before
            return
        if not mine_first:
            (self.bn, other), (self.model, other_model) = (other, self.bn), (other_model, self.model)
        self.bn.merge(other)
        self.model.merge(other_model)

    @rule(how=st.sampled_from(["copy", "pickle", "state_dict", "file"]))
    def move(self, how: str) -> None:
        before, old = self.bits(), self.bn
        if how == "copy":
            self.bn = old.copy()
        elif how == "pickle":
            self.bn = pickle.loads(pickle.dumps(old))
        elif how == "file":
            with tempfile.TemporaryDirectory() as folder:
                old.save(Path(folder) / "bn.npz")
                again = {"momentum": old.momentum} if callable(old.momentum) else {}
                self.bn = BatchNorm.load(Path(folder) / "bn.npz", **again)
        else:
            self.bn = self.make()
            self.bn.load_state_dict(old.state_dict())
        assert self.bn == old
        old.reset()
        assert self.bits() == before

    @rule()
    def reset(self) -> None:
        self.bn.reset()
        self.model.reset()
        assert self.bn == self.make()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "bn"):
            return
        assert self.bn.num_batches == self.model.batches
        assert np.array_equal(self.bn.count, self.model.count)
        np.testing.assert_allclose(self.bn.running_mean, self.model.mean, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(self.bn.running_var, self.model.var, rtol=1e-9, atol=1e-10)
        assert str(self.model.batches) in repr(self.bn) or self.model.batches == 0


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30)
