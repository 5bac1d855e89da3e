"""Memory of the device is used in order, whatever streams the arrays of a caller are on: seen by vector clocks, under
numba's simulator: ``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python -m pytest tests/simulated_order.py``.

The simulator does everything at once, so a missing wait changes no result. Here each stream has a clock. Whoever uses
memory must come behind the one that used it before: behind its allocation, a copy, a kernel, and before it is freed.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from devicelike import WithDlpack, WithInterface, values_of

import numbabn
from numbabn.backends import cuda, cuda_gather, cuda_launch, device_state
from numbabn.devices import driver, pointer_of

HOST = "host"
X, Z = np.random.default_rng(0).normal(3, 2, (2, 5, 3)).astype(np.float32)
Clock = dict[Any, int]


class Clocks:
    """What each stream knows to be done, and who used which memory last."""

    def __init__(self) -> None:
        self.known: dict[Any, Clock] = defaultdict(dict)
        self.events: dict[int, Clock] = {}
        self.memory: dict[int, tuple[int, list[tuple[Any, int]]]] = {}
        self.wrong: list[str] = []

    def learns(self, stream: Any, clock: Clock) -> None:
        mine = self.known[stream]
        for other, time in clock.items():
            mine[other] = max(mine.get(other, 0), time)

    def uses(self, what: str, stream: int, *pointers: int) -> None:
        self.learns(stream, self.known[HOST])
        mine = self.known[stream]
        mine[stream] = mine.get(stream, 0) + 1
        for pointer in pointers:
            for start, (nbytes, users) in self.memory.items():
                if start <= pointer < start + nbytes:
                    late = {other for other, time in users if mine.get(other, 0) < time}
                    self.wrong += [f"{what} on {stream} does not wait for {other}" for other in sorted(late)]
                    users.append((stream, mine[stream]))


def arrays_in(value: Any) -> Iterator[int]:
    if isinstance(value, np.ndarray):
        yield pointer_of(value)
    elif isinstance(value, tuple):
        for v in value:
            yield from arrays_in(v)


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    c, kind = Clocks(), driver.Simulated
    alloc, free, copy = kind.alloc, kind.free, kind.copy

    def allocated(self: Any, nbytes: int, stream: int) -> int:
        pointer = alloc(self, nbytes, stream)
        c.memory[pointer] = (max(nbytes, 1), [])
        c.uses("alloc", stream, pointer)
        return pointer

    def freed(self: Any, pointer: int, stream: int) -> None:
        c.uses("free", stream, pointer)
        c.memory.pop(pointer, None)
        free(self, pointer, stream)

    def copied(self: Any, to: int, source: int, nbytes: int, stream: int) -> None:
        c.uses("copy", stream, to, source)
        copy(self, to, source, nbytes, stream)

    does: dict[str, Callable[..., Any]] = {
        "alloc": allocated,
        "free": freed,
        "copy": copied,
        "alloc_pinned": lambda self, nbytes: alloc(self, nbytes, driver.LEGACY),
        "free_pinned": lambda self, pointer: free(self, pointer, driver.LEGACY),
        "record": lambda self, event, stream: c.events.update({event: c.known[HOST] | c.known[stream]}),
        "wait": lambda self, stream, event: c.learns(stream, c.events[event]),
        "wait_here": lambda self, event: c.learns(HOST, c.events[event]),
        "synchronize": lambda self, stream: c.learns(HOST, c.known[stream]),
    }
    for name, does_it in does.items():
        monkeypatch.setattr(kind, name, does_it)
    launch = cuda.launch

    def launched(kernel: Any, grid: Any, block: Any, place: Any, *args: Any) -> None:
        c.uses(getattr(kernel, "__name__", "kernel"), place.stream, *arrays_in(args))
        launch(kernel, grid, block, place, *args)

    for module in (cuda, cuda_gather, cuda_launch, device_state):
        monkeypatch.setattr(module, "launch", launched)
    for name in ("THREADS", "LEARNERS"):
        monkeypatch.setattr(device_state, name, 2)
    yield c
    gc.collect()
    assert c.wrong == []


def on(stream: int, values: Any = X) -> WithInterface:
    return WithInterface(values.copy(), stream=stream)


def trained(**how: Any) -> Any:
    return numbabn.BatchNorm(3, **how).to("cuda")


def test_the_clocks_see_a_missing_wait(clocks: Clocks) -> None:
    with driver.on(0) as d:
        pointer = d.alloc(8, 7)
        clocks.uses("kernel", 9, pointer)
        assert clocks.wrong == ["kernel on 9 does not wait for 7"]
        clocks.wrong.clear()
        d.record(1, 9)
        d.wait(7, 1)
        d.free(pointer, 7)


def test_parameters_get_there_before_they_are_used() -> None:
    for training in (True, False):
        bn = trained(gamma=[1.0, 2.0, 3.0], beta=0.5)
        bn(on(7), training=training)
        bn(on(9), training=training)
    trained()(on(7), training=True)
    trained()(on(9), training=True)


def test_parameters_given_on_a_device() -> None:
    bn = trained()
    bn.gamma = WithInterface(np.ones(3), stream=5)
    bn.beta = WithInterface(np.ones(3, np.float32), stream=6)
    bn(on(7), training=True)
    bn.gamma = WithInterface(np.ones(3), stream=8)
    np.testing.assert_array_equal(bn.gamma, 1)
    bn(on(9))


def test_training_inference_and_the_way_back_on_different_streams() -> None:
    bn = trained(gamma=1.0, beta=0.0)
    bn(on(7), training=True)
    bn(on(9))
    bn(on(11))
    bn.backward(on(13, Z), on(13))
    bn(on(7), training=True)
    bn.backward(on(9, Z), on(9))
    bn.gamma = 2.0
    bn(on(11))
    bn(on(13))


def test_calls_like_those_before_on_different_streams() -> None:
    bn = trained(gamma=1.0, beta=0.0)
    for stream in (7, 9, driver.LEGACY, driver.LEGACY, 9):
        x, out = on(stream), on(stream)
        bn(x, training=True, out=out)
        bn(x, out=out)
        bn.backward(on(stream, Z), x, out=out)
        bn.backward(on(13, Z), on(13))
        bn(on(stream))


@pytest.mark.parametrize("how", [{"where": True}, {"weights": True}, {"momentum": (0.5, 0.25)}])
def test_calls_that_are_others_each_time(how: dict[str, Any]) -> None:
    picks = dict.fromkeys(how.keys() & {"where", "weights"}, X > 2)
    bn = trained(**{name: value for name, value in how.items() if name not in picks})
    for stream in (7, driver.LEGACY, 9):
        there = {name: on(stream, a) for name, a in picks.items()}
        x = on(stream)
        bn(x, training=True, **there)
        bn.backward(on(stream, Z), x, **there)
        bn(x)


def test_reading_and_setting_the_state_between() -> None:
    bn = trained()
    bn(on(7), training=True)
    assert np.isfinite(bn.running_mean).all()
    bn.load_state_dict(bn.state_dict())
    bn(on(9), training=True)
    assert bn.num_batches == 2
    repr(bn.copy())


def test_the_way_back_through_the_host() -> None:
    bn = trained(gamma=1.0)
    bn(on(7, np.asfortranarray(X)), training=True)
    bn.backward(WithInterface(Z[:, ::-1], stream=9), on(9))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_functions_whose_arrays_have_streams_of_their_own(activation: Any) -> None:
    how: dict[str, Any] = {"residual": on(8, Z), "activation": activation}
    y, m = numbabn.batch_norm(on(7), out=on(9), **how)
    values_of(y)
    numbabn.batch_norm_backward(on(11, Z), on(7), m, residual=on(8, Z), activation=activation)
    numbabn.moments(WithDlpack(X), where=on(7, X > 3))
    numbabn.normalize(WithInterface(X[:, ::2], stream=7), m.mean[::2], m.var()[::2])


def test_host_arrays_by_way_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from numbabn.backends import pinned

    monkeypatch.setattr(pinned, "PIECE", 16)
    numbabn.batch_norm(X, where=X > 3, backend="cuda")
    _, m = numbabn.batch_norm(X, backend="cuda")
    numbabn.batch_norm_backward(Z, X, m, backend="cuda")
