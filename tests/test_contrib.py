"""`contrib.batch_norm` beside a model of the formulas, and its properties: any route, any options, many steps."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbabn import contrib

DOCS = Path(__file__).parents[1] / "docs" / "contrib.md"
AGAIN = {"scope": "bn", "reuse": contrib.AUTO_REUSE}
SHAPES = [(6, 3), (4, 5, 3), (4, 3, 5), (3, 2, 2, 3), (2, 3, 2, 2), (2, 2, 2, 2, 3), (1, 3), (5, 1)]
TOLERANCE = {"float32": 1e-6, "float64": 1e-9}


def along(value, shape, axis):
    return np.reshape(value, [-1 if d == axis else 1 for d in range(len(shape))])


class Model:
    """tf.contrib.layers.batch_norm (TensorFlow 1) in plain NumPy, float64; `o` are the arguments of the call."""

    def __init__(self, channels, o):
        self.o = o
        given = o.get("param_initializers", {})
        ones = np.ones(channels)
        self.beta = given.get("beta", 0.0) * ones if o["center"] else None
        self.gamma = given.get("gamma", 1.0) * ones if o["scale"] else None
        self.mean, self.var = given.get("moving_mean", 0.0) * ones, given.get("moving_variance", 1.0) * ones
        self.biased, self.step = 0 * ones, 0
        self.r_mean, self.r_mean_weight, self.r_std, self.r_std_weight = 0 * ones, 0.0, 0 * ones, 0.0

    def fused(self, ndim):
        o = self.o
        if o["fused"] is False or o["batch_weights"] is not None or o["renorm"] or o["adjustment"]:
            return False
        core_layer = o["updates_collections"] == "update_ops" and not o["zero_debias_moving_mean"]
        return ndim in (2, 4) or (ndim == 5 and core_layer)

    def final(self, y, axis):
        if self.gamma is not None:
            y = y * along(self.gamma, y.shape, axis)
        if self.beta is not None:
            y = y + along(self.beta, y.shape, axis)
        return np.maximum(y, 0) if self.o["activation_fn"] else y

    def epsilon(self, ndim):
        return max(self.o["epsilon"], 1.001e-5) if self.fused(ndim) else self.o["epsilon"]

    def train(self, x):
        o, x = self.o, x.astype(np.float64)
        axis = 1 if o["data_format"] == "NCHW" else x.ndim - 1
        others = tuple(d for d in range(x.ndim) if d != axis)
        w = np.ones(x.shape[0]) if o["batch_weights"] is None else o["batch_weights"]
        w = np.broadcast_to(along(w, x.shape, 0), x.shape)
        n = w.sum(others)
        mean = (w * x).sum(others) / n
        centred = x - along(mean, x.shape, axis)
        var = (w * centred**2).sum(others) / n
        std = np.sqrt(var + self.epsilon(x.ndim))
        y = centred / along(std, x.shape, axis)
        stored_mean, stored_var = mean, var * n / np.maximum(n - 1, 1) if self.fused(x.ndim) else var
        if o["renorm"]:
            mixed_mean = self.r_mean + (1 - self.r_mean_weight) * mean
            mixed_std = self.r_std + (1 - self.r_std_weight) * std
            clip, a = o["renorm_clipping"] or {}, o["renorm_decay"]
            r = np.minimum(np.maximum(std / mixed_std, clip.get("rmin", 0)), clip.get("rmax", np.inf))
            d = np.clip((mean - mixed_mean) / mixed_std, -clip.get("dmax", np.inf), clip.get("dmax", np.inf))
            y = y * along(r, x.shape, axis) + along(d, x.shape, axis)
            self.r_mean, self.r_mean_weight = a * self.r_mean + (1 - a) * mean, a * self.r_mean_weight + 1 - a
            self.r_std, self.r_std_weight = a * self.r_std + (1 - a) * std, a * self.r_std_weight + 1 - a
            stored_mean = self.r_mean / self.r_mean_weight
            stored_var = (self.r_std / self.r_std_weight) ** 2 - self.epsilon(x.ndim)
        if o["adjustment"]:
            s, b = o["adjustment"](x.shape)
            y = y * s + b
        keep = o["decay"]
        if o["zero_debias_moving_mean"]:
            self.biased, self.step = keep * self.biased + (1 - keep) * stored_mean, self.step + 1
            self.mean = self.biased / (1 - keep**self.step) if keep < 1 else self.mean
        else:
            self.mean = keep * self.mean + (1 - keep) * stored_mean
        self.var = keep * self.var + (1 - keep) * stored_var
        return self.final(y, axis)

    def infer(self, x):
        axis = 1 if self.o["data_format"] == "NCHW" else x.ndim - 1
        inverse = 1 / np.sqrt(self.var + self.epsilon(x.ndim))
        y = (x.astype(np.float64) - along(self.mean, x.shape, axis)) * along(inverse, x.shape, axis)
        return self.final(y, axis)


@st.composite
def calls(draw, weighted=None):
    """(arguments, batches): what one scope is asked for, and some batches for it."""
    data_format = draw(st.sampled_from(["NHWC", "NCHW"]))
    shape = draw(st.sampled_from([s for s in SHAPES if s[1 if data_format == "NCHW" else -1] in (1, 3)]))
    axis = 1 if data_format == "NCHW" else len(shape) - 1
    channels = shape[axis]
    renorm = draw(st.booleans())
    full = draw(st.booleans())  # an adjustment that varies from sample to sample
    adjustment = None
    if draw(st.booleans()):
        s = np.linspace(0.9, 1.2, shape[0] if full else channels)
        s = along(s, shape, 0 if full else axis)
        adjustment = lambda given: (s, -s / 2)  # noqa: E731
    weights = None
    if weighted or (weighted is None and draw(st.booleans())):
        weights = np.array(draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=shape[0], max_size=shape[0])), float)
        weights[draw(st.integers(0, shape[0] - 1))] = 2.0
    arguments = {
        "decay": draw(st.sampled_from([0.0, 0.5, 0.9, 0.999, 1.0])),
        "center": draw(st.booleans()),
        "scale": draw(st.booleans()),
        "epsilon": draw(st.sampled_from([1e-3, 0.1, 1e-7])),
        "activation_fn": draw(st.sampled_from([None, lambda y: np.maximum(y, 0)])),
        "updates_collections": draw(st.sampled_from([None, "update_ops", "mine", ["mine", "yours"]])),
        "data_format": data_format,
        "batch_weights": weights,
        "fused": draw(st.sampled_from([None, False])),
        "zero_debias_moving_mean": draw(st.booleans()),
        "renorm": renorm,
        "renorm_decay": draw(st.sampled_from([0.5, 0.99])),
        "renorm_clipping": draw(st.sampled_from([None, {"rmin": 0.5, "rmax": 1.5, "dmax": 0.3}, {"dmax": 0.0}])),
        "adjustment": adjustment,
    }
    if draw(st.booleans()):
        arguments["param_initializers"] = {
            "beta": np.linspace(-1, 1, channels),
            "gamma": 1.5,
            "moving_mean": np.linspace(0, 5, channels),
            "moving_variance": 2,
        }
    dtype = draw(st.sampled_from(["float32", "float64"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    std, mean = along(np.linspace(0.5, 2, channels), shape, axis), along(np.linspace(-5, 5, channels), shape, axis)
    batches = [(rng.normal(size=shape) * std + mean + 0.3 * step).astype(dtype) for step in range(4)]
    return arguments, batches


def learn(store, arguments, batches):
    """Train on every batch, each followed by its updates; the outputs."""
    outputs = []
    with store:
        for x in batches:
            outputs.append(contrib.batch_norm(x, **AGAIN, **arguments))
            waiting = arguments["updates_collections"]
            if waiting is not None:
                assert store.run_updates(waiting if isinstance(waiting, str) else waiting[0]) == 1
    return outputs


def infer(store, arguments, x, **more):
    with store:
        return contrib.batch_norm(x, is_training=False, scope="bn", reuse=True, **arguments, **more)


@given(calls())
def test_agrees_with_the_model(call):
    arguments, batches = call
    axis = 1 if arguments["data_format"] == "NCHW" else batches[0].ndim - 1
    model = Model(batches[0].shape[axis], arguments)
    store = contrib.VariableStore()
    tolerance = TOLERANCE[str(batches[0].dtype)]
    for x in batches:
        (y,) = learn(store, arguments, [x])
        expected = model.train(x)
        assert y.dtype == x.dtype
        assert y.shape == x.shape
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * (1 + np.abs(expected).max()))
        np.testing.assert_allclose(store["bn/moving_mean"], model.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(store["bn/moving_variance"], np.maximum(model.var, 0), rtol=1e-9, atol=1e-9)
        expected = model.infer(x)
        y = infer(store, arguments, x)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * (1 + np.abs(expected).max()))
    assert ("bn/beta" in store, "bn/gamma" in store) == (arguments["center"], arguments["scale"])
    if arguments["zero_debias_moving_mean"]:
        np.testing.assert_allclose(store["bn/moving_mean/biased"], model.biased, rtol=1e-9, atol=1e-12)
        assert store["bn/moving_mean/local_step"] == model.step
    if arguments["renorm"]:
        np.testing.assert_allclose(store["bn/renorm_mean"], model.r_mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(store["bn/renorm_stddev"], model.r_std, rtol=1e-9)
        np.testing.assert_allclose(store["bn/renorm_mean_weight"], model.r_mean_weight, rtol=1e-12)
        np.testing.assert_allclose(store["bn/renorm_stddev_weight"], model.r_std_weight, rtol=1e-12)


@given(calls(), st.sampled_from([False, np.False_, np.array(False)]))
def test_inference_never_changes_a_bit(call, off):
    arguments, batches = call
    store = contrib.VariableStore()
    learn(store, arguments, batches)
    with store:
        contrib.batch_norm(batches[0], **AGAIN, **arguments)  # an update that waits, where they are deferred
        held, copies = dict(store), {name: value.copy() for name, value in store.items()}
        lists = {name: store.get_collection(name) for name in ("update_ops", "mine", "yours", "trainable_variables")}
        for reuse in (True, contrib.AUTO_REUSE):
            for x in (batches[1], np.full_like(batches[0], np.nan), batches[0][:0]):
                contrib.batch_norm(x, is_training=off, scope="bn", reuse=reuse, **{**arguments, "batch_weights": None})
        assert list(store) == list(held)
        for name, value in store.items():
            assert value is held[name]
            assert value.tobytes() == copies[name].tobytes()
            assert not value.flags.writeable
        for name, items in lists.items():
            assert store.get_collection(name) == items


@given(calls())
def test_the_first_inference_makes_what_training_will_need(call):
    arguments, batches = call
    first, second = contrib.VariableStore(), contrib.VariableStore()
    with first:
        contrib.batch_norm(batches[0], is_training=False, scope="bn", **arguments)
        for items in ("update_ops", "mine", "yours"):
            assert first.get_collection(items) == []
    learn(first, arguments, batches)
    learn(second, arguments, batches)
    assert first == second


@pytest.mark.parametrize("reuse", [True, contrib.AUTO_REUSE])
def test_inference_asks_only_for_what_it_needs(reuse):
    x = np.random.default_rng(0).normal(size=(8, 2))
    with contrib.VariableStore() as store:
        contrib.batch_norm(x, scope="bn", updates_collections=None)
        y = contrib.batch_norm(x, scope="bn", reuse=reuse, is_training=False)
        more = {"renorm": True, "zero_debias_moving_mean": True, "fused": False}
        z = contrib.batch_norm(x, scope="bn", reuse=reuse, is_training=False, **more)
        assert sorted(store) == ["bn/beta", "bn/moving_mean", "bn/moving_variance"]
    np.testing.assert_array_equal(y, z)


@given(calls())
def test_deferred_updates_are_immediate_ones_once_they_have_run(call):
    arguments, batches = call
    arguments["fused"] = False  # which is not what this is about
    at_once, later, at_the_end = (contrib.VariableStore() for _ in range(3))
    y = learn(at_once, {**arguments, "updates_collections": None}, batches)
    z = learn(later, {**arguments, "updates_collections": "mine"}, batches)
    assert at_once == later
    for a, b in zip(y, z, strict=True):
        np.testing.assert_array_equal(a, b)
    with at_the_end:
        for x in batches:
            contrib.batch_norm(x, **AGAIN, **{**arguments, "updates_collections": ["mine", "yours"]})
    waiting = at_the_end.get_collection("yours")
    assert [update.done for update in waiting] == [False] * len(batches)
    for update in waiting:
        update()
        update()  # runs once
    assert at_the_end.get_collection("mine") == []
    assert at_the_end.run_updates("mine") == 0
    assert at_the_end == at_once


@given(calls(weighted=True))
def test_weights_are_repetition(call):
    arguments, batches = call
    repeats = arguments["batch_weights"].astype(int)
    arguments["adjustment"] = None
    arguments["fused"] = False
    weighted, repeated = contrib.VariableStore(), contrib.VariableStore()
    y = learn(weighted, arguments, batches)
    z = learn(repeated, {**arguments, "batch_weights": None}, [np.repeat(x, repeats, axis=0) for x in batches])
    for a, b in zip(y, z, strict=True):
        np.testing.assert_allclose(np.repeat(a, repeats, axis=0), b, rtol=1e-5, atol=1e-5)
    assert list(weighted) == list(repeated)
    for name in weighted:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-9, atol=1e-9)


@given(calls())
def test_reuse_shares(call):
    arguments, batches = call
    one, two = contrib.VariableStore(), contrib.VariableStore()
    learn(one, arguments, batches)
    with two:
        for step, x in enumerate(batches):
            contrib.batch_norm(x, scope="bn", reuse=True if step else None, **arguments)
            for name in ("update_ops", "mine"):
                two.run_updates(name)
    assert one == two


@given(calls())
def test_saved_and_restored_is_the_same_inference(tmp_path_factory, call):
    arguments, batches = call
    path = tmp_path_factory.mktemp("contrib") / "bn.model"
    store, fresh = contrib.VariableStore(), contrib.VariableStore()
    learn(store, arguments, batches)
    store.save(path)
    y = infer(store, arguments, batches[0])
    with fresh:
        contrib.batch_norm(batches[0], is_training=False, scope="bn", **arguments)
    fresh.restore(path)
    loaded = contrib.VariableStore.load(path)
    for other in (fresh, loaded):
        assert other == store
        np.testing.assert_array_equal(infer(other, arguments, batches[0]), y)
        learn(other, arguments, batches)
    learn(store, arguments, batches)
    assert store == fresh
    assert store == loaded


@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 2, 4)])
def test_fused_true_is_what_none_would_take(shape):
    x = np.random.default_rng(0).normal(size=shape)
    stores = [contrib.VariableStore() for _ in range(3)]
    for store, fused in zip(stores, (None, True, False), strict=True):
        with store:
            contrib.batch_norm(x, updates_collections=None, decay=0.0, scope="bn", fused=fused)
    assert stores[0] == stores[1]
    others = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(stores[0]["bn/moving_variance"], x.var(others, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(stores[2]["bn/moving_variance"], x.var(others), rtol=1e-12)


def test_one_value_per_channel_stores_no_variance():
    with contrib.VariableStore() as store:
        y = contrib.batch_norm(np.array([[5.0, 7.0]]), decay=0.9, updates_collections=None, scope="bn")
    assert y.tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(store["bn/moving_variance"], 0.9)  # the seed's test mode: 0.818, 0.736, 0.662, ...


def test_all_arguments_by_position():
    x = np.random.default_rng(0).normal(size=(8, 2))
    lists = {"beta": ["b"], "moving_mean": "m"}
    with contrib.VariableStore() as store:
        positional = (0.9, True, True, 0.01, np.tanh, {"gamma": 2.0}, {"gamma": np.sum}, None, True, None, lists)
        y = contrib.batch_norm(x, *positional, "out", False, None, False, "NHWC", True, "bn", False, None, 0.99, None)
    names = ("beta", "gamma", "moving_mean", "moving_mean/biased", "moving_mean/local_step", "moving_variance")
    assert sorted(store) == [f"bn/{name}" for name in names]
    np.testing.assert_allclose(y, np.tanh(2 * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.01)), rtol=1e-12)
    np.testing.assert_allclose(store["bn/moving_mean"], x.mean(0))
    np.testing.assert_allclose(store["bn/moving_variance"], 0.9 + 0.1 * x.var(0))
    assert store.get_collection("b") == ["bn/beta"]
    assert store.get_collection("m") == ["bn/moving_mean"]
    assert store.get_collection("trainable_variables") == []
    assert store.get_collection("regularization_losses") == [4.0]
    assert store.get_collection("out")[0] is y


def test_defaults_are_the_originals():
    x = np.random.default_rng(0).normal(3, 2, size=(8, 2))
    with contrib.VariableStore() as store:
        y = contrib.batch_norm(x)
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 0.001), rtol=1e-12)
    assert sorted(store) == ["BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance"]
    assert store["BatchNorm/moving_mean"].tolist() == [0.0, 0.0]
    assert store.run_updates() == 1
    np.testing.assert_allclose(store["BatchNorm/moving_mean"], 0.001 * x.mean(0))
    np.testing.assert_allclose(store["BatchNorm/moving_variance"], 0.999 + 0.001 * x.var(0, ddof=1))


def test_renorm_where_the_original_refuses_it():
    """With weights, other collections or the debiased mean: the same rule. A clip may be a function of time."""
    rng = np.random.default_rng(0)
    limits = iter([1.0, 3.0])
    asked = {"renorm": True, "renorm_clipping": {"rmax": lambda: next(limits)}, "decay": 0.5, "renorm_decay": 0.5}
    x, z = rng.normal(size=(20, 2)), 10 * rng.normal(size=(20, 2)) + 4
    with contrib.VariableStore() as store:
        contrib.batch_norm(x, updates_collections=None, **asked, **AGAIN)
        y = contrib.batch_norm(z, updates_collections=None, batch_weights=np.ones(20), **asked, **AGAIN)
    s = [np.sqrt(v.var(0) + 0.001) for v in (x, z)]
    mixed_std, mixed_mean = 0.5 * s[0] + 0.5 * s[1], 0.5 * x.mean(0) + 0.5 * z.mean(0)
    assert (s[1] / mixed_std < 3).all()
    expected = (z - z.mean(0)) / s[1] * (s[1] / mixed_std) + (z.mean(0) - mixed_mean) / mixed_std
    np.testing.assert_allclose(y, expected, rtol=1e-9)
    # moving: half of (half of 0 and the first batch) and half of the debiased average
    debiased = (0.25 * x.mean(0) + 0.5 * z.mean(0)) / 0.75
    np.testing.assert_allclose(store["bn/moving_mean"], 0.5 * (0.5 * x.mean(0)) + 0.5 * debiased, rtol=1e-9)


def test_regularizers_count_on_every_route():
    """The original ignores them with weights or other collections."""
    x = np.random.default_rng(0).normal(size=(8, 2))
    losses = {"gamma": lambda v: (v**2).sum(), "beta": lambda v: None}
    with contrib.VariableStore() as store:
        for step in range(2):
            contrib.batch_norm(x, scale=True, batch_weights=np.ones(8), param_regularizers=losses, **AGAIN)
            assert store.get_collection("regularization_losses") == [2.0], step
    store["bn/gamma"] = [3.0, 1.0]
    assert store.get_collection("regularization_losses") == [10.0]


def test_adjustment_is_heeded_beside_weights_and_only_in_training():
    x = np.random.default_rng(0).normal(size=(8, 2))
    seen = []

    def adjustment(shape):
        seen.append(shape)
        return 2.0, [1.0, -1.0]

    with contrib.VariableStore():
        y = contrib.batch_norm(x, batch_weights=np.ones(8), updates_collections=None, adjustment=adjustment, **AGAIN)
        contrib.batch_norm(x, is_training=False, adjustment=adjustment, **AGAIN)
    np.testing.assert_allclose(y, 2 * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.001) + [1, -1], rtol=1e-12)
    assert seen == [(8, 2)]


def test_nan_leaves_its_channel_alone():
    x = np.random.default_rng(0).normal(size=(8, 3))
    spoilt = x.copy()
    spoilt[0, 1] = np.nan
    for asked in ({}, {"zero_debias_moving_mean": True}, {"renorm": True}, {"batch_weights": np.ones(8)}):
        clean, hurt = contrib.VariableStore(), contrib.VariableStore()
        for store, second in ((clean, x), (hurt, spoilt)):
            with store:
                contrib.batch_norm(x, updates_collections=None, decay=0.5, **asked, **AGAIN)
                before = store["bn/moving_mean"][1], store["bn/moving_variance"][1]
                if store is hurt:
                    with pytest.warns(RuntimeWarning, match="NaN or infinity in channel 1"):
                        y = contrib.batch_norm(second, updates_collections=None, decay=0.5, **asked, **AGAIN)
                    assert np.isnan(y[:, 1]).all()
                    assert not np.isnan(y[:, [0, 2]]).any()
                    assert (store["bn/moving_mean"][1], store["bn/moving_variance"][1]) == before
                else:
                    contrib.batch_norm(second, updates_collections=None, decay=0.5, **asked, **AGAIN)
        for average, weight in (("renorm_mean", "renorm_mean_weight"), ("renorm_stddev", "renorm_stddev_weight")):
            if f"bn/{average}" in hurt:  # what it stands for without its bias is what it was
                after_one_step = x.mean(0) if average == "renorm_mean" else np.sqrt(x.var(0) + 0.001)
                debiased = hurt[f"bn/{average}"] / hurt[f"bn/{weight}"]
                np.testing.assert_allclose(debiased[1], after_one_step[1], rtol=1e-12)
        if "bn/moving_mean/biased" in hurt:
            np.testing.assert_allclose(hurt["bn/moving_mean/biased"][1], before[0] * 0.75, rtol=1e-12)
        for name in clean:
            a, b = clean[name], hurt[name]
            np.testing.assert_array_equal(a[..., [0, 2]] if a.ndim else a, b[..., [0, 2]] if b.ndim else b)


@pytest.mark.parametrize("weights", [None, np.zeros(4)])
def test_an_empty_batch_updates_nothing(weights):
    x = np.zeros((0, 2)) if weights is None else np.ones((4, 2))
    with contrib.VariableStore() as store:
        contrib.batch_norm(np.ones((2, 2)), updates_collections=None, **AGAIN)
        before = dict(store)
        y = contrib.batch_norm(x, updates_collections=None, batch_weights=weights, **AGAIN)
        contrib.batch_norm(x, batch_weights=weights, **AGAIN)
        assert store.run_updates() == 0
    assert y.shape == x.shape
    assert all(store[name] is before[name] for name in store)


def test_lists_and_tensors():
    torch = pytest.importorskip("torch")
    rows = [[1.0, 10.0], [3.0, 30.0], [8.0, 20.0]]
    with contrib.VariableStore() as store:
        y = contrib.batch_norm(rows, **AGAIN)
        double = lambda shape: (2.0, torch.full((2,), 1.0))  # noqa: E731
        sample_by_sample = lambda shape: (torch.ones(3, 1), 0.0)  # noqa: E731
        for adjustment, expected in ((None, y), (double, 2 * y + 1), (sample_by_sample, y)):
            t = contrib.batch_norm(torch.tensor(rows), is_training=torch.tensor(True), adjustment=adjustment, **AGAIN)
            assert isinstance(t, torch.Tensor)
            assert t.dtype == torch.float32
            np.testing.assert_allclose(t.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert store.run_updates() == 4
        assert isinstance(
            contrib.batch_norm(torch.tensor(rows), is_training=torch.tensor(False), **AGAIN), torch.Tensor
        )


def test_the_signature_is_the_originals():
    defaults = {name: p.default for name, p in inspect.signature(contrib.batch_norm).parameters.items()}
    assert defaults.pop("inputs") is inspect.Parameter.empty
    assert list(defaults.items()) == [
        ("decay", 0.999),
        ("center", True),
        ("scale", False),
        ("epsilon", 0.001),
        ("activation_fn", None),
        ("param_initializers", None),
        ("param_regularizers", None),
        ("updates_collections", "update_ops"),
        ("is_training", True),
        ("reuse", None),
        ("variables_collections", None),
        ("outputs_collections", None),
        ("trainable", True),
        ("batch_weights", None),
        ("fused", None),
        ("data_format", "NHWC"),
        ("zero_debias_moving_mean", False),
        ("scope", None),
        ("renorm", False),
        ("renorm_clipping", None),
        ("renorm_decay", 0.99),
        ("adjustment", None),
    ]


@pytest.mark.skipif(not DOCS.exists(), reason="reads the source tree")
def test_the_page_has_every_parameter_and_its_code_runs(tmp_path):
    page = DOCS.read_text()
    table = page.split("## Every parameter")[1].split("###")[0]
    for name in inspect.signature(contrib.batch_norm).parameters:
        assert f"`{name}`" in table, name
    code = page.split("```python\n")[1].split("```")[0]
    run = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert contrib.VariableStore.load(tmp_path / "bn.model")["bn/moving_mean"].shape == (8,)
