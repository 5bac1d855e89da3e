"""The functions that may follow the normalization, in the same pass, and their slopes for the way back.

Each is a tuple of its numbers (`forms.py`), so that a kernel is compiled for it; None compiles to nothing. NaN passes
through all of them. At a kink the slope is that of PyTorch. Those without an exponential take several values at once.
"""

import math

from numba.extending import overload

from .forms import Clip, Elu, Gelu, HardSigmoid, HardSwish, Leaky, Sigmoid, Silu, Softplus, Tanh
from .jit import helper
from .vector import by_lane, kind_of, select


@helper
def _clip(v, a):
    low = select(v < a.low, a.low, v)
    return select(low > a.high, a.high, low)


@helper
def _clip_slope(v, a):
    return select((v <= a.low) | (v >= a.high), 0.0, 1.0)


@helper
def _leaky(v, a):
    return select(v < 0.0, v * a.slope, v)


@helper
def _leaky_slope(v, a):
    return select(v > 0.0, 1.0, a.slope)


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
    return select(g < 0.0, 0.0, select(g > 1.0, 1.0, g))


@helper
def _hard_sigmoid(v, a):
    return _gate(v, a.width)


@helper
def _hard_sigmoid_slope(v, a):
    return select(abs(v) < 0.5 * a.width, 1.0 / a.width, 0.0)


@helper
def _hard_swish(v, a):
    return v * _gate(v, a.width)


@helper
def _hard_swish_slope(v, a):
    return _gate(v, a.width) + select(abs(v) < 0.5 * a.width, v / a.width, 0.0)


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


TOGETHER = (Clip, Leaky, HardSigmoid, HardSwish)


def activate(activation, value):
    """The activation of a value, or of several; the value itself for None."""
    return value if activation is None else by_lane(FUNCTIONS[type(activation)][0], value, activation)


def slope(activation, value):
    """The derivative of the activation at a value, or at several; 1 for None."""
    return 1.0 if activation is None else by_lane(FUNCTIONS[type(activation)][1], value, activation)


def _calling(activation, which, otherwise):
    """What calls the function of an activation, as its type demands."""
    kind = kind_of(activation)
    if kind not in FUNCTIONS:
        return otherwise
    function = FUNCTIONS[kind][which]
    if kind in TOGETHER:
        return lambda activation, value: function(value, activation)
    return lambda activation, value: by_lane(function, value, activation)


@overload(activate)
def _activate(activation, value):
    return _calling(activation, 0, lambda activation, value: value)


@overload(slope)
def _slope(activation, value):
    return _calling(activation, 1, lambda activation, value: 1.0)
