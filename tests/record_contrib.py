"""Have tf.contrib.layers.batch_norm itself answer the cases of contrib_cases.py, and keep the answers.

    python3.7 -m venv original
    original/bin/pip install tensorflow==1.14.0 'numpy<1.17' 'protobuf<3.21'
    original/bin/python tests/record_contrib.py

writes data/contrib/tf-1.14.0.npz: the last release that has tf.contrib with the batch renormalization which mixes
the batch into its averages. Its continuation, tf_slim, is recorded alike (Python 3.11):

    slim/bin/pip install tensorflow-cpu==2.12.1 tf-slim==1.1.0
"""

import json
import os
import sys
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
warnings.filterwarnings("ignore")

import contrib_cases as cases  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow  # noqa: E402

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "contrib")
tf = tensorflow.compat.v1
tf.logging.set_verbosity(tf.logging.ERROR)
if tensorflow.__version__.startswith("1."):
    batch_norm = tensorflow.contrib.layers.batch_norm
    VERSION = "tf-" + tensorflow.__version__
else:
    import tf_slim

    tf.disable_v2_behavior()
    batch_norm = tf_slim.layers.batch_norm
    VERSION = "tf_slim-1.1.0-tf-" + tensorflow.__version__


def short(name):
    """moving_mean/biased out of bn/bn/moving_mean/biased:0."""
    parts = name.split(":")[0].split("/")
    return "/".join(part for part in parts if part != "bn")


def arguments(row):
    given = dict(row["arguments"])
    if "param_initializers" in given:
        given["param_initializers"] = {
            name: tf.constant_initializer(value) for name, value in given["param_initializers"].items()
        }
    if row["adjustment"]:
        scale, bias = (tf.constant(value, row["dtype"]) for value in cases.ADJUSTMENT)
        given["adjustment"] = lambda shape: (scale, bias)
    if row["activation"]:
        given["activation_fn"] = getattr(tf.nn, row["activation"])
    return given


def record(name):
    """{key: array}: outputs in training and inference, and every variable, after each step."""
    row = cases.CASES[name]
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(row["dtype"], row["shape"])
        weights = tf.placeholder(row["dtype"], row["shape"][:1])
        is_training = tf.placeholder(tf.bool, [])
        given = arguments(row)
        if row["weights"]:
            given["batch_weights"] = weights
        y = batch_norm(x, is_training=is_training, scope="bn", variables_collections=["mine"], **given)
        updates = tf.get_collection(given.get("updates_collections", "update_ops") or "none")
        variables = {short(v.name): v for v in tf.global_variables()}
        lists = {
            key: sorted(short(v.name) for v in tf.get_collection(key))
            for key in ("variables", "model_variables", "trainable_variables", "mine")
        }
        session.run(tf.global_variables_initializer())
        found = {key: [] for key in ["train", "infer", *variables]}
        for step in range(cases.STEPS):
            data, w = cases.batch(name, step)
            feed = {x: data, weights: w}
            found["train"].append(session.run([y, *updates], {**feed, is_training: True})[0])
            after = session.run(variables)
            found["infer"].append(session.run(y, {**feed, is_training: False}))
            for key, value in session.run(variables).items():
                assert np.array_equal(value, after[key]), (name, key)
                found[key].append(value)
    print(name, {key: np.shape(value)[1:] for key, value in found.items()})
    return dict({key: np.array(value) for key, value in found.items()}, lists=np.array(json.dumps(lists)))


def refused(name, error):
    print(name, "refused:", type(error).__name__, str(error).splitlines()[0][:150])
    return {"refused": np.array(type(error).__name__)}


def told():
    """{story: names of the variables it made, or the kind of error it ended in}."""

    def bn(scope=None, reuse=None, channels=3, **given):
        return batch_norm(tf.placeholder(tf.float32, (2, channels)), scope=scope, reuse=reuse, **given)

    results = {}
    for name in cases.stories(bn, tf.variable_scope, tf.AUTO_REUSE):
        with tf.Graph().as_default():
            try:
                cases.stories(bn, tf.variable_scope, tf.AUTO_REUSE)[name]()
                results[name] = sorted(v.name.split(":")[0] for v in tf.global_variables())
            except Exception as error:
                results[name] = type(error).__name__
        print(name, results[name])
    return results


def wrong_way():
    """The running values of the seed's wrong way: 20 steps of training, then five inferences, each of one sample."""
    rng = np.random.RandomState(1006)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 2])
        is_training = tf.placeholder(tf.bool, [])
        train = batch_norm(x, decay=0.9, scale=True, updates_collections=None, is_training=True, reuse=None, scope="bn")
        test = batch_norm(x, decay=1.0, scale=True, updates_collections=None, is_training=False, reuse=True, scope="bn")
        y = tf.cond(is_training, lambda: train, lambda: test)
        mean, var = (v for v in tf.global_variables() if "moving" in v.name)
        session.run(tf.global_variables_initializer())
        outputs, means, variances = [], [], []
        for step in range(25):
            training = step < 20
            data = rng.normal([0.0, 100.0], 1.0, (4 if training else 1, 2))
            out = session.run(y, {x: data, is_training: training})
            if training:  # in inference one operation reads what the other writes, in whatever order
                outputs.append(out[0])
            for found, variable in ((means, mean), (variances, var)):
                found.append(session.run(variable))
    print("wrong way", means[19], means[24])
    return {"wrong way|output": outputs, "wrong way|mean": means, "wrong way|var": variances}


def main():
    kept = {"stories": np.array(json.dumps(told()))}
    kept.update(wrong_way())
    for name in cases.CASES:
        try:
            answers = record(name)
        except Exception as error:
            answers = refused(name, error)
        kept.update({name + "|" + key: value for key, value in answers.items()})
    if not os.path.isdir(FOLDER):
        os.makedirs(FOLDER)
    np.savez_compressed(os.path.join(FOLDER, VERSION + ".npz"), **kept)


if __name__ == "__main__":
    main()
