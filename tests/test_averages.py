"""Each way of averaging against its definition, its peers and the others; schedules, files, threads."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from model import Model
from test_batchnorm import batch, bits

import numbabn
from numbabn import BatchNorm, Moments, StateError, averages

RULES: dict[str, dict[str, Any]] = {
    "exponential": {},
    "cumulative": {"momentum": None},
    "debiased": {"average": "debiased"},
    "mixture": {"average": "mixture"},
    "debiased-mixture": {"average": "debiased-mixture"},
    "equal": {"average": "equal"},
    "window": {"average": "window", "window": 3},
}
WEIGHED = [name for name, rule in averages.RULES.items() if rule.weighs]
every_rule = pytest.mark.parametrize("name", RULES)

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=8)
offsets = st.sampled_from([0.0, -30.0, 1e6])
momenta = st.floats(0.001, 1.0)


def stream(sizes: list[int], offset: float, seed: int = 0, channels: int = 2) -> list[np.ndarray]:
    """Batches of these sizes whose mean wanders."""
    rng = np.random.default_rng([seed, len(sizes)])
    return [rng.normal(offset + rng.normal(scale=3), rng.uniform(0.5, 2), (n, channels)) for n in sizes]


def learned(bn: BatchNorm, batches: list[np.ndarray]) -> BatchNorm:
    for x in batches:
        bn.update(x)
    return bn


def harmonic(batches: int) -> float:
    return 1 / (batches + 1)


def halving(batches: int) -> float:
    return 0.5 ** (batches + 1)


def test_the_table_is_whole() -> None:
    assert set(RULES) == set(averages.RULES)
    for name, options in RULES.items():
        assert BatchNorm(2, **options).average == name


# Each rule by its definition ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(RULES) - {"exponential", "mixture"}))
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_first_batch_gives_its_own_statistics(name: str, ddof: int) -> None:
    x = batch(20) + 1e6
    bn = BatchNorm(3, ddof=ddof, **RULES[name])
    m = bn.update(x)
    assert bn.running_mean.tobytes() == m.mean.tobytes()
    assert bn.running_var.tobytes() == (m.m2 / (20 - ddof)).tobytes()


@given(sizes, offsets, momenta)
def test_debiased_is_the_weighted_average_of_the_batches(sizes: list[int], offset: float, momentum: float) -> None:
    batches = stream(sizes, offset)
    bn = learned(BatchNorm(2, average="debiased", momentum=momentum), batches)
    weights = momentum * (1 - momentum) ** np.arange(len(sizes) - 1, -1.0, -1)
    mean = np.average([x.mean(axis=0) for x in batches], axis=0, weights=weights)
    var = np.average([x.var(axis=0) for x in batches], axis=0, weights=weights)
    np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bn.running_var, var, rtol=1e-8, atol=1e-12 + abs(offset) * 1e-14)
    np.testing.assert_allclose(bn.state_dict()["weight"], weights.sum(), rtol=1e-12)


@given(sizes, offsets, momenta)
def test_debiased_mixture_is_the_weighted_variance_of_all_values(
    sizes: list[int], offset: float, momentum: float
) -> None:
    batches = stream(sizes, offset)
    bn = learned(BatchNorm(2, average="debiased-mixture", momentum=momentum), batches)
    values = np.concatenate(batches)
    weights = np.concatenate([np.full(n, (1 - momentum) ** (len(sizes) - 1 - k) / n) for k, n in enumerate(sizes)])
    mean = np.average(values, axis=0, weights=weights)
    np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-12, atol=1e-12)
    var = np.average((values - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(bn.running_var, var, rtol=1e-8, atol=1e-12)


def test_the_variance_between_batches_is_kept_or_lost() -> None:
    """A stream that drifts: the classic average has the variance within a batch, and the mixture all of it."""
    rng = np.random.default_rng(0)
    drifting = [rng.normal(k % 40, 1, (64, 1)) for k in range(400)]
    within = learned(BatchNorm(1, momentum=0.02), drifting).running_var
    all_of_it = learned(BatchNorm(1, momentum=0.02, average="mixture"), drifting).running_var
    assert 0.9 < within < 1.1
    assert all_of_it > 100


@given(sizes, offsets, st.integers(1, 9), st.sampled_from([0, 1]))
def test_window_is_recomputation(sizes: list[int], offset: float, window: int, ddof: int) -> None:
    bn = BatchNorm(2, average="window", window=window, ddof=ddof)
    batches = stream(sizes, offset)
    for k in range(len(batches)):
        bn.update(batches[k])
        m = numbabn.moments(np.concatenate(batches[max(0, k + 1 - window) : k + 1]))
        np.testing.assert_allclose(bn.running_mean, m.mean, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(bn.running_var, m.m2 / max(m.count - ddof, 1), rtol=1e-9, atol=1e-12)
    assert bn.count.tolist() == [sum(sizes)] * 2


@given(arrays(bool, (7, 3)), st.integers(1, 4))
def test_a_channel_without_values_keeps_its_own_window(there: np.ndarray, window: int) -> None:
    bn = BatchNorm(3, average="window", window=window)
    rows: list[list[np.ndarray]] = [[], [], []]
    for k, present in enumerate(there):
        x = batch(4, seed=k)
        for c in np.flatnonzero(present):
            rows[c].append(x[:, c])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            bn.update(np.where(present, x, np.nan))
    for c in range(3):
        last = np.concatenate(rows[c][-window:]) if rows[c] else np.array([-1.0, 1.0])
        np.testing.assert_allclose(bn.running_mean[c], last.mean(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(bn.running_var[c], last.var(), rtol=1e-12)


def test_what_is_not_finite_leaves_the_window() -> None:
    bn = BatchNorm(2, average="window", window=2, nonfinite="propagate")
    bn.update([[np.nan, 1.0], [0.0, 2.0]])
    bn.update([[1e200, 3.0], [-1e200, 4.0]])
    assert np.isnan(bn.running_mean[0])
    bn.update([[1.0, 5.0], [2.0, 6.0]])
    bn.update([[3.0, 7.0], [4.0, 8.0]])
    assert bn.running_mean.tolist() == [2.5, 6.5]
    assert bn.running_var.tolist() == [1.25, 1.25]


@given(sizes, offsets)
def test_equal_is_the_plain_average_of_the_batches(sizes: list[int], offset: float) -> None:
    batches = stream(sizes, offset)
    bn = learned(BatchNorm(2, average="equal"), batches)
    np.testing.assert_allclose(
        bn.running_mean, np.mean([x.mean(axis=0) for x in batches], axis=0), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(bn.running_var, np.mean([x.var(axis=0) for x in batches], axis=0), rtol=1e-8)


# Peers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [None, 0.1, 0.35])
def test_pytorch(momentum: float | None) -> None:
    theirs = torch.nn.BatchNorm1d(2, momentum=momentum, dtype=torch.float64)
    ours = BatchNorm(2, ddof=1, **({"average": "equal"} if momentum is None else {"momentum": momentum}))
    for x in stream([2, 50, 7, 7, 31, 2], 10):
        y = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours(x, training=True), y, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours.running_mean, theirs.running_mean, rtol=1e-13)
        np.testing.assert_allclose(ours.running_var, theirs.running_var, rtol=1e-12)
    assert ours.num_batches == theirs.num_batches_tracked


VALUES = [3.0, 5.0, 4.0, 10.0, -2.0, 7.5]
# pandas 3.1.1, s = pd.Series(VALUES): s.ewm(alpha=0.3).mean(), s.ewm(alpha=0.3).var(bias=True),
# s.rolling(3, min_periods=1).mean(), s.rolling(3, min_periods=1).var(ddof=0)
PANDAS_MEAN = [3.0, 4.176470588235294, 4.095890410958904, 6.426766679826293, 3.3880134145901697, 4.786091929402245]
PANDAS_VAR = [0.0, 0.9688581314878892, 0.5341840245199224, 8.652058910030707, 21.904906987090612, 18.251478791251145]
PANDAS_ROLLING_MEAN = [3.0, 4.0, 4.0, 6.333333333333333, 4.0, 5.166666666666667]
PANDAS_ROLLING_VAR = [0.0, 1.0, 0.6666666666666666, 6.888888888888889, 24.0, 26.722222222222225]


@pytest.mark.parametrize(
    ("options", "means", "variances"),
    [
        ({"average": "debiased-mixture", "momentum": 0.3}, PANDAS_MEAN, PANDAS_VAR),
        ({"average": "window", "window": 3}, PANDAS_ROLLING_MEAN, PANDAS_ROLLING_VAR),
    ],
    ids=["ewm", "rolling"],
)
def test_pandas(options: dict[str, Any], means: list[float], variances: list[float]) -> None:
    bn = BatchNorm(1, **options)
    for value, mean, var in zip(VALUES, means, variances, strict=True):
        bn.update([[value]])
        np.testing.assert_allclose([bn.running_mean[0], bn.running_var[0]], [mean, var], rtol=1e-12)


def test_haiku() -> None:
    """hk.BatchNorm(True, True, decay_rate=0.7) of dm-haiku 0.0.17 in float64: mean_ema and var_ema after each batch."""
    batches = [[[3.0, 100], [5, 104]], [[4.0, 90], [10, 99]], [[-2.0, 101], [7.5, 108]]]
    means = [[4.0, 102.0], [5.764705882352942, 97.58823529411767], [4.388127853881279, 100.74429223744293]]
    variances = [[1.0, 4.0], [5.705882352941177, 13.558823529411766], [13.402968036529678, 12.961187214611874]]
    bn = BatchNorm(2, average="debiased", decay=0.7)
    for x, mean, var in zip(batches, means, variances, strict=True):
        bn.update(x)
        np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-13)
        np.testing.assert_allclose(bn.running_var, var, rtol=1e-13)


# Schedules ------------------------------------------------------------------------------------------


def test_a_schedule_of_1_over_k_is_equal() -> None:
    batches = stream([5, 1, 30, 2, 8], 100)
    a, b = learned(BatchNorm(2, momentum=harmonic), batches), learned(BatchNorm(2, average="equal"), batches)
    assert a.running_mean.tobytes() == b.running_mean.tobytes()
    assert a.running_var.tobytes() == b.running_var.tobytes()


@pytest.mark.parametrize("name", WEIGHED)
@pytest.mark.parametrize("side", ["momentum", "decay"])
def test_a_sequence_is_a_function(side: str, name: str) -> None:
    factors = [halving(k) for k in range(4)]
    batches = stream([5, 3, 30, 2], 10)
    for sequence in (factors, tuple(factors), np.array(factors)):
        a = learned(BatchNorm(2, average=name, **{side: sequence}), batches)
        b = learned(BatchNorm(2, average=name, **{side: halving}), batches)
        assert bits(a) == bits(b)
    a.update(batches[0])  # the last one repeats
    b = learned(BatchNorm(2, average=name, **{side: [*factors, factors[-1]]}), [*batches, batches[0]])
    assert bits(a) == bits(b)


def test_decay_is_the_other_side_of_momentum() -> None:
    for f in (0.25, (0.25, 0.5), halving):
        bn = BatchNorm(2, decay=f)
        assert bn.decay == f
        assert BatchNorm(2, momentum=f).momentum == f
    bn = learned(BatchNorm(1, decay=lambda k: 0.75), [np.ones((2, 1))])
    assert (bn.running_mean[0], bn.running_var[0]) == (0.25, 0.75)
    assert callable(BatchNorm(1, momentum=halving).decay)
    assert BatchNorm(1, momentum=halving).decay(1) == 0.75


def test_a_schedule_is_read_once_a_batch_with_the_number_of_batches() -> None:
    read: list[int] = []

    def schedule(batches: int) -> float:
        read.append(batches)
        return np.float32(0.5)

    bn = BatchNorm(2, momentum=schedule)
    bn(np.ones((3, 2)), training=True)
    bn.update(np.ones((3, 2)))
    bn(np.ones((3, 2)))
    bn.update(np.empty((0, 2)))
    bn(np.ones((3, 2)), training=True, out=np.empty((3, 2)))
    assert read == [0, 1, 2]


def _fails(batches: int) -> float:
    raise KeyError(f"no factor for batch {batches}")


BAD_SCHEDULES: dict[str, tuple[Any, type[Exception], str]] = {
    "high": (lambda k: 0.1 if k < 1 else 1.5, ValueError, r"`momentum\(1\)` is 1.5; expected a weight from 0 to 1"),
    "nan": (lambda k: 0.1 if k < 1 else np.nan, ValueError, r"`momentum\(1\)` is nan"),
    "text": (lambda k: 0.1 if k < 1 else "0.1", TypeError, r"`momentum\(1\)` is '0.1'; expected a real number"),
    "none": (lambda k: 0.1 if k < 1 else None, TypeError, r"`momentum\(1\)` is None"),
    "raises": (lambda k: 0.1 if k < 1 else _fails(k), KeyError, "no factor for batch 1"),
}


@pytest.mark.parametrize("rule", WEIGHED)
@pytest.mark.parametrize("name", BAD_SCHEDULES)
def test_a_schedule_that_fails_changes_nothing(name: str, rule: str) -> None:
    schedule, error, sentence = BAD_SCHEDULES[name]
    bn = learned(BatchNorm(3, average=rule, momentum=schedule), [batch()])
    before, x = bits(bn), batch(9)
    for call in (lambda: bn.update(x), lambda: bn(x, training=True), lambda: bn(x, training=True, out=x)):
        with pytest.raises(error, match=sentence):
            call()
        assert bits(bn) == before
        assert np.array_equal(x, batch(9))
    bn(x)  # inference asks for no factor


def test_a_bad_decay_is_called_decay() -> None:
    with pytest.raises(ValueError, match=r"`decay\(0\)` is -0.5; expected a weight from 0 to 1"):
        BatchNorm(3, decay=lambda k: -0.5).update(batch())


def test_a_schedule_may_look_at_its_batchnorm() -> None:
    bn = BatchNorm(2, momentum=lambda k: 1 / (1 + bn.copy().num_batches + len(bn.state_dict()["count"])))
    bn.update([[3.0, 6.0]])
    assert bn.running_mean.tolist() == [1.0, 2.0]


def test_a_schedule_may_call_its_batchnorm() -> None:
    """It is called under the lock, where another call of the same thread must not wait for itself."""
    bn = BatchNorm(2, momentum=lambda k: 0.5 + bn.merge(BatchNorm(2)).num_batches * 0)
    thread = threading.Thread(target=lambda: [bn.update([[4.0, 8.0]]) for _ in range(2)], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert bn.running_mean.tolist() == [3.0, 6.0]
    assert bn.num_batches == 2


# What they share ------------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("how", ["update", "train"])
def test_a_channel_without_values_keeps_its_state(name: str, how: str) -> None:
    bn, others = BatchNorm(3, **RULES[name]), BatchNorm(2, **RULES[name])
    for k in range(5):
        x = batch(6, seed=k)
        bn.update(x)
        others.update(x[:, [0, 2]])
    before = bn.state_dict()
    x = batch(7)
    x[3, 1] = np.nan
    with pytest.warns(RuntimeWarning, match="in channel 1; their running averages are left alone"):
        bn.update(x) if how == "update" else bn(x, training=True)
    others.update(x[:, [0, 2]])
    after, expected = bn.state_dict(), others.state_dict()
    assert after.keys() == before.keys() == expected.keys()
    assert after["num_batches"] == 6
    for key in after.keys() - {"num_batches"}:
        assert after[key][..., 1].tobytes() == before[key][..., 1].tobytes(), key
        assert after[key][..., [0, 2]].tobytes() == expected[key].tobytes(), key


@every_rule
def test_counts_may_differ_between_channels(name: str) -> None:
    """Moments with a count for each channel, none included, are averaged as those of each channel alone."""
    rule, window = averages.RULES[name], RULES[name].get("window")
    together = averages.start((3,), name, window)
    alone = [averages.start((1,), name, window) for _ in range(3)]
    for k, counts in enumerate([(4, 2, 0), (1, 0, 5), (0, 3, 3), (6, 6, 6), (0.25, 1.5, 2)]):
        count, rng = np.array(counts, float), np.random.default_rng(k)
        m = Moments(count, np.where(count > 0, rng.normal(size=3), 0), np.where(count > 0, rng.uniform(size=3), 0))
        together = averages.where(count > 0, rule.learn(together, m, 0.3, 0), together)
        for c in np.flatnonzero(count):
            one = Moments(float(count[c]), m.mean[[c]], m.m2[[c]])
            alone[c] = rule.learn(alone[c], one, 0.3, 0)
    for key, array in together.arrays().items():
        single = np.concatenate([running.arrays()[key] for running in alone], axis=-1)
        np.testing.assert_allclose(array, single, rtol=1e-13, err_msg=key)


@every_rule
@given(data=st.data())
def test_masked_batches_follow_the_model(name: str, data: st.DataObject) -> None:
    ddof = data.draw(st.sampled_from([0, 1]))
    options = RULES[name] | ({"momentum": (0.75, 0.5, 0.1)} if name in WEIGHED else {})
    rule, model = averages.RULES[name], Model(3, ddof=ddof, **options)
    running = averages.start((3,), name, options.get("window"))
    for k in range(data.draw(st.integers(1, 7))):
        there = data.draw(arrays(bool, (5, 3)))
        count, x = there.sum(axis=0).astype(float), np.where(there, batch(5, seed=k), 0)
        mean = x.sum(axis=0) / np.maximum(count, 1)
        m = Moments(count, mean, (np.where(there, x - mean, 0) ** 2).sum(axis=0))
        factor = 0.0 if rule.weighs is False else model.factor()
        running = averages.where(count > 0, rule.learn(running, m, factor, ddof), running)
        model.learn(batch(5, seed=k), there)
    assert running.batches == model.batches
    assert np.array_equal(running.count, model.count)
    np.testing.assert_allclose(running.mean, model.mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(running.var, model.var, rtol=1e-10, atol=1e-12)


def test_weights_may_add_up_to_less_than_one_value() -> None:
    for ddof, var in ((0, [4.0, 4.0, 2.0]), (1, [4.0, 2.0, 4.0])):
        m = Moments([0.5, 1.0 if ddof == 0 else 2.0, 2.0], [0.0] * 3, [2.0, 4.0 if ddof == 0 else 2.0, 4.0])
        assert averages.debiased(averages.start((3,), "debiased"), m, 0.5, ddof).var.tolist() == var


@every_rule
@pytest.mark.parametrize("count", [0.0, np.zeros(3)], ids=["one", "each"])
def test_a_batch_without_values_changes_nothing(name: str, count: Any) -> None:
    bn = learned(BatchNorm(3, **RULES[name]), [batch()])
    before = bits(bn)
    bn._learn(Moments(count, np.zeros(3), np.zeros(3)))
    assert bits(bn) == before


@every_rule
def test_inference_never_changes_a_bit(name: str) -> None:
    bn = BatchNorm(3, **RULES[name])
    for k in range(4):
        bn.update(batch(6, seed=k))
        before = bits(bn)
        y = bn(batch(8))
        bn(np.full((3, 3), np.nan))
        bn(np.empty((0, 3)))
        assert bn(batch(8)).tobytes() == y.tobytes()
        assert bits(bn) == before


@every_rule
def test_training_and_update_learn_the_same(name: str) -> None:
    a, b = BatchNorm(3, **RULES[name]), BatchNorm(3, **RULES[name])
    for k in range(5):
        a.update(batch(6, seed=k))
        b(batch(6, seed=k), training=True)
    assert a == b


@every_rule
def test_reset_forgets(name: str) -> None:
    bn = learned(BatchNorm(3, gamma=2, **RULES[name]), [batch(), batch(5)])
    bn.reset()
    assert bn == BatchNorm(3, gamma=2, **RULES[name])
    assert all(
        a.any() == (key in ("running_var", "gamma")) for key, a in bn.state_dict().items() if key != "num_batches"
    )


@every_rule
def test_shapes_of_channels(name: str) -> None:
    """Several channel axes, and none, learn as a row of channels does."""
    x = np.random.default_rng(1).normal(3, 2, (4, 6, 10))
    flat = BatchNorm(8, **RULES[name])
    several = BatchNorm((4, 2), axis=(0, 1), **RULES[name])
    none = BatchNorm((), axis=(), **RULES[name])
    for part in np.split(x, 3, axis=1):
        flat.update(part.reshape(8, -1).T)
        several.update(part)
        none.update(part[1, 1])
    for key, array in flat.state_dict().items():
        if key != "num_batches":
            shape = array.shape[:-1]
            np.testing.assert_allclose(several.state_dict()[key].reshape(*shape, 8), array, rtol=1e-12)
            np.testing.assert_allclose(none.state_dict()[key], array[..., 3], rtol=1e-12)


def test_the_number_of_values_of_a_window_is_that_of_its_batches() -> None:
    bn = learned(BatchNorm(2, average="window", window=2), stream([3, 4, 5], 0))
    d = bn.state_dict()
    assert d["window_count"].tolist() == [[4, 4], [5, 5]]
    assert d["count"].tolist() == [12, 12]


# Merging --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["equal", "cumulative"])
def test_merging_is_one_long_run(name: str) -> None:
    parts = stream([5, 1, 30, 2, 8, 4], 1000)
    for cut in range(len(parts) + 1):
        whole, a, b = (
            learned(BatchNorm(2, **RULES[name]), some).state_dict() for some in (parts, parts[:cut], parts[cut:])
        )
        merged = BatchNorm(2, **RULES[name])
        other = BatchNorm(2, **RULES[name])
        merged.load_state_dict(a)
        other.load_state_dict(b)
        for key, array in merged.merge(other).state_dict().items():
            np.testing.assert_allclose(array, whole[key], rtol=1e-11, err_msg=key)


def test_merging_windows_is_refused() -> None:
    bn = learned(BatchNorm(2, **RULES["window"]), stream([3, 4], 0))
    before = bits(bn)
    with pytest.raises(ValueError, match=r"'window' cannot be merged, .* merge the moments that `update` returns"):
        bn.merge(bn.copy())
    assert bits(bn) == before


@pytest.mark.parametrize("name", ["debiased", "debiased-mixture"])
def test_merging_debiased_averages(name: str) -> None:
    a, b = (learned(BatchNorm(2, **RULES[name]), stream([n] * n, 10)) for n in (3, 5))
    nothing = BatchNorm(2, average=name, momentum=0.0)
    nothing.update(batch(7, channels=2))
    before, w_a, w_b = a.state_dict(), a.state_dict()["weight"], b.state_dict()["weight"]
    a.merge(nothing)  # it has seen values, and given them no weight
    assert a.running_mean.tobytes() == before["running_mean"].tobytes()
    assert a.running_var.tobytes() == before["running_var"].tobytes()
    assert a.state_dict()["weight"].tobytes() == w_a.tobytes()
    assert a.count.tolist() == [16, 16]
    a.merge(b)
    np.testing.assert_allclose(a.state_dict()["weight"], 1 - (1 - w_a) * (1 - w_b), rtol=1e-14)
    tiny = BatchNorm(2, average=name, momentum=1e-18)
    tiny.update(batch(7, channels=2))
    alone = tiny.state_dict()
    np.testing.assert_array_equal(tiny.merge(BatchNorm(2, average=name)).state_dict()["weight"], alone["weight"])
    np.testing.assert_array_equal(BatchNorm(2, average=name).merge(tiny).state_dict()["weight"], alone["weight"])


# Where the state goes -------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("batches", [0, 1, 5])
def test_every_way_of_keeping_it(name: str, batches: int, tmp_path: Path) -> None:
    options = RULES[name] | ({"momentum": [0.5, 0.3, 1 / 3]} if name in WEIGHED else {})
    bn = learned(BatchNorm((2, 3), axis=(0, 2), gamma=2, **options), [])
    for k in range(batches):
        bn.update(np.random.default_rng(k).normal(size=(2, 4, 3)))
    bn.save(tmp_path / "bn.npz")
    loaded = BatchNorm((2, 3), axis=(0, 2), **options)
    loaded.load_state_dict(bn.state_dict())
    twins = [BatchNorm.load(tmp_path / "bn.npz"), loaded, bn.copy(), copy.copy(bn), copy.deepcopy(bn)]
    twins.append(pickle.loads(pickle.dumps(bn)))
    bn.update(np.ones((2, 4, 3)))
    for twin in twins:
        assert twin.num_batches == batches
        assert twin != bn
        twin.update(np.ones((2, 4, 3)))  # it goes on as the original does
        assert twin == bn
        for array in twin._running.arrays().values():
            assert not array.flags.writeable


@pytest.mark.parametrize("side", ["momentum", "decay"])
def test_a_function_is_no_part_of_a_file(side: str, tmp_path: Path) -> None:
    path = tmp_path / "bn.npz"
    bn = learned(BatchNorm(3, average="debiased", **{side: halving}), [batch(), batch(5)])
    bn.save(path)
    assert json.loads(str(np.load(path)["schema"]))["config"]["momentum"] == "schedule"
    with pytest.raises(StateError, match=r"momentum is a function, .* BatchNorm.load\(path, momentum=f\)"):
        BatchNorm.load(path)
    with pytest.raises(ValueError, match="`momentum` is 7"):
        BatchNorm.load(path, momentum=7)
    with pytest.raises(ValueError, match="give one of the two"):
        BatchNorm.load(path, momentum=halving, decay=halving)
    with pytest.raises(StateError, match="`momentum` is None"):
        BatchNorm.load(path, momentum=None)
    assert BatchNorm.load(path, **{side: halving}) == bn
    assert BatchNorm.load(path, **{side: harmonic}) != bn
    BatchNorm(3, momentum=0.5).save(path)
    with pytest.raises(StateError, match="it holds its own momentum; leave `momentum` and `decay` out"):
        BatchNorm.load(path, **{side: halving})
    for twin in (bn.copy(), copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        assert twin == bn
        assert twin.update(batch(3)) == bn.copy().update(batch(3))
        assert twin.momentum == bn.momentum


class Warmup:
    """A schedule that is an object, and a picklable one."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, batches: int) -> float:
        return min(1.0, (batches + 1) / self.steps)


def test_a_schedule_may_be_an_object() -> None:
    bn = learned(BatchNorm(3, momentum=Warmup(4)), [batch()])
    assert bn.copy().momentum is bn.momentum
    for twin in (bn.copy(), copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        assert bits(learned(twin, [batch(7)])) == bits(learned(bn.copy(), [batch(7)]))
    assert "momentum=Warmup" in repr(bn)


def test_a_long_sequence_is_saved(tmp_path: Path) -> None:
    factors = np.random.default_rng(0).uniform(size=100_000)
    bn = learned(BatchNorm(3, momentum=factors), [batch()])
    bn.save(tmp_path / "bn.npz")
    assert BatchNorm.load(tmp_path / "bn.npz") == bn


def test_an_altered_sequence_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bn.npz"
    for factors, sentence in (([2.0], r"`momentum\[0\]` is 2.0"), ([], "`momentum` is empty")):
        BatchNorm(3, momentum=[0.5]).save(path)
        members = dict(np.load(path))
        schema = json.loads(str(members["schema"]))
        schema["arrays"]["factors"] = [len(factors)]
        np.savez(path, **(members | {"schema": np.array(json.dumps(schema)), "factors": np.array(factors, float)}))
        with pytest.raises(StateError, match=sentence):
            BatchNorm.load(path)


@pytest.mark.parametrize("name", ["exponential", "cumulative"])
def test_a_file_of_the_first_version_loads(name: str) -> None:
    """tests/data has what version 0.1.0 wrote before there was an `average`."""
    bn = BatchNorm.load(Path(__file__).parent / "data" / f"batchnorm-1-{name}.npz")
    x = np.arange(24.0).reshape(8, 3) ** 1.5
    options: dict[str, Any] = {"decay": 0.75, "ddof": 1, "gamma": [1, 2, 3]}
    if name == "cumulative":
        options = {"momentum": None, "beta": 0.5, "eps": 1e-3, "nonfinite": "raise"}
    fresh = learned(BatchNorm(3, **options), [x[:5], x[5:]])
    assert bn.average == name
    assert bn.num_batches == 2
    assert bn._options == fresh._options
    for key, array in fresh.state_dict().items():
        np.testing.assert_allclose(bn.state_dict()[key], array, rtol=1e-13, err_msg=key)
    for a in (bn, fresh):
        a.update(x[::-1])
    np.testing.assert_allclose(bn.running_var, fresh.running_var, rtol=1e-13)


ONES = np.ones((3, 2))
BAD_STATES: dict[str, tuple[str, dict[str, Any], str]] = {
    "weight-high": ("debiased", {"weight": [0.5, 1.5]}, "`weight` is not from 0 to 1"),
    "weight-nan": ("debiased-mixture", {"weight": [0.5, np.nan]}, "`weight` is not from 0 to 1"),
    "weight-negative": ("debiased", {"weight": [-0.5, 0.5]}, "`weight` is negative in channel 0"),
    "batches": ("equal", {"channel_batches": [1, np.inf]}, "`channel_batches` is not finite"),
    "batches-negative": ("equal", {"channel_batches": [1, -1]}, "`channel_batches` is negative in channel 1"),
    "window-shape": ("window", {"window_mean": ONES[:2]}, r"`window_mean` has shape \(2, 2\); expected \(3, 2\)"),
    "window-flat": ("window", {"window_m2": [1, 1]}, r"`window_m2` has shape \(2,\); expected \(3, 2\)"),
    "window-m2": ("window", {"window_m2": ONES * [1, -1]}, "`window_m2` is negative in channel 1"),
    "window-count": ("window", {"window_count": ONES * np.nan}, "`window_count` is not finite"),
    "foreign": ("window", {"weight": [1, 1]}, "the state has unknown weight; expected .* for average='window'"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_bad_states(case: str) -> None:
    name, altered, sentence = BAD_STATES[case]
    bn = learned(BatchNorm(2, **RULES[name]), stream([3, 4], 0))
    before = bits(bn)
    with pytest.raises(ValueError, match=sentence):
        bn.load_state_dict(bn.state_dict() | altered)
    assert bits(bn) == before


@every_rule
def test_the_state_of_another_rule_is_refused(name: str) -> None:
    for other, options in RULES.items():
        if averages.RULES[other].keeps != averages.RULES[name].keeps:
            with pytest.raises(ValueError, match=rf"the state (lacks|has unknown) .* for average='{name}'"):
                BatchNorm(2, **RULES[name]).load_state_dict(BatchNorm(2, **options).state_dict())


# Threads --------------------------------------------------------------------------------------------


def at_once(work: Callable[[int], None], workers: int = 6) -> None:
    threads = [threading.Thread(target=work, args=(k,)) for k in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_each_batch_has_its_own_factor_however_many_threads() -> None:
    """With 1/(k+1) the order of the batches makes no difference, but a k used twice would."""
    bn, batches = BatchNorm(3, momentum=harmonic), [[batch(9, seed=10 * w + k) for k in range(20)] for w in range(6)]
    at_once(lambda w: [bn(x, training=True) if k % 2 else bn.update(x) for k, x in enumerate(batches[w])])
    everything = [x for own in batches for x in own]
    assert bn.num_batches == 120
    np.testing.assert_allclose(bn.running_mean, np.mean([x.mean(axis=0) for x in everything], axis=0), rtol=1e-10)
    np.testing.assert_allclose(bn.running_var, np.mean([x.var(axis=0) for x in everything], axis=0), rtol=1e-10)


def test_a_schedule_is_read_again_where_another_thread_came_first() -> None:
    """Two training calls read the factor of batch 0 before either has learned; the second learns as batch 1."""
    both, read = threading.Barrier(2, timeout=60), []

    def schedule(batches: int) -> float:
        read.append(batches)
        if len(read) <= 2:
            both.wait()
        return 1 / (batches + 1)

    bn, parts = BatchNorm(3, momentum=schedule), [batch(9, seed=w) for w in range(2)]
    at_once(lambda w: bn(parts[w], training=True), workers=2)
    assert sorted(read) == [0, 0, 1]
    np.testing.assert_allclose(bn.running_mean, np.mean([x.mean(axis=0) for x in parts], axis=0), rtol=1e-12)


@every_rule
def test_no_batch_is_lost_between_threads(name: str) -> None:
    bn = BatchNorm(2, **RULES[name])
    at_once(lambda w: [bn.update(x) for x in stream([3, 4, 5, 6], 0, seed=w)])
    assert bn.num_batches == 24
    assert bn.count.tolist() == [108, 108]


# The page -------------------------------------------------------------------------------------------


def test_the_page_has_every_rule() -> None:
    page = (Path(__file__).parents[1] / "docs" / "averages.md").read_text()
    for name in averages.RULES:
        assert f'"{name}"' in page
