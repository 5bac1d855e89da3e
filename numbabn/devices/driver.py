"""The few calls of the CUDA driver that arrays need: memory, copies, streams and events. All are asynchronous.

Pointers, streams and events are plain integers; a device is its number. ``with on(device) as driver`` makes its primary
context, which PyTorch, CuPy, JAX and numba use too, current in this thread for a while. Under numba's simulator host
memory stands in for the device's, and everything is done by the time that a call returns.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import Any, Protocol

from . import probe

KEPT = 1 << 28  # bytes that the device's pool keeps when they are freed
LEGACY = 1  # the legacy default stream, as the driver, DLPack and the array interface number it


class Driver(Protocol):
    """What both systems do."""

    def enter(self) -> bool:
        """Make the device current, if it is not; returns whether `leave` has to undo that."""

    def leave(self) -> None:
        """Make current what was current before."""

    def alloc(self, nbytes: int, stream: int) -> int:
        """Memory of the device, in the order of a stream."""

    def free(self, pointer: int, stream: int) -> None:
        """Give it back, in the order of a stream."""

    def alloc_pinned(self, nbytes: int) -> int:
        """Host memory that the device copies from and to by itself."""

    def free_pinned(self, pointer: int) -> None:
        """Give it back, once nothing uses it."""

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Copy between any two places."""

    def send(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Copy from ordinary memory of the host, which may change as soon as this returns."""

    def new_stream(self) -> int:
        """A stream of its own, which waits for no other."""

    def free_stream(self, stream: int) -> None:
        """Let it go when its work is done."""

    def new_event(self) -> int:
        """A mark for the order of streams."""

    def free_event(self, event: int) -> None:
        """Let it go."""

    def record(self, event: int, stream: int) -> None:
        """Set the mark behind what the stream has to do now."""

    def wait(self, stream: int, event: int) -> None:
        """Let a stream wait for a mark."""

    def wait_here(self, event: int) -> None:
        """Wait on the host for a mark."""

    def synchronize(self, stream: int) -> None:
        """Wait on the host for a stream."""

    def free_memory(self) -> int:
        """Bytes of device memory that can be had."""


class On:
    """A device that is current in this thread for the time of a block."""

    __slots__ = ("_driver", "_pushed")

    def __init__(self, device: int) -> None:
        self._driver: Driver = _simulated() if probe.simulated() else _of_device(device)
        self._pushed = False

    def __enter__(self) -> Driver:
        self._pushed = self._driver.enter()
        return self._driver

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pushed:
            self._driver.leave()


on = On


class Mark:
    """The order of streams that take turns with some memory: an event behind what used it last.

    The legacy stream is there for ever, so the event is put behind its work only once another stream comes.
    """

    __slots__ = ("device", "driver", "event", "last")

    def __init__(self, device: int) -> None:
        self.device, self.last = device, LEGACY
        with on(device) as driver:
            self.driver, self.event = driver, driver.new_event()
            driver.record(self.event, LEGACY)

    def __del__(self) -> None:
        with contextlib.suppress(Exception), on(self.device) as driver:
            event, self.event = self.event, 0
            driver.wait(LEGACY, event)  # in a cycle of garbage a buffer may go after its mark
            driver.free_event(event)

    def begin(self, stream: int) -> bool:
        """Make the device current, and the turn that of a stream; returns what `end` has to be told."""
        pushed = self.driver.enter()
        if stream != self.last:
            try:
                if self.last == LEGACY:
                    self.driver.record(self.event, LEGACY)
                self.driver.wait(stream, self.event)
            except BaseException:
                if pushed:
                    self.driver.leave()
                raise
        return pushed

    def end(self, stream: int, pushed: bool) -> None:
        """The end of the turn of a stream."""
        try:
            if stream != LEGACY:
                self.driver.record(self.event, stream)
            self.last = stream
        finally:
            if pushed:
                self.driver.leave()

    @contextlib.contextmanager
    def turn(self, stream: int) -> Iterator[Driver]:
        """With the device current, and the work of a stream behind all that has used the memory before."""
        pushed = self.begin(stream)
        try:
            yield self.driver
        finally:
            self.end(stream, pushed)


class Buffer:
    """Device memory that is given back, in the order of its stream, when nothing refers to it any more.

    after: a mark, where other streams use it too; it goes back behind that, on a stream that nobody can end.
    """

    __slots__ = ("after", "device", "nbytes", "pointer", "stream")

    def __init__(self, nbytes: int, device: int, stream: int, after: Mark | None = None) -> None:
        with on(device) as driver:
            self.pointer = driver.alloc(nbytes, stream)
        self.nbytes, self.device, self.stream, self.after = nbytes, device, stream, after

    def __del__(self) -> None:
        with contextlib.suppress(Exception), on(self.device) as driver:  # at exit there may be no driver any more
            if self.after is not None and self.after.event:
                driver.wait(LEGACY, self.after.event)
            driver.free(self.pointer, self.stream if self.after is None else LEGACY)


@cache
def _of_device(device: int) -> Cuda:
    return Cuda(device)


@cache
def _simulated() -> Simulated:
    return Simulated()


class Cuda:
    """A device, through cuda-bindings."""

    def __init__(self, device: int) -> None:
        from cuda.bindings import driver

        self._d: Any = driver
        self._success = driver.CUresult.CUDA_SUCCESS
        self._call(driver.cuInit(0))
        handle = self._call(driver.cuDeviceGet(device))
        self._context = self._call(driver.cuDevicePrimaryCtxRetain(handle))
        self._number = int(self._context)
        # Where the device reads the host's memory by itself, it may do so after a copy has returned.
        reads = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES
        self._reads_later = bool(self._call(driver.cuDeviceGetAttribute(reads, handle)))
        # Keep what is freed: the pool would give it back to the system at each synchronization. It is everybody's.
        pool = self._call(driver.cuDeviceGetDefaultMemPool(handle))
        keep = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        if int(self._call(driver.cuMemPoolGetAttribute(pool, keep))) < KEPT:
            self._call(driver.cuMemPoolSetAttribute(pool, keep, driver.cuuint64_t(KEPT)))

    def enter(self) -> bool:
        status, context = self._d.cuCtxGetCurrent()
        if status is self._success and int(context) == self._number:
            return False
        self._call(self._d.cuCtxPushCurrent(self._context))
        return True

    def leave(self) -> None:
        self._call(self._d.cuCtxPopCurrent())

    def alloc(self, nbytes: int, stream: int) -> int:
        return int(self._call(self._d.cuMemAllocAsync(max(nbytes, 1), stream)))

    def free(self, pointer: int, stream: int) -> None:
        self._d.cuMemFreeAsync(pointer, stream)  # in a finalizer, perhaps after the driver has been shut down

    def alloc_pinned(self, nbytes: int) -> int:
        return int(self._call(self._d.cuMemHostAlloc(max(nbytes, 1), self._d.CU_MEMHOSTALLOC_PORTABLE)))

    def free_pinned(self, pointer: int) -> None:
        self._d.cuMemFreeHost(pointer)

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        if nbytes:
            self._call(self._d.cuMemcpyAsync(to, source, nbytes, stream))

    def send(self, to: int, source: int, nbytes: int, stream: int) -> None:
        self.copy(to, source, nbytes, stream)
        if self._reads_later:
            self.synchronize(stream)

    def new_stream(self) -> int:
        return int(self._call(self._d.cuStreamCreate(self._d.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def free_stream(self, stream: int) -> None:
        self._d.cuStreamDestroy(stream)

    def new_event(self) -> int:
        return int(self._call(self._d.cuEventCreate(self._d.CUevent_flags.CU_EVENT_DISABLE_TIMING)))

    def free_event(self, event: int) -> None:
        self._d.cuEventDestroy(event)

    def record(self, event: int, stream: int) -> None:
        self._call(self._d.cuEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        self._call(self._d.cuStreamWaitEvent(stream, event, 0))

    def wait_here(self, event: int) -> None:
        self._call(self._d.cuEventSynchronize(event))

    def synchronize(self, stream: int) -> None:
        self._call(self._d.cuStreamSynchronize(stream))

    def free_memory(self) -> int:
        return int(self._call(self._d.cuMemGetInfo())[0])

    def _call(self, answer: tuple[Any, ...]) -> Any:
        """What a call of the driver gave, or its error as an exception."""
        status, *values = answer
        if status is not self._success:
            if status == self._d.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise MemoryError("the device has not enough memory left; free arrays on it, or give smaller ones")
            text = self._d.cuGetErrorString(status)[1]
            raise RuntimeError(f"CUDA driver: {status.name}: {text.decode() if text else 'no description'}")
        return values[0] if len(values) == 1 else tuple(values)


class Simulated:
    """Host memory in the place of a device's: fresh memory is poisoned, and an order of streams need not be kept."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}
        self._marks = 1

    def enter(self) -> bool:
        return False

    def leave(self) -> None:
        pass

    def alloc(self, nbytes: int, stream: int) -> int:
        memory = ctypes.create_string_buffer(max(nbytes, 1) + 64)
        pointer = -(-ctypes.addressof(memory) // 64) * 64
        ctypes.memset(pointer, 0xFF, nbytes)
        self._kept[pointer] = memory
        return pointer

    def free(self, pointer: int, stream: int) -> None:
        del self._kept[pointer]

    def alloc_pinned(self, nbytes: int) -> int:
        return self.alloc(nbytes, LEGACY)

    def free_pinned(self, pointer: int) -> None:
        self.free(pointer, LEGACY)

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(to, source, nbytes)

    def send(self, to: int, source: int, nbytes: int, stream: int) -> None:
        self.copy(to, source, nbytes, stream)

    def new_stream(self) -> int:
        return self.new_event()

    def free_stream(self, stream: int) -> None:
        pass

    def new_event(self) -> int:
        self._marks += 1
        return self._marks

    def free_event(self, event: int) -> None:
        pass

    def record(self, event: int, stream: int) -> None:
        pass

    def wait(self, stream: int, event: int) -> None:
        pass

    def wait_here(self, event: int) -> None:
        pass

    def synchronize(self, stream: int) -> None:
        pass

    def free_memory(self) -> int:
        return 1 << 30
