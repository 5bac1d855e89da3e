"""Compiling in a process that forks, and in which Ctrl-C may come at any moment."""

import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from numba.core.compiler_lock import global_compiler_lock


def to_the_end(compiles: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a compilation end whatever happens to the thread that asked for it.

    The handlers of signals run in the main thread, Ctrl-C's among them, and an exception that one raises amid the
    bookkeeping of numba or llvmlite leaves it broken: memory is freed twice, types are lost. So the main thread asks
    another one, and waits. What ends its wait does not end the compilation: the next call finds the kernel there, or
    waits for it, and so does the end of the process.
    """

    @functools.wraps(compiles)
    def compile_to_the_end(signature: Any) -> Any:
        if not _interruptible():
            return compiles(signature)
        result: Future[Any] = Future()
        at_work = threading.Lock()  # of all ways to wait, the one that an exception leaves whole

        def work() -> None:
            try:
                result.set_result(compiles(signature))
            except BaseException as error:
                result.set_exception(error)
            finally:
                at_work.release()

        at_work.acquire()
        try:
            threading.Thread(target=work, name="numbabn-compiling").start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            return compiles(signature)
        at_work.acquire()
        return result.result()

    return compile_to_the_end


def _interruptible() -> bool:
    """Whether the handler of a signal may run here, and another thread may compile."""
    main = threading.get_ident() == threading.main_thread().ident
    return main and not (sys.is_finalizing() or global_compiler_lock.is_locked())


# A child forked while another thread compiles would wait forever for that thread to end: fork when it has.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
