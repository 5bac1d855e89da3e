"""The toy run that this project started from: batch normalization done the wrong way, and the right way.

Somebody trained on batches of 4 from two features with means 0 and 100, then tested with single samples, and saw the
running mean and variance change while testing. This runs it both ways with `numbabn.contrib`, which has the interface
of the system they used; shows which variable changes in which mode, checks ten inferences by hand, saves and restores,
and ends with the same in `numbabn.BatchNorm`.

    python examples/toy_run.py
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import numbabn
from numbabn import contrib

MEAN, COVARIANCE = [0.0, 100.0], np.eye(2)
DECAY, EPSILON = 0.9, 0.001
VARIABLES = ("beta", "gamma", "moving_mean", "moving_variance")


def data() -> tuple[np.ndarray, np.ndarray]:
    """100 batches of 4 to train with, ten single samples to test with."""
    rng = np.random.default_rng(1006)
    values = rng.multivariate_normal(MEAN, COVARIANCE, size=410, method="cholesky")
    return values[:400].reshape(100, 4, 2), values[400:].reshape(10, 1, 2)


# One operation, told at each call whether it trains.
operation = partial(
    contrib.batch_norm,
    decay=DECAY,
    center=True,
    scale=True,
    epsilon=EPSILON,
    updates_collections=None,
    scope="bn",
    reuse=contrib.AUTO_REUSE,
)


def right_way(x: np.ndarray, is_training: np.ndarray, **options) -> np.ndarray:
    """What the accepted answer says: hand `is_training` over as a run-time value, here a 0-d boolean array."""
    return operation(x, is_training=is_training, **options)


def wrong_way(x: np.ndarray, is_training: np.ndarray) -> np.ndarray:
    """Two operations on one scope, and a choice between their results, as `tf.cond` made it from outside.

    The training one is built with is_training=True, and its update in place is no part of either branch: it ran
    whichever branch was taken.
    """
    trained = operation(x, is_training=True)
    tested = operation(x, decay=1.0, is_training=False)
    return trained if is_training else tested


def pair(values: np.ndarray, width: int = 8, digits: int = 4) -> str:
    return " ".join(f"{value:{width}.{digits}f}" for value in values)


def state(store: contrib.VariableStore) -> str:
    beta, gamma, mean, var = (store[f"bn/{name}"] for name in VARIABLES)
    return f"beta {pair(beta, 1, 0)}  gamma {pair(gamma, 1, 0)}  mean {pair(mean)}  var {pair(var)}"


def run(bn, batches: np.ndarray, samples: np.ndarray) -> contrib.VariableStore:
    """Train, then test with single samples, and watch the moving statistics."""
    with contrib.VariableStore() as store:
        for batch in batches:
            bn(batch, is_training=np.array(True))
        print(f"  after 100 training steps  {state(store)}")
        for k, sample in enumerate(samples[:3], 1):
            bn(sample, is_training=np.array(False))
            print(f"  after inference {k}         {state(store)}")
    return store


def optimizer_step(store: contrib.VariableStore, x: np.ndarray, y: np.ndarray) -> None:
    """One step of gradient descent towards outputs of mean 1 and deviation 2, for what is listed as trainable."""
    x_hat = (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)
    _, dgamma, dbeta = numbabn.batch_norm_backward(
        y - (2 * x_hat + 1), x, numbabn.moments(x), store["bn/gamma"], eps=EPSILON
    )
    for name, gradient in (("bn/beta", dbeta), ("bn/gamma", dgamma)):
        if name in store.get_collection(contrib.GraphKeys.TRAINABLE_VARIABLES):
            store[name] = store[name] - 0.1 * gradient


def changes(batch: np.ndarray, *, way=right_way, training=True, run_updates=False, **options) -> list[str]:
    """Which variables differ after one call, with an optimizer step after it if it was meant to train."""
    with contrib.VariableStore() as store:
        operation(batch, is_training=False, **options)
        before = dict(store)
        y = way(batch, np.array(training), **options)
        if run_updates:
            store.run_updates()
        if training:
            optimizer_step(store, batch, y)
        return ["-" if np.array_equal(store[f"bn/{v}"], before[f"bn/{v}"]) else "changes" for v in VARIABLES]


def table(batch: np.ndarray) -> None:
    registered = {"updates_collections": contrib.GraphKeys.UPDATE_OPS}
    rows = {
        "training": changes(batch),
        "training, updates registered and run": changes(batch, run_updates=True, **registered),
        "training, updates registered, never run": changes(batch, **registered),
        "training, trainable=False": changes(batch, trainable=False),
        "inference": changes(batch, training=False),
        "inference, the wrong way": changes(batch, way=wrong_way, training=False),
    }
    print(f"  {'':40}" + "".join(f"{name:17}" for name in VARIABLES).rstrip())
    for mode, row in rows.items():
        print(f"  {mode:40}" + "".join(f"{change:17}" for change in row).rstrip())
    assert rows["training"] == ["changes"] * 4
    assert rows["inference"] == ["-"] * 4
    print(
        "  updates_collections: None updates the moving statistics at once; with a name, you run the update.\n"
        "  trainable: whether the optimizer finds beta and gamma; the moving statistics learn all the same.\n"
        "  reuse: whether a call makes its variables (None), must find them (True), or either (AUTO_REUSE)."
    )


def by_hand(store: contrib.VariableStore, samples: np.ndarray) -> None:
    """Beside the asker's formula, with epsilon added to the deviation, and the exact one, added to the variance."""
    mean, var = store["bn/moving_mean"], store["bn/moving_variance"]
    print(f"  {'x':22}{'batch_norm':22}{'(x-mean)/(std+eps)':22}(x-mean)/sqrt(var+eps)")
    with store:
        for x in samples:
            y = right_way(x, np.array(False))[0]
            asked = (x[0] - mean) / (np.sqrt(var) + EPSILON)
            exact = (x[0] - mean) / np.sqrt(var + EPSILON)
            assert np.allclose(y, exact, rtol=1e-12, atol=1e-12)
            assert np.allclose(y, asked, rtol=2e-3)
            print("  " + "".join(f"{pair(v):22}" for v in (x[0], y, asked, exact)).rstrip())


def main() -> None:
    batches, samples = data()

    print(
        "The wrong way: two operations on one scope. The moving statistics change in inference (var by 0.9 each time):"
    )
    wrong = run(wrong_way, batches, samples)
    print("\nThe right way: one operation, told at each call. They do not:")
    store = run(right_way, batches, samples)
    assert not np.array_equal(wrong["bn/moving_mean"], store["bn/moving_mean"])

    print("\nWhat changes in one call (beta and gamma by an optimizer step after it):")
    table(batches[0])

    print("\nTen single samples in inference, with beta 0 and gamma 1, and by hand:")
    learned = dict(store)
    by_hand(store, samples)
    assert all(store[name] is learned[name] for name in store)
    print("  beta, gamma and the moving statistics are what they were, to the last bit")

    print("\nSaved to bn.model and restored:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bn.model"
        store.save(path)
        with contrib.VariableStore() as restored:
            right_way(samples[0], np.array(False))  # makes the variables
            restored.restore(path)
            after = [right_way(x, np.array(False)) for x in samples]
        with store:
            before = [right_way(x, np.array(False)) for x in samples]
        assert restored == store
        assert np.array_equal(after, before)
        print(f"  {restored}: every variable and every inference the same, to the last bit")

        print("\nThe same with numbabn.BatchNorm, one object for both modes:")
        bn = numbabn.BatchNorm(2, decay=DECAY, eps=EPSILON, ddof=1, gamma=1.0, beta=0.0)
        for batch in batches:
            bn(batch, training=np.array(True))
        learned = bn.state_dict()
        outputs = [bn(x, training=np.array(False)) for x in samples]
        assert np.allclose(bn.running_mean, store["bn/moving_mean"], rtol=1e-12, atol=1e-12)
        assert np.allclose(bn.running_var, store["bn/moving_variance"], rtol=1e-12)
        assert np.allclose(outputs, before, rtol=1e-9, atol=1e-9)
        assert all(np.array_equal(value, learned[name]) for name, value in bn.state_dict().items())
        bn.save(path)
        assert numbabn.BatchNorm.load(path) == bn
        print(f"  {bn}")
        print("  the same averages, the same ten outputs; no inference changed a bit; saved and loaded, equal")


if __name__ == "__main__":
    main()
