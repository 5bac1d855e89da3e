"""Host arrays with ``backend="cuda"``, piece by piece, with the kernels that will run there, under numba's simulator:
``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python -m pytest tests/simulated_streamed.py``.
"""

from __future__ import annotations

import itertools
from typing import Any

import devicelike
import ml_dtypes
import numpy as np
import pytest

import numbabn
from numbabn.backends import cuda_cuts, pinned
from numbabn.devices import driver

RNG = np.random.default_rng(0)
SHAPES: dict[str, tuple[tuple[int, ...], Any, Any]] = {
    "rows": ((23, 3), -1, lambda a: a),
    "planes": ((3, 2, 20), 1, lambda a: a),
    "channels first": ((5, 30), 0, lambda a: a),
    "one long channel": ((2, 90), 0, lambda a: a),
    "turned": ((12, 4), -1, lambda a: a[::-1, ::-1]),
    "columns": ((12, 6), -1, lambda a: a[:, 1:4]),
    "channels in between": ((3, 2, 3, 2), (1, 3), lambda a: a),
    "fortran": ((9, 4), -1, np.asfortranarray),
    "big-endian": ((9, 4), -1, lambda a: a.astype(">f8")),
    "repeated": ((1, 4), -1, lambda a: np.broadcast_to(a, (9, 4))),
}
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.bool_)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"COLS": 4, "SUMS": 8, "WRITES": 8, "MANY": 5, "JOIN": 8, "BLOCKS": 12, "EACH": 4, "STEPS": 5}
    for name, value in sizes.items():
        monkeypatch.setattr(cuda_cuts, name, value)
    monkeypatch.setattr(pinned, "PIECE", 192)


def close(got: Any, wanted: Any, slack: float = 4) -> None:
    assert type(got) is np.ndarray
    assert got.dtype == wanted.dtype
    unit = float(ml_dtypes.finfo(wanted.dtype).eps)
    np.testing.assert_allclose(
        got.astype(float), wanted.astype(float), rtol=slack * unit, atol=slack * unit * max(1, abs(wanted).max())
    )


def same_moments(a: Any, b: Any) -> None:
    for got, wanted in ((a.count, b.count), (a.mean, b.mean), (a.m2, b.m2)):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SHAPES)
def test_every_verb_piece_by_piece(case: str) -> None:
    shape, axis, view = SHAPES[case]
    x = view(RNG.normal(3, 2, shape))
    channels = np.empty(x.shape).sum(tuple(d for d in range(x.ndim) if d not in _axes(axis, x.ndim))).shape
    gamma, beta = RNG.normal(size=(2, *channels))
    how: dict[str, Any] = {"axis": axis}
    y, m = numbabn.batch_norm(x, gamma, beta, **how, backend="cuda")
    expected, m_ = numbabn.batch_norm(x, gamma, beta, **how, backend="cpu")
    close(y, expected, 64)
    same_moments(m, m_)
    same_moments(numbabn.moments(x, **how, backend="cuda"), m_)
    out = np.full(x.shape, np.nan)
    numbabn.normalize(x, m.mean, m.var(), **how, out=out, backend="cuda")
    close(out, numbabn.normalize(x, m.mean, m.var(), **how, out=np.empty_like(out)))
    dy = RNG.normal(size=x.shape)
    for got, wanted in zip(
        numbabn.batch_norm_backward(dy, x, m_, gamma, **how, backend="cuda"),
        numbabn.batch_norm_backward(dy, x, m_, gamma, **how),
        strict=True,
    ):
        close(got, wanted, 256)
    if x.flags.writeable and x.dtype.isnative:
        numbabn.batch_norm(x, gamma, beta, **how, out=x, backend="cuda")
        close(x, expected, 64)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_dtype(dtype: Any) -> None:
    x = RNG.normal(0, 3, (21, 3)).astype(dtype)
    y, m = numbabn.batch_norm(x, backend="cuda")
    expected, m_ = numbabn.batch_norm(x)
    close(y, expected)
    same_moments(m, m_)


PICKS = {
    "rows": {"where": np.arange(21) % 3 > 0},
    "one for each": {"where": RNG.random((21, 3)) > 0.5},
    "weights": {"weights": RNG.integers(0, 3, 21)},
    "channels": {"where": np.array([[True, False, True]])},
}


@pytest.mark.parametrize("case", PICKS)
@pytest.mark.parametrize("shape", [(21, 3), (3, 21)])
def test_picks(case: str, shape: Any) -> None:
    how: dict[str, Any] = {n: a.T if shape == (3, 21) and a.ndim == 2 else a for n, a in PICKS[case].items()}
    x, axis = RNG.normal(size=shape), shape.index(3)
    x[tuple(np.minimum(shape, 3) - 1)] = np.nan
    for policy in ("propagate", "omit"):
        got, wanted = (numbabn.moments(x, axis=axis, nan_policy=policy, **how, backend=b) for b in ("cuda", "cpu"))
        same_moments(got, wanted)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_residual_and_activation_both_ways(activation: str) -> None:
    x, z, dy = RNG.normal(size=(3, 12, 4))
    how: dict[str, Any] = {"residual": z, "activation": activation, "beta": [0.5, 0, 1, 2]}
    y, m = numbabn.batch_norm(x, **how, backend="cuda")
    expected, _ = numbabn.batch_norm(x, **how)
    close(y, expected, 64)
    for got, wanted in zip(
        numbabn.batch_norm_backward(dy, x, m, **how, backend="cuda"),
        numbabn.batch_norm_backward(dy, x, m, **how),
        strict=True,
    ):
        close(got, wanted, 256)
    into = z.copy()
    numbabn.normalize(x, 0, 1, residual=into, out=into, backend="cuda")
    close(into, numbabn.normalize(x, 0, 1, residual=z))


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_with_and_without_room_for_x(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = pinned._Slot.send
    monkeypatch.setattr(pinned._Slot, "send", lambda self, a, **how: sent.append(a.size) or send(self, a, **how))
    monkeypatch.setattr(driver.Simulated, "free_memory", lambda self: room)
    x = RNG.normal(size=(30, 4))
    y, _ = numbabn.batch_norm(x, backend="cuda")
    close(y, numbabn.batch_norm(x)[0], 64)
    assert sum(sent) == x.size * (1 if room else 2)


def test_results_are_the_same_from_run_to_run_and_pieces_follow_each_other() -> None:
    x = RNG.normal(size=(16, 5))
    first, second = (numbabn.moments(x, backend="cuda") for _ in range(2))
    assert first == second


def test_streams_take_turns_and_pinned_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(pinned, "PIECE", 64)
    monkeypatch.setattr(driver.Simulated, "record", lambda self, event, stream: told.append(stream))
    numbabn.normalize(RNG.normal(size=(40, 2)), 0, 1, backend="cuda")
    assert len(told) == 10
    assert len(set(told)) == pinned.SLOTS
    assert all(a != b for a, b in itertools.pairwise(told))
    assert sum(map(len, pinned._free.values())) > 0
    monkeypatch.setattr(pinned, "FREE", 0)
    numbabn.normalize(RNG.normal(size=(40, 2)), 0, 1, backend="cuda")
    assert sum(map(len, pinned._free.values())) == 0


def test_an_error_in_the_middle_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from numbabn.backends import streamed

    def failing(*arguments: Any) -> None:
        raise RuntimeError("launch failed")

    monkeypatch.setattr(streamed.cuda, "transform_window", failing)
    with pytest.raises(RuntimeError, match="launch failed"):
        numbabn.normalize(RNG.normal(size=(40, 2)), 0, 1, backend="cuda")
    monkeypatch.undo()
    numbabn.normalize(RNG.normal(size=(4, 2)), 0, 1, backend="cuda")


def test_a_batchnorm_of_the_host_works_on_the_device() -> None:
    host, device = numbabn.BatchNorm(3), numbabn.BatchNorm(3, backend="cuda")
    x = RNG.normal(size=(21, 3))
    close(device(x, training=True), host(x, training=True), 64)
    np.testing.assert_allclose(device.running_var, host.running_var)
    close(device(x), host(x), 64)
    close(device.backward(x)[0], host.backward(x)[0], 256)
    with pytest.raises(ValueError, match="choose backend='cpu'"):
        numbabn.moments(x, extra="all", backend="cuda")


assert devicelike  # its import comes before numba's
