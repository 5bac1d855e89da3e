"""What the gate runs: a handful of calls that together use every family of kernels. Public names only."""

import numpy as np
from benchmarks import TOLERANCE, array, check_output, check_trained, draw, touched
from benchmarks.masks import Picks

import numbabn

SMALL = (32, 64)


def _moments(layout, pick="plain"):
    job = Picks()
    job.setup(layout, pick)
    return lambda: job.time_moments(layout, pick)


def _normalize(layout, dtype="float32"):
    x, axis = array(layout, dtype)
    out, tolerance = touched(x), TOLERANCE.get(dtype, 1e-6)
    check_output(numbabn.normalize(x, 100.0, 225.0, axis=axis, out=out), x, axis, 100.0, 225.0, tolerance=tolerance)
    return lambda: numbabn.normalize(x, 100.0, 225.0, axis=axis, out=out)


def _train(layout):
    x, axis = array(layout)
    out = touched(x)
    check_trained(numbabn.batch_norm(x, axis=axis, out=out)[0], x, axis)
    return lambda: numbabn.batch_norm(x, axis=axis, out=out)


def _backward(layout):
    from numbabn.kernels import reference

    x, axis = array(layout)
    dy, out = np.square(x / 100), touched(x)
    m = numbabn.moments(x, axis=axis)
    dx = numbabn.batch_norm_backward(dy, x, m, axis=axis, out=out)[0]
    n, mean, m2 = reference.moments(x, (axis,))
    expected = reference.backward(dy, x, (axis,), n, mean, m2 / n)[0]
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    return lambda: numbabn.batch_norm_backward(dy, x, m, axis=axis, out=out)


def _small(training):
    x = draw(SMALL)
    bn, out = numbabn.BatchNorm(SMALL[1]), touched(x)
    check_trained(bn(x, training=True, out=out), x, 1)
    return lambda: bn(x, training=training, out=out)


# name: a function that makes the arrays, checks the answer and gives the work
JOBS = {
    "moments rows-64": lambda: _moments("rows-64"),
    "moments rows-3": lambda: _moments("rows-3"),
    "moments nchw": lambda: _moments("nchw"),
    "moments rows-64 omit": lambda: _moments("rows-64", "omit"),
    "moments rows-3 weights": lambda: _moments("rows-3", "weight"),
    "moments nhwc samples": lambda: _moments("nhwc", "sample"),
    "moments strided": lambda: _moments("strided"),
    "normalize rows-64": lambda: _normalize("rows-64"),
    "normalize nchw": lambda: _normalize("nchw"),
    "normalize rows-64 float16": lambda: _normalize("rows-64", "float16"),
    "normalize nhwc-crop": lambda: _normalize("nhwc-crop"),
    "train rows-64": lambda: _train("rows-64"),
    "train nchw": lambda: _train("nchw"),
    "backward rows-64": lambda: _backward("rows-64"),
    "backward nchw": lambda: _backward("nchw"),
    "small step": lambda: _small(True),
    "small inference": lambda: _small(False),
}
