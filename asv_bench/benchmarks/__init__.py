"""What the benchmarks share: the arrays, their size, and the check of an answer.

Large arrays have 2**23 values, 32 MiB in float32: beyond most caches, and little enough for a quick run of
everything. The environment variable NUMBABN_BENCH_SCALE multiplies the number of values (default 1; the
tests use 0.0001), channels unchanged.
"""

import os

import numpy as np

BATCH = 7  # values of a reduced axis that any scale leaves, so that a variance means something

# Relative and absolute error that one rounding of an output to its type leaves.
TOLERANCE = {"float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}

# name: (shape of the memory in C order, channel axis, the view of it that is x)
LAYOUTS = {
    "rows-3": ((2_796_202, 3), 1, lambda a: a),
    "rows-16": ((524_288, 16), 1, lambda a: a),
    "rows-64": ((131_072, 64), 1, lambda a: a),
    "rows-1024": ((8192, 1024), 1, lambda a: a),
    "rows-16384": ((512, 16_384), 1, lambda a: a),
    "nchw": ((32, 64, 64, 64), 1, lambda a: a),
    "nhwc": ((32, 64, 64, 64), 3, lambda a: a),
    "nchw-3": ((56, 3, 224, 224), 1, lambda a: a),
    "nhwc-3": ((56, 224, 224, 3), 3, lambda a: a),
    "nchw-2048": ((84, 2048, 7, 7), 1, lambda a: a),
    "nhwc-2048": ((84, 7, 7, 2048), 3, lambda a: a),
    "fortran": ((64, 131_072), 1, lambda a: a.T),
    "columns": ((131_072, 128), 1, lambda a: a[:, 32:96]),
    "strided": ((262_144, 128), 1, lambda a: a[::2, ::2]),
    "nchw-crop": ((32, 64, 68, 68), 1, lambda a: a[:, :, 2:-2, 2:-2]),
    "nhwc-crop": ((32, 68, 68, 64), 3, lambda a: a[:, 2:-2, 2:-2]),
    "rgba": ((56, 224, 224, 4), 3, lambda a: a[..., :3]),
}


class Timed:
    """A benchmark whose arrays are drawn and checked once, by `prepare`.

    asv calls `setup` anew before each timed call. With all of that in it hardly any time would be left for what is
    timed, and each call would find the caches full of something else.
    """

    repeat = (5, 40, 2.0)  # samples at least, at most, and the seconds after which they are enough
    _prepared = None

    def setup(self, *params):
        if self._prepared != params:
            self.prepare(*params)
            self._prepared = params


def scale():
    """The factor from NUMBABN_BENCH_SCALE."""
    text = os.environ.get("NUMBABN_BENCH_SCALE", "1")
    try:
        factor = float(text)
    except ValueError:
        factor = -1.0
    if not 0 < factor < float("inf"):
        raise ValueError(f"NUMBABN_BENCH_SCALE is {text!r}; expected a number above 0, such as 0.01")
    return factor


def count(n, factor=None):
    """n values of one reduced axis, scaled; never fewer than a few."""
    return min(n, BATCH) if n < BATCH else max(BATCH, round(n * (scale() if factor is None else factor)))


def scaled(shape, axis, factor=None):
    """A shape whose reduced axes share the factor evenly; its channel axis stays."""
    factor = scale() if factor is None else factor
    share = factor ** (1 / (len(shape) - 1))
    return tuple(n if d == axis else count(n, share) for d, n in enumerate(shape))


def dtype_of(name):
    """A dtype by its name; bfloat16 is a type of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def draw(shape, dtype="float32", seed=0):
    """Values about 100 with a spread of 15, in C order, every page written."""
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    x *= 15
    x += 100
    return x.astype(dtype_of(dtype), copy=False)


def array(name, dtype="float32"):
    """(x, channel axis) of one row of LAYOUTS."""
    shape, axis, view = LAYOUTS[name]
    memory_axis = 0 if name == "fortran" else axis
    return view(draw(scaled(shape, memory_axis), dtype)), axis


def touched(x):
    """A floating array like x, in the same order of memory, every page written."""
    floating = x.dtype.kind == "f" or x.dtype.name == "bfloat16"
    out = np.empty_like(x, dtype=x.dtype if floating else np.float32)
    out.fill(0)
    return out


def check_moments(m, x, axis, weight=None):
    """AssertionError unless these are the moments of x; weight: how much each value counts, as it broadcasts to x."""
    from numbabn.kernels import reference

    n, mean, m2 = reference.moments(x, (axis,), weight)
    np.testing.assert_allclose(m.count, n, rtol=1e-12, err_msg="count")
    np.testing.assert_allclose(m.mean, mean, rtol=1e-12, err_msg="mean")
    np.testing.assert_allclose(m.m2, m2, rtol=1e-10, err_msg="m2")


def check_output(y, x, axis, mean, var, gamma=1.0, beta=0.0, eps=1e-5, tolerance=1e-6):
    """AssertionError unless y is x normalized by these."""
    from numbabn.kernels import reference

    expected = reference.normalize(x, (axis,), mean, var, gamma, beta, eps)
    y = np.asarray(y).astype(np.float64)
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg="output")


def check_trained(y, x, axis, gamma=1.0, beta=0.0, eps=1e-5, tolerance=1e-6):
    """AssertionError unless y is x normalized by its own moments."""
    from numbabn.kernels import reference

    n, mean, m2 = reference.moments(x, (axis,))
    check_output(y, x, axis, mean, m2 / n, gamma, beta, eps, tolerance)
