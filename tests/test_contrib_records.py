"""`contrib.batch_norm` beside the answers of tf.contrib.layers.batch_norm itself, over many steps of each route."""

import functools
import json
from pathlib import Path

import contrib_cases as cases
import numpy as np
import pytest

from numbabn import contrib

FOLDER = Path(__file__).parent / "data" / "contrib"
LAST, SLIM = "tf-1.14.0", "tf_slim-1.1.0-tf-2.12.1"
RECORDS = {name: dict(np.load(FOLDER / f"{name}.npz")) for name in (LAST, SLIM)}
# What ours does otherwise, each a row in docs/contrib.md.
OTHERWISE = {
    (SLIM, "renorm"): "TensorFlow 2 no longer mixes the batch into the averages of the renormalization",
    (SLIM, "small epsilon"): "TensorFlow 2 no longer raises epsilon for its fused operation",
    (LAST, "5d"): "TensorFlow 1 has no fused operation for five dimensions",
    ("any", "double fused"): "the fused operation refuses float64",
    ("any", "4d double"): "the core layer stores another variance for float64 than for float32",
}


def reason(version, name):
    for (where, part), why in OTHERWISE.items():
        if where in (version, "any") and (name == part if part in ("5d", "4d double") else part in name):
            return why if name != "2d small epsilon unfused" else None
    return None


@functools.cache
def ours(name):
    """What `record_contrib.record` keeps, of ours."""
    row = cases.CASES[name]
    given = dict(row["arguments"])
    if row["adjustment"]:
        given["adjustment"] = lambda shape: cases.ADJUSTMENT
    found = {"train": [], "infer": []}
    with contrib.VariableStore() as store:
        for step in range(cases.STEPS):
            x, w = cases.batch(name, step)
            options = {
                "scope": "bn",
                "reuse": contrib.AUTO_REUSE,
                "activation_fn": row["activation"],
                "batch_weights": w if row["weights"] else None,
                "variables_collections": ["mine"],
            }
            found["train"].append(contrib.batch_norm(x, **options, **given))
            if updates := given.get("updates_collections", "update_ops"):
                assert store.run_updates(updates) == 1
            after = dict(store)
            found["infer"].append(contrib.batch_norm(x, is_training=np.array(False), **options, **given))
            assert dict(store).keys() == after.keys()
            for variable, value in store.items():
                assert value is after[variable]  # not a bit can have changed
                found.setdefault(variable.removeprefix("bn/"), []).append(value)
    keys = ("variables", "model_variables", "trainable_variables", "mine")
    lists = {key: sorted(v.removeprefix("bn/") for v in store.get_collection(key)) for key in keys}
    return {key: np.array(value) for key, value in found.items()}, lists


@pytest.mark.parametrize("version", RECORDS)
@pytest.mark.parametrize("name", cases.CASES)
def test_the_original(version, name):
    record = {k.split("|")[1]: v for k, v in RECORDS[version].items() if k.startswith(f"{name}|")}
    why = reason(version, name)
    if "refused" in record:
        assert why, record["refused"]
        ours(name)  # works here
        return
    row = cases.CASES[name]
    found, lists = ours(name)
    expected_lists = json.loads(str(record.pop("lists")))
    close = {}
    for key in record.keys() & found.keys():
        assert found[key].shape == record[key].shape, key
        if key in ("train", "infer"):
            assert found[key].dtype == record[key].dtype
        # The original keeps 1 - decay in float32, whatever the inputs.
        rough = {
            "float16": 2e-3,
            "float32": 2e-5,
            "float64": 1e-11 if key == "train" and "renorm" not in name else 1e-6,
        }[row["dtype"]]
        size = np.abs(record[key].astype(np.float64)).max(initial=1.0)
        close[key] = np.allclose(found[key], record[key], rtol=0, atol=rough * size)
    if why:
        assert not all(close.values()) or record.keys() != found.keys(), "the difference has gone: compare it"
    else:
        assert all(close.values()), close
        assert record.keys() == found.keys()
        # One of its routes counts these two among the model's variables, the other does not, as we do not.
        model = expected_lists["model_variables"]
        expected_lists["model_variables"] = [v for v in model if not v.startswith("moving_mean/")]
        assert lists == expected_lists


@pytest.mark.parametrize("version", RECORDS)
def test_names_and_reuse(version):
    told = json.loads(str(RECORDS[version]["stories"]))
    again = contrib.AUTO_REUSE

    def bn(scope=None, reuse=None, channels=3, **given):
        return contrib.batch_norm(np.zeros((2, channels)), scope=scope, reuse=reuse, **given)

    for name, expected in told.items():
        with contrib.VariableStore() as store:
            try:
                cases.stories(bn, contrib.variable_scope, again)[name]()
                found = sorted(store)
            except Exception as error:
                found = type(error).__name__
        assert found == expected, name


@pytest.mark.parametrize("version", RECORDS)
def test_the_wrong_way_of_the_seed(version):
    """Both operations of the original run whichever branch is taken; called by hand here, both give its numbers."""
    record = RECORDS[version]
    rng = np.random.RandomState(1006)
    both = {"scale": True, "scope": "bn"}
    with contrib.VariableStore() as store:
        for step in range(25):
            x = rng.normal([0.0, 100.0], 1.0, (4 if step < 20 else 1, 2)).astype(np.float32)
            trained = contrib.batch_norm(x, decay=0.9, updates_collections=None, reuse=step > 0, **both)
            tested = contrib.batch_norm(x, decay=1.0, updates_collections=None, is_training=False, reuse=True, **both)
            for key, value in (("mean", store["bn/moving_mean"]), ("var", store["bn/moving_variance"])):
                np.testing.assert_allclose(value, record[f"wrong way|{key}"][step], rtol=1e-5, atol=1e-5)
            if step < 20:
                np.testing.assert_allclose(trained[0], record["wrong way|output"][step], rtol=1e-3, atol=1e-3)
    assert tested.shape == trained.shape
