"""Inference as an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import checks, state
from ..arrays import NDArray
from . import forms

EARLIEST = 15  # BatchNormalization as it is now
DTYPES = ("float32", "float64", "float16")


class Graph:
    """Nodes in a row, each taking what the one before gave; constants beside them."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any], source: str) -> None:
        self.onnx, self.dtype, self.last = onnx, dtype, source
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node that takes the last output and these others; returns what it gives."""
        name = f"bn.{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, [self.last, *inputs], [name], name=name, **attributes))
        self.last = name
        return name

    def constant(self, name: str, values: Any, dtype: Any = None) -> str:
        """Add a constant; returns the name that the graph has for it."""
        name = f"bn.{name}"
        array = np.asarray(values, dtype=self.dtype if dtype is None else dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name


Step: TypeAlias = Callable[[Graph], Any]


def write(
    bn: Any,
    path: str | os.PathLike[str],
    shape: Sequence[int | str | None] | None,
    dtype: Any,
    opset: int | None,
    input_name: str,
    output_name: str,
) -> None:
    """See `Conversions.to_onnx`."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to_onnx needs the package onnx: pip install 'numbabn[onnx]'") from error
    kind = np.dtype(checks.choice(np.dtype(dtype).name, "dtype", DTYPES))
    dims, axes = _dims(bn, shape)
    if input_name == output_name:
        raise ValueError(f"`input_name` and `output_name` are both {input_name!r}; give two names")
    since, activation = _activation(bn)
    needed = max(EARLIEST, since)
    version = needed if opset is None else forms.whole(opset, "opset")
    if version < needed:
        raise ValueError(f"`opset` is {version}, but what is exported needs operator set {needed} or later")

    inner = np.dtype(np.float32) if kind == np.float16 else kind
    graph = Graph(onnx, inner, input_name)
    if kind != inner:
        graph.add("Cast", to=onnx.helper.np_dtype_to_tensor_dtype(inner))
    if len(axes) == 1 and len(dims) > 1:
        _batch_normalization(graph, bn, axes[0], len(dims))
    else:
        _sub_mul_add(graph, bn, axes, len(dims))
    if activation is not None:
        activation(graph)
    if kind != inner:
        graph.add("Cast", to=onnx.helper.np_dtype_to_tensor_dtype(kind))
    graph.nodes[-1].output[0] = output_name

    helper = onnx.helper
    element = helper.np_dtype_to_tensor_dtype(kind)
    inputs, outputs = ([helper.make_tensor_value_info(name, element, dims)] for name in (input_name, output_name))
    opsets = [helper.make_opsetid("", version)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "numbabn", inputs, outputs, graph.constants),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="numbabn",
    )
    onnx.checker.check_model(model, full_check=True)
    with state.atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _dims(bn: Any, shape: Sequence[int | str | None] | None) -> tuple[list[int | str], tuple[int, ...]]:
    """The dimensions of x, sizes or names, and the channel axes."""
    if shape is None:
        if len(bn.channels) != 1 or bn._options.axes_of(np.empty((0, bn.channels[0]))) != (1,):
            raise ValueError(
                f"`shape` is not given, and axis={bn.axis} does not tell how many dimensions x has; "
                "give it, None for a dimension of any size: shape=(None, 32, 32, 3)"
            )
        shape = ("N", bn.channels[0])
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"`shape` is {shape!r}; expected a sequence with an int, a name or None for each dimension")
    dims: list[int | str] = []
    for d, n in enumerate(shape):
        if not (n is None or isinstance(n, str)):
            n = forms.whole(n, "shape")
        dims.append(("N" if d == 0 else f"d{d}") if n is None else n)
    axes = checks.channel_axes(bn.axis, len(dims))
    for a, n in zip(axes, bn.channels, strict=True):
        if isinstance(dims[a], int) and dims[a] != n:
            raise ValueError(f"`shape` is {tuple(shape)}, with {dims[a]} along axis {a}, where there are {n} channels")
        dims[a] = n
    return dims, axes


def _batch_normalization(graph: Graph, bn: Any, axis: int, ndim: int) -> None:
    """BatchNormalization takes the channels at axis 1.

    Its epsilon is a float32: what it lacks of eps is added to the variances. A channel that is not divided by
    sqrt(var + eps), as one that does not vary, gets a variance and a scale that come to the same.
    """
    order = [d for d in range(ndim) if d != axis]
    order.insert(1, axis)
    if order != sorted(order):
        graph.add("Transpose", perm=order)
    epsilon = np.float32(bn.eps)
    if float(epsilon) > bn.eps:
        epsilon = np.nextafter(epsilon, np.float32(0))
    gamma = np.ones(bn.channels) if bn.gamma is None else bn.gamma
    beta = np.zeros(bn.channels) if bn.beta is None else bn.beta
    scale, var = forms.inference_scale(bn), bn.running_var + (bn.eps - float(epsilon))
    with np.errstate(divide="ignore", invalid="ignore"):
        special = scale != gamma / np.sqrt(bn.running_var + bn.eps)
    gamma = np.where(special, scale * np.sqrt(1 + float(epsilon)), gamma)
    var = np.where(special, 1, var)
    named = {"scale": gamma, "bias": beta, "mean": bn.running_mean, "var": var}
    graph.add("BatchNormalization", *(graph.constant(name, p) for name, p in named.items()), epsilon=float(epsilon))
    if order != sorted(order):
        graph.add("Transpose", perm=np.argsort(order).tolist())


def _sub_mul_add(graph: Graph, bn: Any, axes: tuple[int, ...], ndim: int) -> None:
    """Any channel axes: constants that broadcast against x."""
    reduced = tuple(d for d in range(ndim) if d not in axes)
    steps: list[tuple[str, str, NDArray | None]] = [
        ("Sub", "mean", bn.running_mean),
        ("Mul", "scale", forms.inference_scale(bn)),
        ("Add", "bias", bn.beta),
    ]
    for kind, name, p in steps:
        if p is not None:
            graph.add(kind, graph.constant(name, np.expand_dims(p, reduced)))


def _activation(bn: Any) -> tuple[int, Step | None]:
    """(earliest operator set, what adds it to a graph) of the activation."""
    if bn.activation is None:
        return 1, None
    name, *numbers = bn.activation
    return ACTIVATIONS[name](*numbers)


def _node(kind: str, since: int = 1, double: Step | None = None, **attributes: Any) -> tuple[int, Step | None]:
    """One node; in float64 what `double` adds, where onnxruntime has no such node for it."""

    def add(graph: Graph) -> Any:
        return double(graph) if double and graph.dtype == np.float64 else graph.add(kind, **attributes)

    return since, add


def _clip(low: float, high: float) -> tuple[int, Step | None]:
    return 1, lambda graph: graph.add("Clip", graph.constant("low", low), graph.constant("high", high))


def _times_itself(gate: Step) -> Step:
    """``x * gate(x)``."""

    def add(graph: Graph) -> None:
        before = graph.last
        gate(graph)
        graph.add("Mul", before)

    return add


def _halves(below: Step) -> Step:
    """``max(x, 0) + below(min(x, 0))``."""

    def add(graph: Graph) -> None:
        before, zero = graph.last, graph.constant("zero", 0)
        graph.add("Min", zero)
        below(graph)
        negative, graph.last = graph.last, before
        graph.add("Max", zero)
        graph.add("Add", negative)

    return add


def _leaky(slope: float = 0.01) -> tuple[int, Step | None]:
    below = _halves(lambda graph: graph.add("Mul", graph.constant("slope", slope)))
    return _node("LeakyRelu", double=below, alpha=slope)


def _elu(alpha: float = 1.0) -> tuple[int, Step | None]:
    def below(graph: Graph) -> None:
        graph.add("Exp")
        graph.add("Sub", graph.constant("one", 1))
        graph.add("Mul", graph.constant("alpha", alpha))

    return _node("Elu", double=_halves(below), alpha=alpha)


def _softplus(graph: Graph) -> None:
    """``max(x, 0) + log(1 + exp(-abs(x)))``."""
    before = graph.last
    for kind in ("Abs", "Neg", "Exp"):
        graph.add(kind)
    graph.add("Add", graph.constant("one", 1))
    small, graph.last = graph.add("Log"), before
    graph.add("Max", graph.constant("zero", 0))
    graph.add("Add", small)


def _hard_sigmoid(graph: Graph) -> None:
    graph.add("Mul", graph.constant("sixth", 1 / 6))
    graph.add("Add", graph.constant("half", 0.5))
    graph.add("Clip", graph.constant("low", 0), graph.constant("high", 1))


def _gelu(graph: Graph) -> None:
    """``(1 + erf(x / sqrt(2))) / 2``, with the erf of float32: onnxruntime has no other."""
    helper = graph.onnx.helper
    graph.add("Mul", graph.constant("root", 2**-0.5))
    graph.add("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)))
    graph.add("Erf")
    graph.add("Cast", to=helper.np_dtype_to_tensor_dtype(graph.dtype))
    graph.add("Add", graph.constant("one", 1))
    graph.add("Mul", graph.constant("half", 0.5))


# As PyTorch defines them; the numbers that may be given are those of `numbabn.normalize`.
ACTIVATIONS: dict[str, Callable[..., tuple[int, Step | None]]] = {
    "relu": lambda: _node("Relu"),
    "relu6": lambda: _clip(0, 6),
    "clip": _clip,
    "leaky_relu": _leaky,
    "elu": _elu,
    "gelu": lambda: _node("Gelu", since=20, double=_times_itself(_gelu)),
    "silu": lambda: (1, _times_itself(lambda graph: graph.add("Sigmoid"))),
    "hard_swish": lambda: _node("HardSwish", double=_times_itself(_hard_sigmoid)),
    "sigmoid": lambda: _node("Sigmoid"),
    "hard_sigmoid": lambda: _node("HardSigmoid", double=_hard_sigmoid, alpha=1 / 6, beta=0.5),
    "tanh": lambda: _node("Tanh"),
    "softplus": lambda: _node("Softplus", double=_softplus),
}
