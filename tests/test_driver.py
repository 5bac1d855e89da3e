"""What the CUDA driver is asked for, without one: a stand-in for cuda-bindings that writes it down."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from numbabn.devices import driver

OK, NONE_LEFT, BROKEN = (SimpleNamespace(name=name) for name in ("CUDA_SUCCESS", "OUT_OF_MEMORY", "BROKEN"))


class Bindings(ModuleType):
    """Any function of the driver: notes the call, and answers with success and what `answers` has for it."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.driver")
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, tuple[Any, ...]] = {}
        self.CUresult = SimpleNamespace(CUDA_SUCCESS=OK, CUDA_ERROR_OUT_OF_MEMORY=NONE_LEFT)
        names = SimpleNamespace(
            CU_MEMPOOL_ATTR_RELEASE_THRESHOLD="threshold",
            CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES="reads",
        )
        self.CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
        self.CUmemPool_attribute = self.CUdevice_attribute = names
        self.cuuint64_t = int

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            return self.answers.get(name, (OK, 0))

        return call

    def made(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, *args in self.calls if called == name]  # type: ignore[misc]


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> Bindings:
    found, package = Bindings(), ModuleType("cuda.bindings")
    package.driver = found  # type: ignore[attr-defined]
    for name, module in {"cuda": ModuleType("cuda"), "cuda.bindings": package, "cuda.bindings.driver": found}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.mark.parametrize(("before", "after"), [(0, [driver.KEPT]), (1 << 40, [])])
def test_the_pool_of_everybody_never_keeps_less_than_before(bindings: Bindings, before: int, after: list[int]) -> None:
    bindings.answers["cuMemPoolGetAttribute"] = (OK, before)
    driver.Cuda(0)
    assert [args[2] for args in bindings.made("cuMemPoolSetAttribute")] == after


@pytest.mark.parametrize("later", [0, 1])
def test_memory_of_the_host_is_free_again_when_it_was_sent(bindings: Bindings, later: int) -> None:
    bindings.answers["cuDeviceGetAttribute"] = (OK, later)
    cuda = driver.Cuda(0)
    cuda.send(256, 512, 8, 7)
    assert bindings.made("cuMemcpyAsync") == [[256, 512, 8, 7]]
    assert bindings.made("cuStreamSynchronize") == [[7]] * later


def test_errors_are_in_words(bindings: Bindings) -> None:
    cuda = driver.Cuda(0)
    bindings.answers |= {"cuMemAllocAsync": (NONE_LEFT, 0), "cuGetErrorString": (OK, b"it broke")}
    with pytest.raises(MemoryError, match="the device has not enough memory left"):
        cuda.alloc(8, 1)
    bindings.answers["cuEventRecord"] = (BROKEN,)
    with pytest.raises(RuntimeError, match="CUDA driver: BROKEN: it broke"):
        cuda.record(1, 1)


def test_a_context_that_was_not_current_is_left_again(bindings: Bindings) -> None:
    bindings.answers["cuDevicePrimaryCtxRetain"] = (OK, 40)
    cuda = driver.Cuda(0)
    for current, pushes in ((0, True), (40, False), (50, True)):
        bindings.answers["cuCtxGetCurrent"] = (OK, current)
        assert cuda.enter() is pushes
    assert bindings.made("cuCtxPushCurrent") == [[40], [40]]


def test_garbage_goes_in_any_order_and_behind_all_that_used_it(bindings: Bindings) -> None:
    bindings.answers |= {"cuEventCreate": (OK, 77), "cuMemAllocAsync": (OK, 256)}
    for mark_first in (False, True):
        driver._of_device.cache_clear()
        mark = driver.Mark(0)
        buffer = driver.Buffer(8, 0, 5, mark)
        bindings.calls.clear()
        for gone in (mark, buffer) if mark_first else (buffer, mark):
            gone.__del__()  # as the garbage collector does within a cycle, before it takes them apart
        names = ("cuStreamWaitEvent", "cuMemFreeAsync", "cuEventDestroy")
        made = [(name, *args[:2]) for name, *args in bindings.calls if name in names]
        waits, frees, destroyed = ("cuStreamWaitEvent", 1, 77), ("cuMemFreeAsync", 256, 1), ("cuEventDestroy", 77)
        first = [waits, destroyed, frees] if mark_first else [waits, frees, waits, destroyed]
        assert made == first
        bindings.answers["cuCtxGetCurrent"] = (BROKEN,)  # they go again when the test is over: to no driver
        del mark, buffer, gone
        bindings.answers["cuCtxGetCurrent"] = (OK, 0)
    driver._of_device.cache_clear()
