"""Train the systems that `numbabn.flavours` names, and keep what they gave in tests/data/flavours.

    python tests/record_flavours.py [SYSTEM ...]

records the systems that can be imported, with their versions; tests/test_flavours.py compares a BatchNorm with
these files, and with the systems themselves where they are installed. The files were made in two environments:

    python3.11 -m venv a && a/bin/pip install numpy==2.4.6 jax==0.10.2 flax==0.12.8 dm-haiku==0.0.17 torch==2.13.0 \\
        gymnasium==1.4.0 stable-baselines3==2.9.2
    python3.7 -m venv b && b/bin/pip install tensorflow==1.15.5 'protobuf<3.21'

So this file keeps to Python 3.7, and imports a system only to train it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Callable, NamedTuple  # noqa: UP035  # for Python 3.7

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported
DATA = Path(__file__).parent / "data" / "flavours"
CHANNELS = 5
GAMMA = np.array([1.5, -0.5, 2.0, 1.0, 0.25])
BETA = np.array([0.0, 1.0, -3.0, 0.5, 10.0])


def table(dtype="float32", steps=40, rows=16, seed=0):
    """(steps, rows, channels) that drift; the last channel barely varies."""
    rng = np.random.default_rng(seed)
    drift = np.sin(np.arange(steps) / 5)[:, np.newaxis, np.newaxis]
    mean, std = np.array([0.0, 3.0, -20.0, 40.0, 0.5]), np.array([1.0, 0.1, 5.0, 2.0, 1e-3])
    return (rng.normal(size=(steps, rows, CHANNELS)) * std + mean + drift * std).astype(dtype)


def images(dtype="float32", steps=15, seed=1):
    """(steps, 3, 4, 5, channels): NHWC."""
    return table(dtype, steps, 60, seed).reshape(steps, 3, 4, 5, CHANNELS)


def singles(dtype="float32"):
    """One value of each channel at a time."""
    return table(dtype, 25, 1, 2)


def outliers(dtype="float32"):
    """A value far outside now and then."""
    x = table(dtype, 25, 8, 3)
    x[5, 0, 0] = 1000
    x[20, 3, 2] = -5000
    return x


def constants(dtype="float64"):
    """Two channels that never change, one of them with a mean that no sum gets exactly; and one nearly constant."""
    x = table(dtype, 20, 16, 4)
    x[..., 0] = 0.1
    x[..., 1] = 0
    x[..., 3] = 1e8 + x[..., 4]
    x[-1, :, :2] += 0.25  # in inference they do
    return x


def holes(dtype="float64"):
    """Some values are missing."""
    x = table(dtype, 20, 16, 5)
    x[np.random.default_rng(6).random(x.shape) < 0.2] = np.nan
    return x


# Each system takes the batches and one more, and gives (outputs, means, variances) of every batch, and the output
# of the one more in inference.


def torch(batches, test, **options):
    import torch

    layer = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[test.ndim](CHANNELS, **options)
    layer = layer.to(torch.from_numpy(batches).dtype)
    y, mean, var = [], [], []
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = torch.from_numpy(GAMMA), torch.from_numpy(BETA)
        for x in batches:
            y.append(layer(torch.from_numpy(x)).numpy())
            mean.append(layer.running_mean.numpy().copy())
            var.append(layer.running_var.numpy().copy())
        return y, mean, var, layer.eval()(torch.from_numpy(test)).numpy()


def keras(batches, test, **options):
    import keras

    layer = keras.layers.BatchNormalization(dtype=str(test.dtype), **options)
    layer.build((None, *test.shape[1:]))
    if layer.scale:
        layer.gamma.assign(GAMMA)
    if layer.center:
        layer.beta.assign(BETA)
    to_numpy = keras.ops.convert_to_numpy
    y, mean, var = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # between keras, torch and NumPy
        for x in batches:
            y.append(to_numpy(layer(x, training=True)))
            mean.append(to_numpy(layer.moving_mean).copy())
            var.append(to_numpy(layer.moving_variance).copy())
        return y, mean, var, to_numpy(layer(test, training=False))


def onnx(batches, test, momentum=0.9, epsilon=1e-5):
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    kind = helper.np_dtype_to_tensor_dtype(test.dtype)
    names = ("x", "scale", "bias", "mean", "var")
    info = [helper.make_tensor_value_info(name, kind, None) for name in (*names, "y", "new_mean", "new_var")]

    def evaluator(training, outputs):
        attributes = {"momentum": momentum, "epsilon": epsilon, "training_mode": int(training)}
        node = helper.make_node("BatchNormalization", names, outputs, **attributes)
        graph = helper.make_graph([node], "bn", info[:5], [i for i in info if i.name in outputs])
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)]))

    assert kind in (TensorProto.FLOAT, TensorProto.DOUBLE)
    state = {"scale": GAMMA, "bias": BETA, "mean": np.zeros(CHANNELS), "var": np.ones(CHANNELS)}
    state = {name: p.astype(test.dtype) for name, p in state.items()}
    train, infer = evaluator(True, ["y", "new_mean", "new_var"]), evaluator(False, ["y"])
    y, mean, var = [], [], []
    for x in batches:
        out, state["mean"], state["var"] = train.run(None, {"x": x, **state})
        for values, new in ((y, out), (mean, state["mean"]), (var, state["var"])):
            values.append(new)
    return y, mean, var, infer.run(None, {"x": test, **state})[0]


def sklearn(batches, test):
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    y, mean, var = [], [], []
    for x in batches:
        y.append(scaler.partial_fit(x).transform(x))
        mean.append(scaler.mean_.copy())
        var.append(scaler.var_.copy())
    return y, mean, var, scaler.transform(test)


def flax(batches, test, **options):
    import flax.linen as nn
    import jax

    jax.config.update("jax_enable_x64", True)
    layer = nn.BatchNorm(**options)
    variables = layer.init(jax.random.key(0), test, use_running_average=True)
    variables = {
        "params": {"scale": GAMMA.astype(test.dtype), "bias": BETA.astype(test.dtype)},
        **{"batch_stats": variables["batch_stats"]},
    }
    y, mean, var = [], [], []
    for x in batches:
        out, new = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        variables = {"params": variables["params"], "batch_stats": new["batch_stats"]}
        y.append(np.asarray(out))
        mean.append(np.asarray(new["batch_stats"]["mean"]))
        var.append(np.asarray(new["batch_stats"]["var"]))
    return y, mean, var, np.asarray(layer.apply(variables, test, use_running_average=True))


def haiku(batches, test, decay_rate):
    import haiku as hk
    import jax

    jax.config.update("jax_enable_x64", True)

    def forward(x, training):
        return hk.BatchNorm(True, True, decay_rate, name="bn")(x, training)

    model = hk.without_apply_rng(hk.transform_with_state(forward))
    params, state = model.init(None, batches[0], True)
    shape = params["bn"]["scale"].shape
    params = {
        "bn": {"scale": GAMMA.reshape(shape).astype(test.dtype), "offset": BETA.reshape(shape).astype(test.dtype)}
    }
    y, mean, var = [], [], []
    for x in batches:
        out, state = model.apply(params, state, x, True)
        y.append(np.asarray(out))
        mean.append(np.asarray(state["bn/~/mean_ema"]["average"]).reshape(-1))
        var.append(np.asarray(state["bn/~/var_ema"]["average"]).reshape(-1))
    return y, mean, var, np.asarray(model.apply(params, state, test, False)[0])


def tensorflow(batches, test, **options):
    import tensorflow as tf

    y, mean, var = [], [], []
    constant = tf.compat.v1.constant_initializer
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(batches.dtype, (None, *test.shape[1:]))
        is_training = tf.compat.v1.placeholder(tf.bool, ())
        out = tf.contrib.layers.batch_norm(
            x,
            is_training=is_training,
            updates_collections=None,
            scope="bn",
            param_initializers={"beta": constant(BETA), "gamma": constant(GAMMA)},
            **options,
        )
        session.run(tf.compat.v1.global_variables_initializer())
        learned = {v.op.name: v for v in tf.compat.v1.global_variables()}
        for batch in batches:
            y.append(session.run(out, {x: batch, is_training: True}))
            mean.append(session.run(learned["bn/moving_mean"]))
            var.append(session.run(learned["bn/moving_variance"]))
        return y, mean, var, session.run(out, {x: test, is_training: False})


def gymnasium(batches, test):
    import gymnasium as gym

    class Replay(gym.vector.VectorEnv):
        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012
        num_envs = batches.shape[1]
        single_observation_space = gym.spaces.Box(-np.inf, np.inf, batches.shape[2:], batches.dtype.type)
        single_action_space = gym.spaces.Discrete(1)
        observation_space = gym.vector.utils.batch_space(single_observation_space, num_envs)
        action_space = gym.vector.utils.batch_space(single_action_space, num_envs)
        observations = iter([*batches, test])

        def reset(self, *, seed=None, options=None):
            return next(self.observations), {}

        def step(self, actions):
            over = np.zeros(self.num_envs, bool)
            return next(self.observations), np.zeros(self.num_envs), over, over, {}

    env = gym.wrappers.vector.NormalizeObservation(Replay())
    y, mean, var = [], [], []
    for step in range(len(batches)):
        y.append(env.step(None)[0] if step else env.reset()[0])
        mean.append(env.obs_rms.mean.copy())
        var.append(env.obs_rms.var.copy())
    env.update_running_mean = False
    return y, mean, var, env.step(None)[0]


def sb3(batches, test):
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecNormalize
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv

    class Replay(VecEnv):
        def __init__(self):
            self.observations = iter([*batches, test])
            space = spaces.Box(-np.inf, np.inf, batches.shape[2:], batches.dtype.type)
            super().__init__(batches.shape[1], space, spaces.Discrete(1))

        def reset(self):
            return next(self.observations)

        def step_async(self, actions):
            pass

        def step_wait(self):
            n = self.num_envs
            return next(self.observations), np.zeros(n), np.zeros(n, bool), [{}] * n

        def get_attr(self, name, indices=None):
            return [None] * self.num_envs

        def nothing(self, *arguments, **options):
            pass

        close = set_attr = env_method = seed = nothing

        def env_is_wrapped(self, wrapper, indices=None):
            return [False] * self.num_envs

    env = VecNormalize(Replay())
    y, mean, var = [], [], []
    for step in range(len(batches)):
        y.append(env.step(None)[0] if step else env.reset())
        mean.append(env.obs_rms.mean.copy())
        var.append(env.obs_rms.var.copy())
    env.training = False
    return y, mean, var, env.step(None)[0]


# What has to be imported, and what is recorded as its version.
PACKAGES = {
    torch: ("torch",),
    keras: ("keras",),
    onnx: ("onnx",),
    sklearn: ("sklearn",),
    flax: ("flax", "jax"),
    haiku: ("haiku", "jax"),
    tensorflow: ("tensorflow.contrib", "tensorflow"),
    gymnasium: ("gymnasium",),
    sb3: ("stable_baselines3", "gymnasium"),
}
BOTH = {"gamma": GAMMA.tolist(), "beta": BETA.tolist()}
OFFSET = {"beta": BETA.tolist()}
FIRST = "channels first"


class Run(NamedTuple):
    """One training of one system; `options` are for the BatchNorm beside the flavour, `told` for the system."""

    flavour: str
    system: Callable
    batches: Callable = table
    options: dict = {}  # noqa: RUF012  # not changed
    told: dict = {}  # noqa: RUF012
    dtypes: tuple = ("float32",)
    precision: str | None = None  # where it computes in another than its dtype
    channels_first: bool = False


WIDE = ("float32", "float64")
# float64 is float32 in part: all of the arithmetic of Keras, the attributes of ONNX, the first averages of flax, the
# factor of TensorFlow, the state of gymnasium and the outputs of both of reinforcement learning.
RUNS = {
    "torch": Run("torch", torch, options=BOTH, dtypes=WIDE),
    "torch-equal": Run("torch", torch, table, {**BOTH, "momentum": None}, {"momentum": None}, WIDE),
    "torch-images": Run(
        "torch",
        torch,
        images,
        {**BOTH, "momentum": 0.3, "eps": 1e-3},
        {"momentum": 0.3, "eps": 1e-3},
        WIDE,
        channels_first=True,
    ),
    "keras": Run("keras", keras, options=BOTH, dtypes=WIDE, precision="float32"),
    "keras-images": Run("keras", keras, images, {**BOTH, "decay": 0.8}, {"momentum": 0.8}),
    "keras-first": Run(
        "keras",
        keras,
        images,
        {**OFFSET, "axis": 1, "gamma": None},
        {"axis": 1, "scale": False},
        channels_first=True,
    ),
    "keras-singles": Run("keras", keras, singles, BOTH),
    "onnx": Run("onnx", onnx, options=BOTH, dtypes=WIDE, precision="float32"),
    "onnx-images": Run(
        "onnx",
        onnx,
        images,
        {**BOTH, "decay": 0.5, "eps": 0.25},
        {"momentum": 0.5, "epsilon": 0.25},
        WIDE,
        channels_first=True,
    ),
    "onnx-singles": Run("onnx", onnx, singles, BOTH),
    "sklearn": Run("sklearn", sklearn, dtypes=WIDE),
    "sklearn-constants": Run("sklearn", sklearn, constants, dtypes=("float64",)),
    "sklearn-holes": Run("sklearn", sklearn, holes, dtypes=("float64",)),
    "sklearn-singles": Run("sklearn", sklearn, singles, dtypes=("float64",)),
    "flax": Run("flax", flax, options=BOTH, dtypes=WIDE, precision="float32"),
    "flax-images": Run("flax", flax, images, {**BOTH, "decay": 0.8}, {"momentum": 0.8}),
    "flax-singles": Run("flax", flax, singles, BOTH),
    "haiku": Run("haiku", haiku, table, {**BOTH, "decay": 0.9}, {"decay_rate": 0.9}, WIDE),
    "haiku-images": Run("haiku", haiku, images, {**BOTH, "decay": 0.99}, {"decay_rate": 0.99}),
    "haiku-singles": Run("haiku", haiku, singles, {**BOTH, "decay": 0.9}, {"decay_rate": 0.9}),
    "tf_contrib": Run("tf_contrib", tensorflow, table, OFFSET, {"fused": False}, WIDE, "float32"),
    "tf_contrib-images": Run(
        "tf_contrib", tensorflow, images, {**BOTH, "decay": 0.9}, {"fused": False, "scale": True, "decay": 0.9}
    ),
    "tf_contrib-singles": Run("tf_contrib", tensorflow, singles, OFFSET, {"fused": False}),
    "tf_contrib_fused": Run("tf_contrib_fused", tensorflow, table, OFFSET),
    "tf_contrib_fused-eps": Run(
        "tf_contrib_fused", tensorflow, table, {**OFFSET, "decay": 0.9, "eps": 1e-6}, {"decay": 0.9, "epsilon": 1e-6}
    ),
    "tf_contrib_fused-images": Run(
        "tf_contrib_fused", tensorflow, images, {**BOTH, "decay": 0.9}, {"scale": True, "decay": 0.9}
    ),
    "tf_contrib_fused-singles": Run("tf_contrib_fused", tensorflow, singles, OFFSET),
    "gymnasium": Run("gymnasium", gymnasium, dtypes=WIDE, precision="float32"),
    "gymnasium-images": Run("gymnasium", gymnasium, images, {"channels": (4, 5, CHANNELS)}),
    "gymnasium-singles": Run("gymnasium", gymnasium, singles),
    "sb3": Run("sb3", sb3, dtypes=WIDE, precision="float32"),
    "sb3-outliers": Run("sb3", sb3, outliers, dtypes=WIDE, precision="float32"),
    "sb3-singles": Run("sb3", sb3, singles, dtypes=("float64",), precision="float32"),
}


def installed(name):
    """Whether the system of a run can be imported."""
    try:
        for package in PACKAGES[RUNS[name].system]:
            importlib.import_module(package)
    except ImportError:
        return False
    return True


def drawn(name, dtype, seed=None):
    """(batches, one more batch) of a run; other ones for another seed."""
    x = RUNS[name].batches(dtype)
    if seed is not None:
        x = x + np.random.default_rng(seed).normal(size=CHANNELS).astype(dtype)
    if RUNS[name].channels_first:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 2))
    return x[:-1], x[-1]


def trained(name, dtype, seed=None):
    """(batches, one more, outputs, means, variances, output of the one more) of a run."""
    batches, test = drawn(name, dtype, seed)
    y, mean, var, y_test = RUNS[name].system(batches, test, **RUNS[name].told)
    return batches, test, np.stack(y), np.stack(mean), np.stack(var), y_test


def record(name, dtype):
    """Train the system of a run, and write what it gave."""
    x, x_test, y, mean, var, y_test = trained(name, dtype)
    packages = [p for p in PACKAGES[RUNS[name].system] if "." not in p] + ["numpy"]
    versions = json.dumps({p: importlib.import_module(p).__version__ for p in packages})
    file = DATA / (name + "-" + dtype + ".npz")
    np.savez_compressed(file, versions=np.array(versions), x=x, x_test=x_test, y=y, mean=mean, var=var, y_test=y_test)
    print(file.name, versions)


if __name__ == "__main__":
    DATA.mkdir(parents=True, exist_ok=True)
    for run, how in RUNS.items():
        if installed(run) and (len(sys.argv) == 1 or {how.flavour, how.system.__name__} & set(sys.argv[1:])):
            for dtype in how.dtypes:
                record(run, dtype)
