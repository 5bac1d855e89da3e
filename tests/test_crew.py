"""One call of several threads gives the bits of one thread, whoever comes, late or never."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest

import numbabn
from numbabn import BatchNorm, lanes
from numbabn.backends import cuts, threads

# Rows that are merged; planes of which an item is some channels; and such that are trained while a cache holds them.
SHAPES = {"rows": (100_001, 6), "planes": (2, 6, 50_000), "cached planes": (3, 64, 4001), "wide": (40, 20_000)}
shared, job = cuts.kernels("shared"), cuts.kernels("job")


def drawn(name: str) -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, SHAPES[name]).astype(np.float32)


def all_verbs(x: np.ndarray) -> list[bytes]:
    channels = x.shape[1]
    gamma, beta = np.linspace(0.5, 2, channels), np.linspace(-1, 1, channels)
    m = numbabn.moments(x, axis=1)
    y = numbabn.normalize(x, m.mean, m.var(), gamma, beta, axis=1)
    z, again = numbabn.batch_norm(x, gamma, beta, axis=1)
    place = x.copy()
    numbabn.batch_norm(place, gamma, beta, axis=1, out=place)
    bn = BatchNorm(channels, axis=1)
    trained = bn(x, training=True)
    bn.update(x)
    gradients = numbabn.batch_norm_backward(y, x, m, gamma, axis=1)
    arrays = (*gradients, m.mean, m.m2, y, z, again.mean, again.m2, place, trained, bn.running_mean, bn.running_var)
    return [a.tobytes() for a in arrays]


@pytest.fixture(params=SHAPES)
def shape(request: Any) -> str:
    name: str = request.param
    return name


def test_the_bits_of_one_thread(shape: str) -> None:
    x = drawn(shape)
    found = lanes.lane(x, 1, None)
    assert found is not None
    with mock.patch.object(lanes, "lane", return_value=None):
        expected = all_verbs(x)
    for limit in (1, 2, 3, 8):
        with numbabn.num_threads(limit):
            assert all_verbs(x) == expected
    assert any(kept[job.BOTH] for kept in found._kept) == (shape == "cached planes")


def test_many_callers_at_once(shape: str) -> None:
    x = drawn(shape)
    expected, wrong = all_verbs(x), []

    def call() -> None:
        with numbabn.num_threads(4):
            for _ in range(10):
                if all_verbs(x) != expected:
                    wrong.append(shape)

    callers = [threading.Thread(target=call) for _ in range(5)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert not wrong


@pytest.mark.parametrize("come", ["never", "late", "twice", "after the end"])
def test_helpers_that_come_when_they_like(shape: str, come: str) -> None:
    x, kept = drawn(shape), []
    expected = all_verbs(x)

    def enter(call: Any, help: Callable[[], None], wanted: int, limit: int) -> int:
        kept.append(help)
        if come in ("late", "twice"):
            for _ in range(1 + (come == "twice")):
                threading.Timer(1e-4, help).start()
        return wanted

    with mock.patch.object(threads._runtime, "enter", enter), numbabn.num_threads(2):
        for _ in range(5):
            assert all_verbs(x) == expected
    assert kept
    for help in kept:
        help()
    assert not threads._runtime.calls


def test_a_call_inside_a_helper_is_done_there(shape: str) -> None:
    x = drawn(shape)
    expected, results = all_verbs(x), []
    with mock.patch.object(threads._inside, "helper", True, create=True):
        results.append(all_verbs(x))
    assert results == [expected]


def test_whoever_waits_in_vain_leaves() -> None:
    memory = np.zeros(shared.WORDS, np.int64)
    helping = cuts.kernel("crew", "help")
    assert helping(memory)
    assert not memory.any()
    memory[shared.CLOSED] = 1
    assert helping(memory)


@contextlib.contextmanager
def refusing(kept: np.ndarray, form: str) -> Iterator[None]:
    """Let a job have a kernel that finds no memory."""
    refuse = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda slots: 0)
    place = getattr(job, form) + job.FUNCTION
    before = kept[place]
    kept[place] = ctypes.cast(refuse, ctypes.c_void_p).value
    try:
        yield
    finally:
        kept[place] = before


@pytest.mark.parametrize("form", ["SUMS", "INPUTS"])
def test_where_a_kernel_of_the_way_back_has_no_memory(form: str) -> None:
    x = drawn("rows")
    m = numbabn.moments(x)
    expected = numbabn.batch_norm_backward(x, x, m)[0]
    found = lanes.lane(x, -1, None)
    assert found is not None
    assert found.backward
    with refusing(next(k for k in found._kept if k[job.SUMS]), form):
        for limit in (1, 2):
            with numbabn.num_threads(limit):
                if form == "INPUTS" and limit > 1:
                    with pytest.raises(MemoryError, match="fewer threads"):
                        numbabn.batch_norm_backward(x, x, m)
                else:
                    assert numbabn.batch_norm_backward(x, x, m)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", ["MEASURE", "MERGE", "WRITE", "BOTH"])
def test_where_a_kernel_has_no_memory(form: str) -> None:
    """What has been read goes the general way; what has been written in part is told."""
    name = "cached planes" if form == "BOTH" else "rows"
    x = drawn(name)
    bn = BatchNorm(x.shape[1], axis=1)
    expected = bn.copy()(x, training=True)
    found = lanes.lane_of(bn._options, x)
    assert found is not None
    train = found.train
    kept = next(k for k in found._kept if k[job.BOTH] or (k[job.MEASURE] and k[job.WRITE]))
    with refusing(kept, form):
        assert found.train is train
        with numbabn.num_threads(2):
            if form in ("MEASURE", "MERGE"):
                assert bn(x, training=True).tobytes() == expected.tobytes()
            else:
                with pytest.raises(MemoryError, match="fewer threads"):
                    bn(x, training=True)
                assert bn.num_batches == 0
        with numbabn.num_threads(1):
            fresh = BatchNorm(x.shape[1], axis=1)
            assert fresh(x, training=True).tobytes() == expected.tobytes()


def test_ctrl_c_before_the_work_lets_everybody_go() -> None:
    x = drawn("rows")
    numbabn.moments(x)
    left = threading.Event()

    def enter(call: Any, help: Callable[[], None], wanted: int, limit: int) -> int:
        threading.Thread(target=lambda: (help(), left.set())).start()
        raise KeyboardInterrupt

    with (
        mock.patch.object(threads._runtime, "enter", enter),
        numbabn.num_threads(2),
        pytest.raises(KeyboardInterrupt),
    ):
        numbabn.moments(x)
    assert left.wait(10)
    assert not threads._runtime.calls
