"""The functions that may follow the normalization, in the same pass, and their slopes for the way back.

Each is a type of its own with its numbers in it, so that a kernel is compiled for it; None compiles to nothing.
NaN passes through all of them. At a kink the slope is that of PyTorch.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from .jit import helper


class Clip(NamedTuple):
    """max(low, min(high, v)): relu is 0 and infinity, relu6 0 and 6."""

    low: float
    high: float


class Leaky(NamedTuple):
    """v, and slope * v below 0."""

    slope: float


class Elu(NamedTuple):
    """v, and alpha * (exp(v) - 1) below 0."""

    alpha: float


class Sigmoid(NamedTuple):
    """1 / (1 + exp(-steepness * v))."""

    steepness: float


class Silu(NamedTuple):
    """v / (1 + exp(-steepness * v))."""

    steepness: float


class HardSigmoid(NamedTuple):
    """v / width + 1/2 between 0 and 1."""

    width: float


class HardSwish(NamedTuple):
    """v * (v / width + 1/2), the factor between 0 and 1."""

    width: float


class Tanh(NamedTuple):
    """tanh(steepness * v)."""

    steepness: float


class Softplus(NamedTuple):
    """log(1 + exp(steepness * v)) / steepness."""

    steepness: float


class Gelu(NamedTuple):
    """v times the normal distribution function at v * steepness."""

    steepness: float


@helper
def _clip(v, a):
    low = a.low if v < a.low else v
    return a.high if low > a.high else low


@helper
def _clip_slope(v, a):
    return 0.0 if v <= a.low or v >= a.high else 1.0


@helper
def _leaky(v, a):
    return v * a.slope if v < 0.0 else v


@helper
def _leaky_slope(v, a):
    return 1.0 if v > 0.0 else a.slope


@helper
def _elu(v, a):
    return a.alpha * math.expm1(v) if v < 0.0 else v


@helper
def _elu_slope(v, a):
    return a.alpha * math.exp(v) if v <= 0.0 else 1.0


@helper
def _logistic(v):
    e = math.exp(-abs(v))
    return (1.0 if v >= 0.0 else e) / (1.0 + e)


@helper
def _sigmoid(v, a):
    return _logistic(a.steepness * v)


@helper
def _sigmoid_slope(v, a):
    return a.steepness * _logistic(a.steepness * v) * _logistic(-a.steepness * v)


@helper
def _silu(v, a):
    return v * _logistic(a.steepness * v)


@helper
def _silu_slope(v, a):
    s = _logistic(a.steepness * v)
    return s * (1.0 + a.steepness * v * _logistic(-a.steepness * v))


@helper
def _gate(v, width):
    g = v / width + 0.5
    return 0.0 if g < 0.0 else 1.0 if g > 1.0 else g


@helper
def _hard_sigmoid(v, a):
    return _gate(v, a.width)


@helper
def _hard_sigmoid_slope(v, a):
    return 1.0 / a.width if abs(v) < 0.5 * a.width else 0.0


@helper
def _hard_swish(v, a):
    return v * _gate(v, a.width)


@helper
def _hard_swish_slope(v, a):
    return _gate(v, a.width) + (v / a.width if abs(v) < 0.5 * a.width else 0.0)


@helper
def _tanh(v, a):
    return math.tanh(a.steepness * v)


@helper
def _tanh_slope(v, a):
    t = math.tanh(a.steepness * v)
    return a.steepness * (1.0 - t * t)


@helper
def _softplus(v, a):
    s = a.steepness * v
    return (s if s > 0.0 else 0.0) / a.steepness + math.log1p(math.exp(-abs(s))) / a.steepness


@helper
def _softplus_slope(v, a):
    return _logistic(a.steepness * v)


@helper
def _gelu(v, a):
    return 0.5 * v * math.erfc(-v * a.steepness * math.sqrt(0.5))


@helper
def _gelu_slope(v, a):
    s = v * a.steepness
    return 0.5 * math.erfc(-s * math.sqrt(0.5)) + s * math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi)


FUNCTIONS = {
    Clip: (_clip, _clip_slope),
    Leaky: (_leaky, _leaky_slope),
    Elu: (_elu, _elu_slope),
    Sigmoid: (_sigmoid, _sigmoid_slope),
    Silu: (_silu, _silu_slope),
    HardSigmoid: (_hard_sigmoid, _hard_sigmoid_slope),
    HardSwish: (_hard_swish, _hard_swish_slope),
    Tanh: (_tanh, _tanh_slope),
    Softplus: (_softplus, _softplus_slope),
    Gelu: (_gelu, _gelu_slope),
}


def activate(activation, value):
    """The activation of a value; the value itself for None."""
    return value if activation is None else FUNCTIONS[type(activation)][0](np.float64(value), activation)


def slope(activation, value):
    """The derivative of the activation at a value; 1 for None."""
    return 1.0 if activation is None else FUNCTIONS[type(activation)][1](np.float64(value), activation)


@overload(activate)
def _activate(activation, value):
    function = FUNCTIONS.get(getattr(activation, "instance_class", None), (None,))[0]
    if function is None:
        return lambda activation, value: value
    return lambda activation, value: function(value, activation)


@overload(slope)
def _slope(activation, value):
    if getattr(activation, "instance_class", None) not in FUNCTIONS:
        return lambda activation, value: 1.0
    function = FUNCTIONS[activation.instance_class][1]
    return lambda activation, value: function(value, activation)
