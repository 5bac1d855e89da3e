"""Peak memory that a call takes beyond x and out, measured in a process of its own.

``python -P probe.py CASE MIB VERB...`` prints a JSON object {verb: bytes}. MIB is the size of the
float32 array that x is made of. x and out are written before; the kernels are compiled, and their answers
checked, on a small array of the same layout. The peak is that of the resident set (VmHWM, set back
through /proc/self/clear_refs; elsewhere the growth of ru_maxrss), in which the scratch of a compiled
kernel shows as well as an array of NumPy. Verb "copy" copies x: proof that a copy would be seen.
"""

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np

import numbabn

CHANNELS = 64

# name: (dtype, shape of the memory for n values, channel axis, the view of it that is x)
CASES = {
    "rows": ("f4", lambda n: (n // CHANNELS, CHANNELS), 1, lambda a: a),
    "fortran": ("f4", lambda n: (CHANNELS, n // CHANNELS), 1, lambda a: a.T),
    "columns": ("f4", lambda n: (n // 128, 128), 1, lambda a: a[:, 32:96]),
    "nchw": ("f4", lambda n: (n // CHANNELS // 1024, CHANNELS, 32, 32), 1, lambda a: a),
    "big-endian": (">f4", lambda n: (n // CHANNELS, CHANNELS), 1, lambda a: a),
    "uint8": ("u1", lambda n: (n // CHANNELS, CHANNELS), 1, lambda a: a),
    "strided": ("f4", lambda n: (n // 128, 128), 1, lambda a: a[::2, ::2]),
}


def verbs(x, axis, out):
    """What to measure, by name. The way back takes x for its own gradient."""
    mean, var = np.full((2, x.shape[axis]), [[100.0], [400.0]])
    return {
        "moments": lambda: numbabn.moments(x, axis=axis),
        "normalize": lambda: numbabn.normalize(x, 100.0, 400.0, axis=axis, out=out),
        "batch_norm": lambda: numbabn.batch_norm(x, axis=axis, out=out),
        "in_place": lambda: numbabn.batch_norm(x, axis=axis, out=x),
        "backward": lambda: numbabn.batch_norm_backward(x, x, (mean, var), axis=axis, out=out),
        "omit": lambda: numbabn.moments(x, axis=axis, nan_policy="omit"),
        "copy": lambda: np.array(x),
    }


def made(case, values):
    """(x, axis, out) of a case, every page written, without a temporary of their size."""
    dtype, shape, axis, view = CASES[case]
    memory = np.empty(shape(values), dtype)
    flat = memory.reshape(-1)
    block = np.random.default_rng(0).normal(100, 20, 99_991).clip(0, 255).astype(dtype)
    for i in range(0, flat.size, block.size):
        flat[i : i + block.size] = block[: flat.size - i]
    x = view(memory)
    out = np.empty_like(x, dtype=np.float32)
    out.fill(0)
    return x, axis, out


def check(case, names):
    """Compile what the case needs and compare it with the reference; a copy needs neither."""
    from numbabn.kernels import reference

    x, axis, out = made(case, 1 << 19)  # enough values that every thread and every kernel takes part
    expected, (_, mean, m2) = reference.batch_norm(x, (axis,))
    call = verbs(x, axis, out)
    for name in names:
        result = call[name]()
        if name in ("moments", "omit"):
            np.testing.assert_allclose(result.mean, mean, rtol=1e-12)
            np.testing.assert_allclose(result.m2, m2, rtol=1e-10)
        elif name == "normalize":
            np.testing.assert_allclose(result, reference.normalize(x, (axis,), 100.0, 400.0), atol=1e-6)
        elif name in ("batch_norm", "in_place"):
            np.testing.assert_allclose(result[0], expected, atol=1e-6)
        elif name == "backward":
            known = x.size / x.shape[axis], np.full(x.shape[axis], 100.0), np.full(x.shape[axis], 400.0)
            np.testing.assert_allclose(result[0], reference.backward(x, x, (axis,), *known)[0], atol=1e-5)


def _status(field):
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def growth(call):
    """Bytes by which the peak of the resident set exceeds what was resident before the call."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
        before = _status("VmRSS")
    except OSError:
        before = None
    unit = 1 if sys.platform == "darwin" else 1024
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    result = call()
    if before is None:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - highest
    else:
        grown = _status("VmHWM") - before
    del result
    return max(0, grown)


def main(case, mib, *names):
    check(case, names)
    x, axis, out = made(case, int(mib) << 18)
    call = verbs(x, axis, out)
    for name in names:
        call[name]()  # a large array may take another kernel, and to compile one takes more memory than it uses
    print(json.dumps({name: growth(call[name]) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
