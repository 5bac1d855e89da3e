"""What goes into a kernel beside arrays and numbers, as tuples with names: none of it needs numba.

The type of a tuple, and which of its fields are None, decide what is compiled; its values are arguments like others.
"""

from typing import Any, NamedTuple

LANES = 8  # values that a kernel takes at a time

# Places in a flat array ------------------------------------------------------------------------------


class Eight(NamedTuple):
    """`LANES` neighbours from i on."""

    i: int


class Few(NamedTuple):
    """The first n, fewer than `LANES`, of the neighbours from i on."""

    i: int
    n: int


# Statistics ------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """Statistics of parts of the data, flat: that of part b, channel c lies at ``b * channels + c``.

    higher: M3, and M4 behind all of it, or None; extremes: least, most, how many are NaN or infinite, or None.
    """

    count: Any
    mean: Any
    m2: Any
    higher: Any
    extremes: Any
    parts: int
    channels: int


# How much an element counts --------------------------------------------------------------------------


class Dense(NamedTuple):
    """A value for each value of x: (o, c, i) at ``o * outer + c * channel + i``."""

    flat: Any
    outer: int
    channel: int


class Constant(NamedTuple):
    """A value for each run of x: (o, c, i) at ``o * outer + c * channel``."""

    flat: Any
    outer: int
    channel: int


class ByRow(NamedTuple):
    """A value for each row of x: (o, c, i) at ``o * outer``."""

    flat: Any
    outer: int


class ByRun(NamedTuple):
    """A value for each place of a run, all channels alike: (o, c, i) at ``o * outer + i``."""

    flat: Any
    outer: int


class Scattered(NamedTuple):
    """Anything else: (o, c, i) at ``o * outer + c * channel + i * inner``."""

    flat: Any
    outer: int
    channel: int
    inner: int


class Axes(NamedTuple):
    """Three axes in one: its place p is (p // (many * few), p // few % many, p % few) along them.

    slowest, slow and fast are the strides of the three.
    """

    slowest: int
    many: int
    slow: int
    few: int
    fast: int


class Nested(NamedTuple):
    """`ByRow` where the outers are three axes in one, and `ByRun`, of (o, c), where the runs are.

    packed: None for rows that are taken by themselves, True for several together.
    """

    flat: Any
    outer: int
    channel: int
    axes: Any
    packed: Any


class NestedDense(NamedTuple):
    """`Dense` where the outers are three axes in one, and the other axes lie as those of x do."""

    flat: Any
    channel: int
    axes: Any


# What is written -------------------------------------------------------------------------------------


class Affine(NamedTuple):
    """activation((x - mean) * scale + shift + residual); shift, residual and activation None where there is none.

    Parameters: (channels,), or one number for a run of one channel; x and residual: flat, with their strides.
    """

    x: Any
    x_outer: int
    x_channel: int
    mean: Any
    scale: Any
    shift: Any
    residual: Any
    r_outer: int
    r_channel: int
    activation: Any


class Gradient(NamedTuple):
    """a * g - w * (b + (x - mean) * k), with g the gradient dy behind the activation; g goes into dz if that is there.

    w: what the pick says that an element counts in the statistics; b and k None where these are frozen; act: None, or
    (activation, scale, shift), with the residual that was added before the activation, or None.
    """

    dy: Any
    dy_outer: int
    dy_channel: int
    x: Any
    x_outer: int
    x_channel: int
    dz: Any
    dz_outer: int
    dz_channel: int
    pick: Any
    mean: Any
    act: Any
    residual: Any
    r_outer: int
    r_channel: int
    a: Any
    b: Any
    k: Any


# Activations -----------------------------------------------------------------------------------------


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
