"""What must come to its end: code is compiled or loaded in a process that forks, and in which Ctrl-C may come."""

import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

lock = threading.Lock()  # held by who loads; who compiles holds numba's


def to_the_end(work: Callable[..., Any]) -> Callable[..., Any]:
    """Let a piece of work end whatever happens to the thread that asked for it.

    The handlers of signals run in the main thread, Ctrl-C's among them, and an exception that one raises amid the
    bookkeeping of numba or llvmlite leaves it broken: memory is freed twice, types are lost. So the main thread asks
    another one, and waits. What ends its wait does not end the work: the next call finds it done, or waits for it, and
    so does the end of the process.
    """

    @functools.wraps(work)
    def work_to_the_end(*args: Any) -> Any:
        if not _interruptible():
            return work(*args)
        result: Future[Any] = Future()
        at_work = threading.Lock()  # of all ways to wait, the one that an exception leaves whole

        def elsewhere() -> None:
            try:
                result.set_result(work(*args))
            except BaseException as error:
                result.set_exception(error)
            finally:
                at_work.release()

        at_work.acquire()
        try:
            threading.Thread(target=elsewhere, name="numbabn-compiling").start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            return work(*args)
        at_work.acquire()
        return result.result()

    return work_to_the_end


def _interruptible() -> bool:
    """Whether the handler of a signal may run here, and another thread may do the work."""
    main = threading.get_ident() == threading.main_thread().ident
    return main and not (sys.is_finalizing() or _numba_is_locked())


def _numba_is_locked() -> bool:
    numbas = _lock_of("numba.core.compiler_lock", "global_compiler_lock")
    return numbas is not None and bool(numbas.is_locked())


def _lock_of(module: str, *path: str) -> Any:
    """A lock of a package, if anybody has imported it."""
    found = sys.modules.get(module)
    for name in path:
        found = getattr(found, name, None)
    return found


# A child forked while another thread compiles or loads would wait forever for that thread to end: fork when it has.
_held: list[Any] = []


def _hold() -> None:
    numbas = _lock_of("numba.core.compiler_lock", "global_compiler_lock")
    llvms = _lock_of("llvmlite.binding.ffi", "lib", "_lock", "_lock")  # what is freed calls LLVM too
    for one in (lock, numbas, llvms):
        if one is not None:
            one.acquire()
            _held.append(one)


def _let_go() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go)
