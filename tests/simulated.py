"""The CUDA engine beside the CPU's, under numba's simulator:
``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python tests/simulated.py``.

Blocks of threads are small, so that several of them take part in tiny arrays, and fresh memory holds NaN. Every thread
is a thread of Python: a handful of values takes a tenth of a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import BFLOAT16, MEMORY, Case, draw

from numbabn import activations
from numbabn.activations import kernel_form
from numbabn.arrays import output_dtype
from numbabn.backends import cpu, cuda, cuda_cuts, cuda_gather
from numbabn.devices.shadow import Place, shadow_of
from numbabn.layout import canonical
from numbabn.picks import EVERYTHING, picked

CASES = (
    Case("rows", (13, 3), -1),
    Case("rows-inner", (5, 3, 4), 1),
    Case("rows-long", (203, 4), -1),
    Case("rows-wide", (9, 18), -1),
    Case("planes", (2, 2, 258), 1),
    Case("planes-odd", (9, 2, 35), 1),
    Case("planes-one", (1, 1, 300), 1),
    Case("none-kept", (6, 7), ()),
    Case("several-kept", (3, 2, 3, 2), (1, 3)),
)
FEW = ("rows-wide", "rows-long", "planes-one", "planes-odd", "none-kept")  # cases for which not all options are tried
DTYPES = (np.float32, np.float64, np.float16, BFLOAT16, np.int8, np.bool_)
HERE = Place(0, 1, "numba")


def shadow(a: np.ndarray) -> np.ndarray:
    """An array of the host as if it lay on a device."""
    return shadow_of(a.ctypes.data, a.shape, a.strides, a.dtype, HERE, owner=a, readonly=not a.flags.writeable)


class Both:
    """One layout for both engines: the same arrays, but those that are written are a copy for each."""

    def __init__(
        self, axes: tuple[int, ...], arrays: dict[str, np.ndarray], written: tuple[str, ...], pick: Any
    ) -> None:
        self.written = {engine: {n: self._poisoned(arrays[n], n) for n in written} for engine in (cpu, cuda)}
        self.layouts = {}
        for engine in (cpu, cuda):
            given = {n: self.written[engine].get(n, a) for n, a in arrays.items()}
            picks = dict(pick.views)
            if engine is cuda:
                given, picks = ({n: shadow(a) for n, a in some.items()} for some in (given, picks))
            self.layouts[engine] = canonical(given, axes, picks)

    @staticmethod
    def _poisoned(a: np.ndarray, name: str) -> np.ndarray:
        copy = np.lib.stride_tricks.as_strided(np.empty(1, a.dtype), a.shape, (0,) * a.ndim)
        copy = np.empty_like(copy, order="C") if a.flags.c_contiguous else np.array(a, order="K", copy=True)
        if name in ("x", "dy"):  # written in place: read first
            copy[...] = a
        else:
            copy[...] = np.nan
        return copy

    def agree(self) -> None:
        """Whether both wrote the same, to an ulp of the type."""
        for name, mine in self.written[cpu].items():
            its = self.written[cuda][name]
            a, b = (w.astype(np.float64) for w in (mine, its))
            small = {2: 4e-3, 4: 2e-7, 8: 1e-12}[mine.dtype.itemsize]
            np.testing.assert_allclose(b, a, rtol=small if mine.dtype != BFLOAT16 else 1e-2, atol=small, err_msg=name)


def same(mine: Any, its: Any, **how: Any) -> None:
    for a, b in zip(mine, its, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(b, a, **({"rtol": 1e-11, "atol": 1e-12} | how))


def options(case: Case, x: np.ndarray, few: bool) -> Iterator[tuple[Any, Any, bool]]:
    """(pick, activation, residual?) to try."""
    axes = case.kept
    rng = np.random.default_rng(5)
    yield EVERYTHING, None, False
    if few:
        return
    rest = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
    picks = (
        picked(x, axes, rng.random(x.shape) < 0.6, None, None),
        picked(x, axes, None, rng.random(rest).astype(np.float32), None),
        picked(x, axes, rng.random(rest) < 0.5, rng.random(x.shape), "omit"),
    )
    for pick, (activation, residual) in zip(picks, (("relu", True), ("silu", False), (None, True)), strict=True):
        yield pick, activation, residual


def check(case: Case, dtype: Any, memory: str, few: bool) -> None:
    """Every verb of both engines."""
    x = MEMORY[memory].of(draw(case, dtype))
    axes = case.kept
    channels = int(np.prod([x.shape[a] for a in axes]))
    rng = np.random.default_rng(3)
    mean, scale, shift, gamma = rng.normal(size=(4, channels))
    floating = output_dtype(x.dtype)
    for pick, name, with_residual in options(case, x, few):
        values = x
        if pick.omit:
            values = np.where(rng.random(x.shape) < 0.2, np.nan, x.astype(floating)).astype(floating)
        act = kernel_form(activations.checked(name))
        residual = {"residual": rng.normal(size=x.shape).astype(floating)} if with_residual else {}
        m = Both(axes, {"x": values}, (), pick)
        same(*(engine.moments(m.layouts[engine], pick.omit) for engine in (cpu, cuda)))
        out = np.empty_like(values, floating)
        t = Both(axes, {"x": values, **residual, "out": out}, ("out",), EVERYTHING)
        for engine in (cpu, cuda):
            engine.transform(t.layouts[engine], mean, scale, shift, act)
        t.agree()
        t = Both(axes, {"x": values, **residual, "out": out}, ("out",), pick)
        same(*(engine.train(t.layouts[engine], gamma, None, 1e-3, pick.omit, act) for engine in (cpu, cuda)))
        t.agree()
        if values.dtype == floating:
            t = Both(axes, {"x": values, **residual}, ("x",), EVERYTHING)
            for engine in (cpu, cuda):
                engine.transform(t.layouts[engine], mean, scale, None, act)
            t.agree()
            _back(axes, values, residual, pick, act, (mean, scale, shift, gamma), few)


def _back(axes: Any, x: np.ndarray, residual: Any, pick: Any, act: Any, parameters: Any, few: bool) -> None:
    mean, scale, shift, gamma = parameters
    dy = np.random.default_rng(7).normal(size=x.shape).astype(x.dtype)
    forward = None if act is None else (act, scale, shift)
    arrays = {"x": x, "dy": dy, **residual}
    sums = Both(axes, arrays, (), pick)
    same(
        *(engine.grad_sums(sums.layouts[engine], mean, pick.omit, forward) for engine in (cpu, cuda)),
        rtol=1e-9,
        atol=1e-9,
    )
    for frozen, into in itertools.product((False, True), ("dx", "dy")):
        if (frozen and pick) or (few and (frozen or into == "dy")):
            continue
        more = {"dz": np.empty_like(x)} if residual and into == "dx" else {}
        written = {"dx": np.empty_like(x)} if into == "dx" else {}
        both = Both(axes, arrays | written | more, (into, *more), pick)
        b, k = (None, None) if frozen else (shift, scale)
        for engine in (cpu, cuda):
            engine.grad_inputs(both.layouts[engine], mean, gamma, b, k, pick.omit, forward)
        both.agree()


def check_residuals() -> None:
    """Residuals that lie otherwise than the other arrays: parts of larger ones, and one row for all rows."""
    rng = np.random.default_rng(11)
    act = kernel_form(activations.checked("silu"))
    for shape, larger in (((9, 18), (9, 20)), ((9, 2, 35), (9, 2, 37)), ((9, 3, 35), (9, 5, 35)), ((9, 18), (1, 18))):
        x = rng.normal(size=shape).astype(np.float32)
        z = rng.normal(size=larger).astype(np.float32)
        z = np.broadcast_to(z, shape) if larger[0] == 1 else z[tuple(slice(n) for n in shape)]
        parameters = rng.normal(size=(4, shape[1]))
        _back((1,), x, {"residual": z}, EVERYTHING, act, parameters, True)
        t = Both((1,), {"x": x, "residual": z, "out": np.empty_like(x)}, ("out",), EVERYTHING)
        for engine in (cpu, cuda):
            engine.transform(t.layouts[engine], *parameters[:3], act)
        t.agree()


def main() -> None:
    for name, value in {
        "COLS": 4,
        "SUMS": 8,
        "WRITES": 8,
        "MANY": 5,
        "JOIN": 8,
        "BLOCKS": 12,
        "EACH": 4,
        "STEPS": 5,
        "HELD": 0,
        "FEW": 0,
    }.items():
        setattr(cuda_cuts, name, value)
    cuda_gather.BOX, cuda_gather.THREADS = 40, 8
    for case in CASES:
        check(case, np.float32, "c", few=case.name in FEW)
    for dtype in DTYPES[1:]:
        check(CASES[0] if dtype in (np.float16, np.int8) else CASES[5], dtype, "c", few=True)
    check(CASES[0], np.float32, "crop", few=False)
    for memory in ("fortran", "crop", "every-second-value", "all-reversed"):
        check(CASES[8], np.float32, memory, few=True)
    check_residuals()
    cuda_cuts.HELD = cuda_cuts.FEW = 1 << 20  # channels that one block of threads takes alone
    for case in CASES:
        check(case, np.float32, "c", few=case.name in FEW)
    print("ok")


if __name__ == "__main__":
    main()
