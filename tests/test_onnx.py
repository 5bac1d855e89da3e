"""The exported model gives what inference gives, in onnxruntime and in ONNX's own reference."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from numbabn import BatchNorm, activations
from numbabn.convert import onnx_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")

CASES = {
    "table": ((16, 5), -1),
    "table-first": ((16, 5), 1),
    "nchw": ((2, 5, 4, 3), 1),
    "nhwc": ((2, 4, 3, 5), -1),
    "channels-first-of-all": ((5, 7, 3), 0),
    "custom": ((2, 3, 5, 4, 2), 2),
    "one-dimension": ((5,), 0),
    "several": ((4, 3, 5, 2), (1, 3)),
    "all": ((3, 5), (0, 1)),
}
DTYPES = ("float32", "float64", "float16")


def trained(shape, axis, **options):
    """A BatchNorm that has seen data of this shape, and new data."""
    rng = np.random.default_rng(len(shape))
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    channels = tuple(shape[a] for a in axes)
    options = {"gamma": rng.uniform(0.5, 2, channels), "beta": rng.normal(size=channels), **options}
    bn = BatchNorm(channels, axis=axis, **options)
    for _ in range(3):
        bn.update(rng.normal(2, 3, shape))
    return bn, rng.normal(2, 3, shape)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_model(path, bn, x, slack=8.0):
    """The model in `path` gives bn(x), up to the rounding of an arithmetic that may fold the mean into an offset."""
    expected = bn(x.astype(np.float64))
    kind = np.float32 if x.dtype == np.float16 else x.dtype
    size = np.abs(x.astype(float)) + np.abs(bn.running_mean).max() + 1
    largest = np.abs(bn.to_scale_shift()[0]).max() + 1
    allowed = slack * np.finfo(kind).eps * (size * largest + np.abs(expected))
    if x.dtype == np.float16:
        allowed += 0.51 * np.finfo(np.float16).eps * np.abs(expected) + np.finfo(np.float16).smallest_subnormal
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for run in (session(path).run, reference.ReferenceEvaluator(model).run):
        (y,) = run(None, {"x": x})
        assert y.dtype == x.dtype
        assert y.shape == x.shape
        assert (np.abs(y - expected) <= allowed).all(), np.abs(y - expected).max()


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_model_gives_what_inference_gives(case, dtype, parameters, tmp_path):
    shape, axis = CASES[case]
    bn, x = trained(shape, axis, **({} if parameters else {"gamma": None, "beta": None}))
    before = bn.copy()
    bn.to_onnx(tmp_path / "bn.onnx", shape=(None,) * len(shape), dtype=dtype)
    assert bn == before
    assert_model(tmp_path / "bn.onnx", bn, x.astype(dtype))
    assert [f.name for f in tmp_path.iterdir()] == ["bn.onnx"]


def test_the_nodes_are_the_expected_ones(tmp_path):
    path = tmp_path / "bn.onnx"
    for case, dtype, nodes in (
        ("table", "float32", ["BatchNormalization"]),
        ("nchw", "float64", ["BatchNormalization"]),
        ("nhwc", "float32", ["Transpose", "BatchNormalization", "Transpose"]),
        ("custom", "float16", ["Cast", "Transpose", "BatchNormalization", "Transpose", "Cast"]),
        ("several", "float32", ["Sub", "Mul", "Add"]),
        ("one-dimension", "float16", ["Cast", "Sub", "Mul", "Add", "Cast"]),
    ):
        bn, _ = trained(*CASES[case])
        bn.to_onnx(path, shape=CASES[case][0], dtype=dtype)
        assert kinds(path) == nodes, case
    bn, _ = trained(*CASES["several"], beta=None)
    bn.to_onnx(path, shape=CASES["several"][0])
    assert kinds(path) == ["Sub", "Mul"]
    node = next(n for n in onnx.load(path).graph.node if n.op_type == "Mul")
    assert node.output == ["y"]


def test_dimensions_are_fixed_named_or_free(tmp_path):
    path = tmp_path / "bn.onnx"
    bn, _ = trained(*CASES["nchw"])
    bn.to_onnx(path, shape=("batch", None, np.int64(4), None), input_name="pixels", output_name="normed")
    model = onnx.load(path)
    (given,), (result,) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("pixels", "normed")
    for info in (given, result):
        dims = [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        assert dims == ["batch", 5, 4, "d3"]
    run = session(path)
    for n, w in ((1, 1), (7, 3)):
        x = np.random.default_rng(0).normal(size=(n, 5, 4, w)).astype(np.float32)
        np.testing.assert_allclose(run.run(None, {"pixels": x})[0], bn(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_two_dimensions_need_no_shape(axis, tmp_path):
    bn, x = trained((16, 5), axis)
    bn.to_onnx(tmp_path / "bn.onnx")
    assert_model(tmp_path / "bn.onnx", bn, x.astype(np.float32))
    dims = onnx.load(tmp_path / "bn.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "activation",
    [*(name for name in activations.TABLE if name != "clip"), ("clip", -1, 0.5), ("leaky_relu", 0.3), ("elu", 2.5)],
    ids=str,
)
def test_an_activation_follows(activation, dtype, tmp_path):
    bn, x = trained((64, 5), -1, activation=activation)
    bn.to_onnx(tmp_path / "bn.onnx", dtype=dtype)
    assert len(kinds(tmp_path / "bn.onnx")) > 1
    if (activation, dtype) == ("gelu", "float64"):  # its erf is that of float32
        assert_model(tmp_path / "bn.onnx", bn, x.astype(dtype), slack=2.0**30)
    else:
        assert_model(tmp_path / "bn.onnx", bn, x.astype(dtype), slack=64.0)


def test_every_activation_has_a_node():
    assert onnx_model.ACTIVATIONS.keys() == activations.TABLE.keys()


@pytest.mark.parametrize("flavour", ["torch", "keras", "tf_contrib_fused", "sklearn", "gymnasium", "sb3", "onnx"])
def test_every_flavour_is_exported(flavour, tmp_path):
    bn = BatchNorm(5, flavour=flavour)
    x = np.random.default_rng(0).normal(3, [0.0, 1, 2, 3, 0.01], (40, 5))
    for k in range(4):
        bn.update(x[10 * k : 10 * (k + 1)])
    x[0] += 50
    bn.to_onnx(tmp_path / "bn.onnx", dtype="float64")
    with onnx.load(tmp_path / "bn.onnx") and np.errstate(all="raise"):
        (y,) = session(tmp_path / "bn.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, bn(x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_eps_is_exact_in_float64_and_a_channel_that_does_not_vary_gives_beta(axis, tmp_path):
    shape = (8, 3) if axis == -1 else (8, 3, 1)
    for eps in (0.0, 1e-5, 1e-3, 0.1):
        bn = BatchNorm(shape[1:], axis=(1,) if axis == -1 else axis, eps=eps, momentum=1, beta=7)
        x = np.random.default_rng(0).normal(0, 1, shape) * np.array([1e-2, 0, 1]).reshape(shape[1:])
        bn.update(x)
        bn.to_onnx(tmp_path / "bn.onnx", shape=(None, *shape[1:]), dtype="float64")
        new = x + 1
        constants = {c.name: onnx.numpy_helper.to_array(c) for c in onnx.load(tmp_path / "bn.onnx").graph.initializer}
        if axis == -1:
            assert constants["bn.var"].min() >= 0
        np.testing.assert_allclose(
            session(tmp_path / "bn.onnx").run(None, {"x": new})[0], bn(new), rtol=1e-12, atol=1e-12
        )


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "bn.onnx"
    bn, _ = trained(*CASES["nhwc"])
    several, _ = trained(*CASES["several"])
    for call, error, words in (
        (lambda: several.to_onnx(path), ValueError, "`shape` is not given"),
        (lambda: bn.to_onnx(path, shape=(None, 4, 3, 6)), ValueError, "6 along axis 3, where there are 5 channels"),
        (lambda: bn.to_onnx(path, shape="NHWC"), TypeError, "expected a sequence"),
        (lambda: bn.to_onnx(path, shape=(None, 2.5, 5)), TypeError, "`shape` is 2.5"),
        (lambda: several.to_onnx(path, shape=(3, 5)), ValueError, "but `x` has 2 dim"),
        (lambda: bn.to_onnx(path, dtype="int32"), ValueError, "expected one of 'float32', 'float64', 'float16'"),
        (lambda: bn.to_onnx(path, opset=14), ValueError, "needs operator set 15 or later"),
        (lambda: bn.to_onnx(path, output_name="x"), ValueError, "both 'x'"),
        (lambda: bn.to_onnx(tmp_path / "no" / "bn.onnx"), FileNotFoundError, "no/"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert list(tmp_path.iterdir()) == []


def test_the_operator_set_may_be_chosen(tmp_path):
    bn, x = trained((16, 5), -1)
    for opset in (15, 17, 21):
        bn.to_onnx(tmp_path / "bn.onnx", opset=opset)
        assert onnx.load(tmp_path / "bn.onnx").opset_import[0].version == opset
        assert_model(tmp_path / "bn.onnx", bn, x.astype(np.float32))
    gelu, _ = trained((16, 5), -1, activation="gelu")
    with pytest.raises(ValueError, match="needs operator set 20"):
        gelu.to_onnx(tmp_path / "gelu.onnx", opset=17)


def test_a_model_replaces_what_was_there_whole(tmp_path):
    path = tmp_path / "bn.onnx"
    path.write_text("not a model")
    bn, x = trained((16, 5), -1)
    bn.to_onnx(path)
    assert_model(path, bn, x.astype(np.float32))


def test_without_the_package_it_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'numbabn\[onnx\]'"):
        BatchNorm(3).to_onnx(tmp_path / "bn.onnx")
    assert list(tmp_path.iterdir()) == []
