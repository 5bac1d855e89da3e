"""Every verb on the device against the CPU's: fresh random data, poisoned outputs, every kernel of both families."""

import itertools
from dataclasses import dataclass

import ml_dtypes
import numpy as np

import numbabn
from numbabn import devices
from numbabn.devices import DeviceArray, Place
from numbabn.devices.driver import LEGACY

# name: (shape, channel axis, view); the numbers of values are small, those of the axes awkward.
SHAPES = {
    "rows": ((2051, 67), -1, lambda a: a),
    "rows-3": ((5003, 3), -1, lambda a: a),
    "rows-wide": ((37, 3001), -1, lambda a: a),
    "rows-inner": ((61, 19, 5), 1, lambda a: a),
    "planes": ((5, 7, 71, 73), 1, lambda a: a),
    "planes-one": ((1, 3, 100_003), 1, lambda a: a),
    "none kept": ((301, 211), (), lambda a: a),
    "several kept": ((13, 5, 11, 7), (1, 3), lambda a: a),
    "fortran": ((67, 2051), -1, lambda a: a.T),
    "columns": ((2051, 96), -1, lambda a: a[:, 3:70]),
    "turned": ((1009, 17), -1, lambda a: a[::-2, ::-1]),
    "one row": ((1, 130), -1, lambda a: a),
    "rows-64": ((5003, 64), -1, lambda a: a),
    "at an odd address": ((2052, 67), -1, lambda a: a[1:]),
    "planes-four": ((9, 5, 64, 66), 1, lambda a: a),
    "planes-short": ((70, 9, 7, 7), 1, lambda a: a),
}
TINY = {
    "rows": ((9, 3), -1, lambda a: a),
    "planes": ((2, 2, 300), 1, lambda a: a),
    "columns": ((7, 6), -1, lambda a: a[:, 1:4]),
    "none kept": ((5, 4), (), lambda a: a),
    "fortran": ((3, 7), -1, lambda a: a.T),
}
# Those that the planes family takes, of the others rows.
PLANES = ("planes", "planes-one", "planes-four", "planes-short", "none kept", "fortran")
FAMILIES = ("rows", "planes")  # of kernels: a process for each compiles half as much
ENOUGH = 20  # wrong verbs, after which no more are looked for: a device that has failed fails at everything
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "bool")


@dataclass(frozen=True)
class Case:
    """One array on both sides."""

    name: str
    x: np.ndarray
    axis: object

    @property
    def channels(self):
        """The shape of the channels."""
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        return tuple(self.x.shape[a] for a in axes)


def cases_of(tiny, family):
    """The cases of a loop family; all for None."""
    cases = TINY if tiny else SHAPES
    return {name: case for name, case in cases.items() if family in (None, "planes" if name in PLANES else "rows")}


def everything(tiny=False, dtypes=DTYPES, seed=None, say=print, so_far=lambda found: None, family=None):
    """Check all: {"answers": how many were compared, "wrong": in words, "seed"}; one failure stops no other."""
    seed = int(np.random.SeedSequence().entropy % (1 << 32)) if seed is None else seed
    rng, found = np.random.default_rng(seed), {"answers": 0, "wrong": [], "seed": seed}
    for name, (shape, axis, view) in cases_of(tiny, family).items():
        for dtype in dtypes:
            values = rng.normal(3, 20, shape) if dtype == "int8" else rng.normal(3, 2, shape)
            case = Case(f"{name} {dtype}", view(values.astype(named(dtype))), axis)
            for verb in VERBS:
                _tried(found, f"{case.name}, {verb.__name__}", lambda verb=verb, case=case: verb(case, rng))
                if len(found["wrong"]) >= ENOUGH:
                    return found
            so_far(found)
        say(f"checked {name}: {found['answers']} answers so far, {len(found['wrong'])} verbs wrong", flush=True)
    if not tiny and "int8" in dtypes:
        from gpu import large

        for each in FAMILIES if family is None else (family,):
            _tried(found, f"large {each}", lambda each=each: large.compared(each, rng))
    return found


def _tried(found, what, work):
    """Add the answers that a work compares, or what is wrong with them."""
    try:
        found["answers"] += work()
    except Exception as error:
        wrong = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        found["wrong"].append(f"{what}: {wrong}"[:600])


def named(dtype):
    """A dtype by its name."""
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


def send(a):
    """A copy on the device with the strides that it has here: of the whole memory that it is a view of."""
    memory = a
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    place = Place(0, LEGACY, "numbabn")
    there = devices.upload(memory.ravel(order="K"), place)  # as it lies: an array of no base may be in any order
    offset = a.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    flat = np.ndarray(a.shape, a.dtype, there.view(np.ndarray).view(np.uint8), offset, a.strides)
    shadow = flat.view(devices.Shadow)
    shadow.place = place
    return DeviceArray(shadow)


def poisoned(a, dtype):
    """An output on the device whose every bit is set."""
    return send(np.full(a.shape, 255, np.uint8).repeat(dtype.itemsize).view(dtype).reshape(a.shape))


def fetch(a):
    """What a device array holds; arrays and numbers of the host as they are."""
    return a if isinstance(a, (np.ndarray, np.generic)) else devices.download(devices.taken(a, "a")[0])


def agree(case, what, got, wanted, slack=4):
    """AssertionError where an answer is further off than a few units in the last place."""
    got, wanted = (np.asarray(fetch(a)) for a in (got, wanted))
    assert got.shape == wanted.shape, f"{case.name}, {what}: shape {got.shape}, expected {wanted.shape}"
    assert got.dtype == wanted.dtype, f"{case.name}, {what}: dtype {got.dtype}, expected {wanted.dtype}"
    unit = float(ml_dtypes.finfo(wanted.dtype).eps)
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        size = np.nanmax(np.abs(wanted), initial=1, where=np.isfinite(wanted))
        off = np.abs(got - wanted) > slack * unit * (np.abs(wanted) + size)
    wrong = off | (np.isnan(got) != np.isnan(wanted)) | (np.isinf(got) != np.isinf(wanted))
    assert not wrong.any(), (
        f"{case.name}, {what}: {np.count_nonzero(wrong)} of {wrong.size} values are wrong, the first at "
        f"{tuple(map(int, np.argwhere(wrong)[0]))}: {got[wrong][0]!r}, expected {wanted[wrong][0]!r}"
    )


def moments(case, rng):
    """Plain, with every kind of pick, and the same bits again."""
    x = send(case.x)
    first, again = (numbabn.moments(x, axis=case.axis) for _ in range(2))
    assert first == again, f"{case.name}: moments differ from run to run"
    picks = [{}, {"where": rng.random(case.x.shape) > 0.4}, {"weights": rng.integers(0, 3, case.x.shape)}]
    axes = {a % case.x.ndim for a in (case.axis if isinstance(case.axis, tuple) else (case.axis,))}
    reduced = [d for d in range(case.x.ndim) if d not in axes]
    picks += [{"where": rng.random(case.x.shape[reduced[0]]) > 0.4}]
    for pick, policy in itertools.product(picks, ("propagate", "omit")):
        there = {name: send(np.ascontiguousarray(a)) for name, a in pick.items()}
        m = numbabn.moments(x, axis=case.axis, nan_policy=policy, **there)
        m_ = numbabn.moments(case.x, axis=case.axis, nan_policy=policy, **pick)
        for name in ("count", "mean", "m2"):
            agree(case, f"{name} {[*pick]} {policy}", np.asarray(getattr(m, name)), np.asarray(getattr(m_, name)), 4096)
    return len(picks) * 2


def transform(case, rng):
    """With and without parameters, residual and activation; into a new array, a poisoned one, and in place."""
    mean, gamma, beta = rng.normal(size=(3, *case.channels))
    var, z = rng.uniform(0.5, 2, case.channels), rng.normal(size=case.x.shape).astype(case.x.dtype)
    x, dtype, done = send(case.x), numbabn.normalize(case.x, 0, 1, axis=case.axis).dtype, 0
    for act, residual, shift in itertools.product((None, "relu", "silu"), (None, z), (None, beta)):
        how = {"axis": case.axis, "activation": act}
        expected = numbabn.normalize(case.x, mean, var, gamma, shift, residual=residual, **how)
        there = None if residual is None else send(z)
        out = poisoned(case.x, dtype)
        for target in (None, out):
            y = numbabn.normalize(x, mean, var, gamma, shift, residual=there, out=target, **how)
            agree(case, f"normalize {how} {residual is not None} {target is not None}", y, expected)
            done += 1
    if dtype == case.x.dtype:
        own = send(case.x.copy())
        expected = numbabn.normalize(case.x, mean, var, gamma, beta, axis=case.axis)
        agree(case, "in place", numbabn.normalize(own, mean, var, gamma, beta, axis=case.axis, out=own), expected)
    return done


def train(case, rng):
    """By its own statistics, picked and not."""
    gamma, beta = rng.normal(size=(2, *case.channels))
    where, dtype = rng.random(case.x.shape) > 0.4, numbabn.normalize(case.x, 0, 1, axis=case.axis).dtype
    for pick in ({}, {"where": where}):
        there = {name: send(a) for name, a in pick.items()}
        y, m = numbabn.batch_norm(send(case.x), gamma, beta, axis=case.axis, out=poisoned(case.x, dtype), **there)
        expected, m_ = numbabn.batch_norm(case.x, gamma, beta, axis=case.axis, **pick)
        agree(case, f"batch_norm {[*pick]}", y, expected, 4096 if dtype == np.float64 else 8)
        agree(case, "its m2", m.m2, m_.m2, 4096)
    return 2


def backward(case, rng):
    """All gradients, into poisoned outputs."""
    if case.x.dtype.kind not in "fV":
        return 0
    dy, z = (rng.normal(size=case.x.shape).astype(case.x.dtype) for _ in range(2))
    larger = rng.normal(size=(*case.x.shape[:-1], case.x.shape[-1] + 3)).astype(case.x.dtype)[..., :-3]
    gamma, beta = rng.normal(size=(2, *case.channels))
    _, m = numbabn.batch_norm(case.x, axis=case.axis)
    for act, residual in itertools.product((None, "relu"), (None, z, larger)):
        how = {"axis": case.axis, "activation": act}
        wanted = numbabn.batch_norm_backward(dy, case.x, m, gamma, beta, residual=residual, **how)
        there = None if residual is None else send(residual)
        out = poisoned(case.x, case.x.dtype)
        got = numbabn.batch_norm_backward(send(dy), send(case.x), m, gamma, beta, residual=there, out=out, **how)
        for name, a, b in zip(("dx", "dgamma", "dbeta", "dz"), got, wanted, strict=False):
            agree(case, f"{name} {act} {residual is not None}", a, b, 1 << 16 if b.dtype == np.float64 else 64)
    return 6


def state(case, rng):
    """A BatchNorm that lives on the device learns as one on the host does."""
    if case.x.dtype.kind not in "fV":
        return 0
    for average in ("exponential", "mixture", "debiased", "equal", "cumulative"):
        host = numbabn.BatchNorm(case.channels, axis=case.axis, average=average)
        there = numbabn.BatchNorm(case.channels, axis=case.axis, average=average).to("cuda")
        for _ in range(2):
            x = (case.x * rng.normal(1, 0.1)).astype(case.x.dtype)
            agree(case, f"training {average}", there(send(x), training=True), host(x, training=True), 1 << 12)
        for name, value in host.state_dict().items():
            agree(
                case,
                f"{average} {name}",
                np.asarray(there.state_dict()[name], float),
                np.asarray(value, float),
                1 << 14,
            )
        agree(case, f"inference {average}", there(send(case.x)), host(case.x), 1 << 12)
    return 5


def streamed(case, rng):
    """A host array by way of the device."""
    y, m = numbabn.batch_norm(case.x, axis=case.axis, backend="cuda")
    expected, m_ = numbabn.batch_norm(case.x, axis=case.axis, backend="cpu")
    agree(case, "a host array", y, expected, 4096 if y.dtype == np.float64 else 8)
    agree(case, "its mean", m.mean, m_.mean, 4096)
    return 2


VERBS = (moments, transform, train, backward, state, streamed)
