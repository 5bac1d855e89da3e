"""The store of `contrib`: scopes, collections, refusals that change nothing, files, threads."""

import contextvars
import itertools
import re
import threading

import numpy as np
import pytest

import numbabn
from numbabn import contrib

X = np.random.default_rng(0).normal(size=(6, 2))
AGAIN = contrib.AUTO_REUSE


@pytest.fixture
def store():
    with contrib.VariableStore() as store:
        yield store


# Refusals --------------------------------------------------------------------------------------------


def _fails(value):
    raise RuntimeError("from the caller's own function")


REFUSED = [
    (ValueError, "data_format", {"data_format": "NWC"}),
    (ValueError, "data_format", {"data_format": None}),
    (TypeError, "is_training", {"is_training": 1}),
    (TypeError, "is_training", {"is_training": np.array([True, False])}),
    (TypeError, "is_training", {"is_training": None}),
    (ValueError, "decay", {"decay": 1.5}),
    (TypeError, "decay", {"decay": "0.9"}),
    (ValueError, "epsilon", {"epsilon": -1e-3}),
    (ValueError, "epsilon", {"epsilon": np.nan}),
    (TypeError, "center", {"center": 1}),
    (TypeError, "scale", {"scale": None}),
    (TypeError, "trainable", {"trainable": "yes"}),
    (TypeError, "fused", {"fused": 1}),
    (ValueError, "fused.*batch_weights", {"fused": True, "batch_weights": np.ones(6)}),
    (ValueError, "fused.*renorm", {"fused": True, "renorm": True}),
    (ValueError, "fused.*adjustment", {"fused": True, "adjustment": lambda shape: (1, 0)}),
    (ValueError, "fused.*3 dimensions", {"inputs": np.ones((2, 2, 2)), "fused": True}),
    (ValueError, "fused.*5 dimensions", {"inputs": np.ones((2,) * 5), "fused": True, "updates_collections": None}),
    (ValueError, "batch_weights", {"batch_weights": np.ones(5)}),
    (ValueError, "batch_weights", {"batch_weights": np.ones((6, 1))}),
    (ValueError, "negative", {"batch_weights": -np.ones(6)}),
    (ValueError, "renorm_clipping", {"renorm": True, "renorm_clipping": {"max": 3}}),
    (ValueError, "renorm_clipping", {"renorm": True, "renorm_clipping": {"rmin": 3, "rmax": 2}}),
    (ValueError, "renorm_clipping", {"renorm": True, "renorm_clipping": {"dmax": -1}}),
    (TypeError, "renorm_clipping", {"renorm": True, "renorm_clipping": {"dmax": "wide"}}),
    (TypeError, "renorm_clipping", {"renorm": True, "renorm_clipping": 3}),
    (ValueError, "renorm_decay", {"renorm": True, "renorm_decay": 2}),
    (TypeError, "adjustment", {"adjustment": 2}),
    (ValueError, "adjustment", {"adjustment": lambda shape: (np.ones(3), 0)}),
    (ValueError, "adjustment", {"adjustment": lambda shape: (1, np.ones((2, 6, 2)))}),
    (RuntimeError, "own function", {"adjustment": _fails}),
    (RuntimeError, "own function", {"activation_fn": _fails}),
    (RuntimeError, "own function", {"param_initializers": {"beta": _fails}}),
    (ValueError, "activation", {"activation_fn": "step"}),
    (ValueError, "param_initializers.*moving_var'", {"param_initializers": {"moving_var": 1}}),
    (ValueError, "param_initializers.*beta", {"param_initializers": {"beta": [1, 2, 3]}}),
    (ValueError, "moving_variance.*negative", {"param_initializers": {"moving_variance": -1}}),
    (TypeError, "param_initializers", {"param_initializers": {"beta": "zeros"}}),
    (TypeError, "param_initializers", {"param_initializers": [0, 1]}),
    (ValueError, "param_regularizers.*moving_mean", {"param_regularizers": {"moving_mean": np.sum}}),
    (TypeError, "param_regularizers", {"scale": True, "param_regularizers": {"gamma": 0.1}}),
    (TypeError, "updates_collections", {"updates_collections": 3}),
    (ValueError, "updates_collections", {"updates_collections": []}),
    (TypeError, "variables_collections", {"variables_collections": [3]}),
    (ValueError, "variables_collections.*'mean'", {"variables_collections": {"mean": ["a"]}}),
    (TypeError, "outputs_collections", {"outputs_collections": [None]}),
    (TypeError, "reuse", {"reuse": "auto"}),
    (ValueError, "reuse.*scope", {"reuse": True, "scope": None}),
    (ValueError, "does not exist.*reuse=AUTO_REUSE", {"reuse": True, "scope": "elsewhere"}),
    (ValueError, "'known/beta' exists already.*reuse=True", {"scope": "known"}),
    (ValueError, r"'known/beta' has shape \(2,\)", {"scope": "known", "reuse": AGAIN, "inputs": np.ones((4, 3))}),
    (ValueError, "'known/gamma' does not exist", {"scope": "known", "reuse": True, "scale": True}),
    (ValueError, "biased' does not exist", {"scope": "known", "reuse": True, "zero_debias_moving_mean": True}),
    (TypeError, "scope", {"scope": 3}),
    (ValueError, "scope", {"scope": ""}),
    (ValueError, "scope", {"scope": "a//b"}),
    (ValueError, "scope", {"scope": "../b"}),
    (ValueError, "scope", {"scope": "a/./b"}),
    (ValueError, "scope", {"scope": "a/.."}),
    (ValueError, "scope", {"scope": "a\n"}),
    (ValueError, "inputs.*two dimensions", {"inputs": np.ones(4)}),
    (ValueError, "inputs.*dimension", {"inputs": 3.0}),
    (TypeError, "inputs.*complex", {"inputs": np.ones((4, 2), complex)}),
    (ValueError, "inputs.*rectangular", {"inputs": [[1, 2], [3]]}),
]


def named(value):
    """An id that is the same in every process: without addresses of functions."""
    return re.sub(r" at 0x\w+", "", str(value))[:40]


@pytest.mark.parametrize(("error", "message", "arguments"), REFUSED, ids=named)
def test_a_refused_call_changes_nothing(store, error, message, arguments):
    contrib.batch_norm(X, scope="known", updates_collections=None)
    before, lists = dict(store), {name: dict(items) for name, items in store._collections.items()}
    given = {"inputs": X, "scope": "new", **arguments}
    with pytest.raises(error, match=message):
        contrib.batch_norm(**given)
    assert dict(store) == before or all(store[name] is before[name] for name in store)
    assert list(store) == list(before)
    assert store._collections == lists
    contrib.batch_norm(X)
    assert "BatchNorm/beta" in store  # no default name was used up


def test_the_originals_lenience_that_stays():
    """fused=None falls back, as there; only an explicit True is held to."""
    with contrib.VariableStore():
        for inputs, more in ((np.ones((2, 2, 2)), {}), (X, {"batch_weights": np.ones(6)}), (X, {"renorm": True})):
            contrib.batch_norm(inputs, **more)
        contrib.batch_norm(np.ones((2,) * 5), fused=True)


# Scopes ----------------------------------------------------------------------------------------------


def test_scopes_nest_and_yield_what_holds(store):
    with contrib.variable_scope("a") as a:
        assert (a.name, a.reuse, a.store) == ("a", None, store)
        with contrib.variable_scope("b/c", reuse=AGAIN) as b:
            assert (b.name, b.reuse) == ("a/b/c", AGAIN)
            with contrib.variable_scope("d", reuse=False) as d:
                assert (d.name, d.reuse) == ("a/b/c/d", AGAIN)
            with contrib.variable_scope(a) as again:
                assert (again.name, again.reuse) == ("a", None)
    assert contrib.current_store() is store
    assert repr(b) == f"VariableScope(store={store!r}, name='a/b/c', reuse=AUTO_REUSE)"


def test_names_with_dots(store):
    for name in (".a", "a.b/c.", "a/..b"):
        contrib.batch_norm(X, scope=name)
        assert f"{name}/beta" in store


def test_scope_errors(store):
    for bad, error in ((None, TypeError), (3, TypeError), ("", ValueError), ("a/", ValueError), ("ä", ValueError)):
        with pytest.raises(error, match="scope"), contrib.variable_scope(bad):
            pass
    with contrib.VariableStore(), contrib.variable_scope("a") as foreign:
        pass
    with pytest.raises(ValueError, match="belongs to another store"), contrib.variable_scope(foreign):
        pass
    with foreign.store, contrib.variable_scope(foreign):
        contrib.batch_norm(X, scope="bn")
    assert "a/bn/beta" in foreign.store
    assert list(store) == []


def test_a_scope_is_left_when_its_block_fails(store):
    with pytest.raises(RuntimeError), contrib.variable_scope("a"):
        raise RuntimeError
    with pytest.raises(RuntimeError), contrib.VariableStore():
        raise RuntimeError
    assert contrib.current_store() is store
    contrib.batch_norm(X)
    assert "BatchNorm/beta" in store


def test_stores_within_stores(store):
    """An inner store starts at its top; the outer one, entered again, is where it was."""
    inner = contrib.VariableStore()
    with contrib.variable_scope("a", reuse=AGAIN):
        with inner:
            contrib.batch_norm(X, scope="bn")
            with store:
                contrib.batch_norm(X, scope="bn")
        with store:
            contrib.batch_norm(X, scope="cn")
    assert sorted({name.rpartition("/")[0] for name in store}) == ["a/bn", "a/cn"]
    assert {name.rpartition("/")[0] for name in inner} == {"bn"}
    with store:
        contrib.batch_norm(X)
    with store:
        contrib.batch_norm(X)
    assert {"BatchNorm/beta", "BatchNorm_1/beta"} <= set(store)


def test_the_store_of_the_process():
    everywhere = contextvars.Context().run(contrib.current_store)
    everywhere.clear()
    try:
        with contrib.VariableStore():
            assert contextvars.Context().run(contrib.current_store) is everywhere
        contextvars.Context().run(contrib.batch_norm, X)
        assert "BatchNorm/beta" in everywhere
        assert everywhere.run_updates() == 1
    finally:
        everywhere.clear()
    assert len(everywhere) == 0
    contextvars.Context().run(contrib.batch_norm, X)
    assert "BatchNorm/beta" in everywhere
    everywhere.clear()


# Variables and collections ---------------------------------------------------------------------------


def test_variables_are_set_by_name(store):
    contrib.batch_norm(X, scope="bn", scale=True)
    store["bn/gamma"] = [2, 3]
    store["bn/beta"] = np.float32([1, 1])
    y = contrib.batch_norm(X, scope="bn", scale=True, reuse=True)
    np.testing.assert_allclose(y, [2, 3] * (X - X.mean(0)) / np.sqrt(X.var(0) + 0.001) + 1, rtol=1e-12)
    assert store["bn/gamma"].dtype == np.float64
    mine = np.array([5.0, 6.0])
    store["bn/gamma"] = mine
    mine[:] = 0
    assert store["bn/gamma"].tolist() == [5.0, 6.0]
    with pytest.raises(ValueError, match="read-only"):
        store["bn/gamma"][0] = 1
    for name, value, error in (
        ("bn/gamma", 2.0, ValueError),
        ("bn/gamma", [1, 2, 3], ValueError),
        ("bn/gamma", ["a", "b"], TypeError),
        ("bn/moving_variance", [1, -1], ValueError),
        ("bn/delta", [1, 2], KeyError),
    ):
        with pytest.raises(error, match=name):
            store[name] = value
    with pytest.raises(KeyError, match="there are: 'bn/beta'"):
        store["gamma"]
    with pytest.raises(KeyError, match="none yet"):
        contrib.VariableStore()["gamma"]


def test_trainable_and_named_collections(store):
    contrib.batch_norm(X, scope="a", scale=True, variables_collections="mine")
    contrib.batch_norm(X, scope="b", trainable=False, variables_collections={"beta": ["mine", "betas"]})
    assert store.get_collection("trainable_variables") == ["a/beta", "a/gamma"]
    assert store.get_collection(contrib.GraphKeys.GLOBAL_VARIABLES) == list(store)
    assert store.get_collection("mine") == ["a/beta", "a/gamma", "a/moving_mean", "a/moving_variance", "b/beta"]
    assert store.get_collection("betas") == ["b/beta"]
    assert store.get_collection("nothing") == []
    # trainable=False is no inference: the moving statistics learn as ever
    before = store["b/moving_mean"]
    store.run_updates()
    assert (store["b/moving_mean"] != before).all()
    contrib.batch_norm(X, scope="b", reuse=True, variables_collections="mine")
    assert store.get_collection("mine")[-2:] == ["b/moving_mean", "b/moving_variance"]


def test_outputs_are_the_newest_of_each_scope(store):
    y = [contrib.batch_norm(X, scope=scope, reuse=AGAIN, outputs_collections=["out", "more"]) for scope in "aab"]
    assert [output is one for output, one in zip(store.get_collection("out"), y[1:], strict=True)] == [True, True]
    assert len(store.get_collection("more")) == 2


def test_updates_say_what_they_are(store):
    contrib.batch_norm(X, scope="bn")
    (update,) = store.get_collection("update_ops")
    assert repr(update) == "<Update of 'bn': waits to be called>"
    assert repr(store) == "<VariableStore: 3 variables in 1 scope; 1 update waits in 'update_ops'>"
    contrib.batch_norm(X, scope="cn")
    assert repr(store) == "<VariableStore: 6 variables in 2 scopes; 2 updates wait in 'update_ops'>"
    assert store.run_updates() == 2
    assert (update.scope, update.done) == ("bn", True)
    assert repr(update) == "<Update of 'bn': done>"
    assert repr(store) == "<VariableStore: 6 variables in 2 scopes>"


def test_forgotten_updates_are_told_of(store):
    for _ in range(3):
        contrib.batch_norm(X, scope="bn", reuse=AGAIN)
        contrib.batch_norm(X, scope="cn", reuse=AGAIN, updates_collections=None)
    with pytest.warns(RuntimeWarning, match=r"'bn'.*3 updates.*never run.*store.run_updates") as caught:
        contrib.batch_norm(X, scope="bn", reuse=True, is_training=False)
    assert caught[0].filename == __file__
    contrib.batch_norm(X, scope="cn", reuse=True, is_training=False)
    store.run_updates()
    contrib.batch_norm(X, scope="bn", reuse=AGAIN)
    contrib.batch_norm(X, scope="bn", reuse=True, is_training=False)  # one that waits is no reason, once some have run


def test_an_update_outlives_nothing(store):
    contrib.batch_norm(X, scope="bn")
    (update,) = store.get_collection("update_ops")
    store.clear()
    with pytest.raises(KeyError, match="bn/moving_mean"):
        update()
    assert len(store) == 0


def test_equality():
    a, b = contrib.VariableStore(), contrib.VariableStore()
    assert a == b
    with a:
        contrib.batch_norm(X, scope="bn")
    assert a != b
    with b:
        contrib.batch_norm(X, scope="bn")
    assert a == b
    b.run_updates()
    assert a != b
    assert a != dict(a).keys()


# Files -----------------------------------------------------------------------------------------------


@pytest.fixture
def trained(store):
    for scope in ("a", "b"):
        contrib.batch_norm(X, decay=0.5, scale=True, scope=scope, renorm=True, updates_collections=None)
    return store


def test_part_of_a_file(trained, tmp_path):
    path = tmp_path / "part"
    trained.save(path, names=trained.get_collection("trainable_variables"))
    trained["a/gamma"] = [7, 7]
    moved = trained["a/moving_mean"]
    with pytest.raises(ValueError, match="lacks 'a/moving_mean'"):
        trained.restore(path)
    assert trained["a/gamma"].tolist() == [7, 7]
    trained.restore(path, names=["a/gamma"])
    assert trained["a/gamma"].tolist() == [1, 1]
    assert trained["a/moving_mean"] is moved
    part = contrib.VariableStore.load(path)
    assert sorted(part) == ["a/beta", "a/gamma", "b/beta", "b/gamma"]
    assert part.get_collection("trainable_variables") == ["a/beta", "a/gamma", "b/beta", "b/gamma"]
    with part, pytest.raises(ValueError, match="'a/moving_mean' does not exist"):
        contrib.batch_norm(X, scope="a", scale=True, reuse=True, is_training=False)


def test_refused_files_change_nothing(trained, tmp_path):
    path, other = tmp_path / "bn", tmp_path / "other"
    trained.save(path)
    with contrib.VariableStore() as wider:
        for scope in ("a", "b"):
            contrib.batch_norm(np.ones((4, 3)), scale=True, scope=scope, renorm=True)
    wider.save(other)
    before = dict(trained)
    for bad, names, error, message in (
        (other, None, ValueError, r"'a/beta' has shape \(2,\) but is given shape \(3,\)"),
        (path, ["a/beta", "c/beta"], ValueError, "'c/beta', not in this store"),
        (path, "a/beta", TypeError, "several names"),
        (tmp_path / "nothing", None, FileNotFoundError, "nothing"),
    ):
        with pytest.raises(error, match=message):
            trained.restore(bad, names=names)
    (tmp_path / "damaged").write_bytes(path.read_bytes()[:-40])
    numbabn.BatchNorm(2).save(tmp_path / "batchnorm")
    for bad in ("damaged", "batchnorm"):
        with pytest.raises(numbabn.StateError):
            trained.restore(tmp_path / bad)
        with pytest.raises(numbabn.StateError):
            contrib.VariableStore.load(tmp_path / bad)
    contrib.batch_norm(X, scope="c")
    with pytest.raises(ValueError, match="lacks 'c/beta'"):
        trained.restore(path)
    with contrib.VariableStore() as smaller:
        contrib.batch_norm(X, scope="a", scale=True)
    with pytest.raises(ValueError, match="also holds 'a/renorm_mean'"):
        smaller.restore(path)
    assert all(trained[name] is before[name] for name in before)
    with pytest.raises(ValueError, match="no variables to save"):
        contrib.VariableStore().save(tmp_path / "empty")
    with pytest.raises(ValueError, match="'d', not in this store"):
        trained.save(tmp_path / "empty", names=["d"])
    assert not (tmp_path / "empty").exists()


def test_a_file_of_nonsense_is_refused(trained, tmp_path):
    for config, arrays in (
        ({}, {"a/beta": np.zeros(2)}),
        ({"collections": []}, {"a/beta": np.zeros(2)}),
        ({"collections": {"mine": ["b"]}}, {"a/beta": np.zeros(2)}),
        ({"collections": {}}, {"a/moving_variance": -np.ones(2)}),
    ):
        numbabn.state.save(tmp_path / "bad", "variables", config, arrays)
        with pytest.raises(numbabn.StateError, match="make no sense"):
            contrib.VariableStore.load(tmp_path / "bad")


def test_a_file_of_later_days_and_its_collections(trained, tmp_path):
    trained.save(tmp_path / "bn.model")
    loaded = contrib.VariableStore.load(str(tmp_path / "bn.model"))
    for name in ("trainable_variables", "variables", "model_variables"):
        assert loaded.get_collection(name) == trained.get_collection(name)
    with loaded, pytest.raises(ValueError, match="exists already"):
        contrib.batch_norm(X, scope="a", scale=True)
    assert loaded.get_collection("update_ops") == []


# Threads ---------------------------------------------------------------------------------------------


def in_threads(n, work):
    failures = []

    def guarded(k):
        try:
            work(k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_share_a_store_and_lose_no_update():
    store = contrib.VariableStore()
    steps, ones = 25, np.ones((4, 2))

    def work(k):
        with store:
            for _ in range(steps):
                options = {"decay": 0.5, "zero_debias_moving_mean": True, "scope": "bn", "reuse": AGAIN}
                contrib.batch_norm(ones, updates_collections=None if k % 2 else "later", **options)
                store.run_updates("later")
                contrib.batch_norm(ones, is_training=False, **options)

    in_threads(4, work)
    assert store.run_updates("later") == 0
    assert store["bn/moving_mean/local_step"] == 4 * steps
    assert store["bn/moving_mean"].tolist() == [1.0, 1.0]


def test_default_names_in_threads_are_never_shared():
    store = contrib.VariableStore()

    def work(_):
        with store:
            for _ in range(10):
                contrib.batch_norm(X)

    in_threads(4, work)
    assert len(store) == 3 * 40
    assert all(f"BatchNorm_{k}/beta" in store for k in range(1, 40))


def test_of_two_threads_that_make_a_scope_one_is_refused():
    store = contrib.VariableStore()
    both = threading.Barrier(2)
    outcomes = []

    def work(_):
        def meet(shape):
            both.wait(30)
            return 0.0

        with store:
            try:
                contrib.batch_norm(X, scope="bn", param_initializers={"beta": meet})
                outcomes.append("made")
            except ValueError as error:
                outcomes.append(str(error))

    in_threads(2, work)
    assert sorted(len(outcome) > 4 for outcome in outcomes) == [False, True]
    assert "exists already" in max(outcomes, key=len)
    assert len(store.get_collection("update_ops")) == 1


def test_of_two_threads_that_make_a_scope_with_auto_reuse_both_count():
    store = contrib.VariableStore()
    both = threading.Barrier(2)

    def work(k):
        def meet(shape):
            both.wait(30)
            return 0.0

        with store:
            options = {"param_initializers": {"beta": meet}, "zero_debias_moving_mean": True}
            contrib.batch_norm(X + k, updates_collections=None, scope="bn", reuse=AGAIN, **options)

    in_threads(2, work)
    assert store["bn/moving_mean/local_step"] == 2


def test_an_inference_sees_mean_and_variance_of_one_moment():
    """The training thread keeps mean and variance equal; whoever mixed two moments would see otherwise."""
    store = contrib.VariableStore()
    stop = threading.Event()
    wide = np.zeros((2, 64))

    def train():
        with store:
            for k in itertools.count(1):
                if stop.is_set() or k > 20_000:
                    return
                value = float(k % 97 + 1)
                x = np.add(wide, [[value - np.sqrt(value)], [value + np.sqrt(value)]])
                contrib.batch_norm(x, decay=0.0, fused=False, updates_collections=None, scope="bn", reuse=AGAIN)

    def infer():
        with store:
            for _ in range(300):
                y = contrib.batch_norm(wide, is_training=False, epsilon=0.0, fused=False, scope="bn", reuse=AGAIN)
                # -mean / sqrt(var) with mean = var = v is -sqrt(v); before the first batch it is 0
                root = -y[0, 0]
                assert abs(root**2 - round(root**2)) < 1e-6
                assert np.ptp(y) == 0

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        in_threads(2, lambda _: infer())
    finally:
        stop.set()
        trainer.join()
