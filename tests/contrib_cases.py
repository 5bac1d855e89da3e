"""What is asked of tf.contrib.layers.batch_norm and of ours alike; plain enough for the Python 3.7 of the original.

`record_contrib.py` has the original answer and keeps the answers in data/contrib; `test_contrib_records.py` compares.
"""

import numpy as np

STEPS = 8
R2, R3, R4, R5 = (
    (6, 3),
    (4, 3, 3),
    (3, 3, 2, 3),
    (2, 2, 2, 2, 3),
)  # three channels along both the second and the last axis
NOW = {"updates_collections": None}
FULL = {"decay": 0.9, "scale": True}
INITIAL = {
    "beta": [0.5, -1.0, 2.0],
    "gamma": [1.5, 0.5, -1.0],
    "moving_mean": [1.0, 2.0, 3.0],
    "moving_variance": [0.5, 1.0, 2.0],
}
CLIPS = {"rmin": 0.8, "rmax": 1.25, "dmax": 0.2}
ADJUSTMENT = ([0.95, 1.0, 1.05], [0.1, 0.0, -0.1])


def case(shape, dtype="float32", weights=False, adjustment=False, activation=None, **arguments):
    """One row of the table: the data, and the arguments that are plain values."""
    merged = dict(FULL, **arguments)
    return {
        "shape": shape,
        "dtype": dtype,
        "weights": weights,
        "adjustment": adjustment,
        "activation": activation,
        "arguments": merged,
    }


CASES = {
    "2d": case(R2),
    "2d now": case(R2, **NOW),
    "2d mine": case(R2, updates_collections="my_updates"),
    "2d unfused": case(R2, fused=False),
    "2d unfused now": case(R2, fused=False, **NOW),
    "2d defaults": case(R2, decay=0.999, scale=False),
    "2d no beta": case(R2, center=False, **NOW),
    "2d initial": case(R2, param_initializers=INITIAL, **NOW),
    "2d initial unfused": case(R2, param_initializers=INITIAL, fused=False),
    "2d relu": case(R2, activation="relu", **NOW),
    "2d small epsilon": case(R2, epsilon=1e-7, **NOW),
    "2d small epsilon unfused": case(R2, epsilon=1e-7, fused=False, **NOW),
    "2d decay 1": case(R2, decay=1.0, **NOW),
    "2d debiased": case(R2, zero_debias_moving_mean=True),
    "2d debiased now": case(R2, zero_debias_moving_mean=True, **NOW),
    "2d debiased unfused": case(R2, zero_debias_moving_mean=True, fused=False, **NOW),
    "2d weights": case(R2, weights=True),
    "2d weights now": case(R2, weights=True, **NOW),
    "2d weights debiased": case(R2, weights=True, zero_debias_moving_mean=True, **NOW),
    "2d adjustment": case(R2, adjustment=True),
    "2d renorm": case(R2, renorm=True, renorm_decay=0.8),
    "2d renorm clipped": case(R2, renorm=True, renorm_decay=0.5, renorm_clipping=CLIPS),
    "2d renorm adjustment": case(R2, renorm=True, renorm_decay=0.8, adjustment=True),
    "2d renorm initial": case(R2, renorm=True, param_initializers=INITIAL),
    "3d": case(R3),
    "3d now": case(R3, **NOW),
    "3d second": case(R3, data_format="NCHW"),
    "3d second now": case(R3, data_format="NCHW", **NOW),
    "3d second weights": case(R3, data_format="NCHW", weights=True),
    "4d": case(R4),
    "4d now": case(R4, **NOW),
    "4d unfused": case(R4, fused=False),
    "4d unfused now": case(R4, fused=False, **NOW),
    "4d debiased": case(R4, zero_debias_moving_mean=True),
    "4d second": case(R4, data_format="NCHW", fused=False),
    "4d second now": case(R4, data_format="NCHW", fused=False, **NOW),
    "4d weights": case(R4, weights=True),
    "4d renorm": case(R4, renorm=True, renorm_decay=0.8),
    "5d now": case(R5, **NOW),
    "5d": case(R5),
    "2d double fused": case(R2, "float64"),
    "4d double": case(R4, "float64"),
    "2d double": case(R2, "float64", fused=False),
    "2d double weights": case(R2, "float64", weights=True, **NOW),
    "2d double debiased": case(R2, "float64", fused=False, zero_debias_moving_mean=True),
    "3d double": case(R3, "float64"),
    "3d double now": case(R3, "float64", **NOW),
    "4d double renorm": case(R4, "float64", renorm=True, renorm_decay=0.8),
    "4d half": case(R4, "float16"),
}


def batch(name, step):
    """(inputs, weights) of one training step."""
    row = CASES[name]
    rng = np.random.RandomState(1000 * sorted(CASES).index(name) + step)
    second = row["arguments"].get("data_format") == "NCHW"
    channels = [1, 3] + [1] * (len(row["shape"]) - 2) if second else [3]
    std, mean = (np.reshape(v, channels) for v in ([0.5, 1.0, 3.0], [0.1 * step, 5.0, -20.0]))
    x = rng.normal(size=row["shape"]) * std + mean
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], size=row["shape"][0])
    weights[0] = 1.0
    return x.astype(row["dtype"]), weights.astype(row["dtype"])


def stories(bn, variable_scope, again):
    """name: a program of calls; what it makes, or the error it ends in, must be the same. `again` is AUTO_REUSE."""

    def default_names():
        bn()
        bn()
        with variable_scope("a"):
            bn()
            bn()

    def a_model_built_twice():
        with variable_scope("model"):
            bn()
            bn()
        with variable_scope("model", reuse=True):
            bn()
            bn()

    def a_model_built_twice_without_reuse():
        with variable_scope("model"):
            bn()
        with variable_scope("model"):
            bn()

    def a_name_that_looks_like_a_default():
        bn(scope="BatchNorm")
        bn()
        bn(scope="BatchNorm_2")
        bn()

    def nested():
        with variable_scope("a"), variable_scope("b/c"):
            bn(scope="d")
            bn(scope="e/f")
        bn(scope="a/b/g")

    def counts_start_anew():
        with variable_scope("a"), variable_scope("b"):
            bn()
        with variable_scope("a"):
            bn(scope="BatchNorm")
            bn()
        with variable_scope("a/b"):
            bn(scope="x")

    def a_scope_opened_from_outside():
        bn(scope="a/BatchNorm")
        with variable_scope("a"):
            bn()
        with variable_scope("a", reuse=again):
            bn()
            bn()

    def shared():
        bn(scope="a")
        bn(scope="a", reuse=True)
        bn(scope="b", reuse=again)
        bn(scope="b", reuse=again)

    def inherited():
        with variable_scope("a", reuse=again):
            bn(scope="b")
            bn(scope="b", reuse=False)
            with variable_scope("c"):
                bn()
        with variable_scope("a", reuse=again):
            bn(scope="b")

    def reuse_of_nothing():
        bn(scope="a", reuse=True)

    def made_twice():
        bn(scope="a")
        bn(scope="a")

    def made_twice_reuse_false():
        bn(scope="a")
        bn(scope="a", reuse=False)

    def reuse_without_scope():
        bn()
        bn(reuse=True)

    def auto_reuse_without_scope():
        bn(reuse=again)

    def reuse_with_gamma_that_was_not_made():
        bn(scope="a")
        bn(scope="a", reuse=True, scale=True)

    def a_scope_again():
        with variable_scope("a") as scope:
            bn(scope="x")
        with variable_scope("b"), variable_scope(scope):
            bn(scope="y")
        bn(scope=scope)
        with variable_scope(scope, reuse=True):
            bn(scope="x")

    def another_number_of_channels():
        bn(scope="a")
        bn(scope="a", reuse=True, channels=4)

    def another_format():
        bn(data_format="NWC")

    return {name: story for name, story in locals().items() if callable(story) and name not in ("bn", "variable_scope")}
