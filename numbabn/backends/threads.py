"""The parallel runtime: one small pool that is safe to embed.

Kernels are serial and run without the GIL; `parallel_for` hands ranges of their items to the calling
thread and to a few helpers. However many callers there are, helpers never number more than the
thread limit allows beside them; a call from inside a helper runs where it is; a forked child
starts afresh; and where no thread can be had (at interpreter exit, say) the caller does it all.
"""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

CLAIMS = 8  # ranges for each thread at least: Ctrl-C waits for one range only

_block_limit: contextvars.ContextVar[int | None] = contextvars.ContextVar("numbabn_threads", default=None)
_inside = threading.local()


class _Runtime:
    """What a process shares: the pool, and how many of its threads are at work."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.helpers = 0
        # Helpers of each call at work. Weak, so that a call which Ctrl-C ends anywhere is forgotten too.
        self.calls: dict[weakref.ref[Any], int] = {}
        self.limit = 0  # 0: nobody has asked yet
        self.reason = ""

    def known_limit(self) -> int:
        """The thread limit, found out at the first use: a forked worker learns only late what it is."""
        if self.limit == 0:
            self.limit, self.reason = default_limit()
        return self.limit

    def enter(self, call: Any, work: Callable[[], None], wanted: int, limit: int) -> int:
        """Count a call in, and start `work` in as many helpers as are free for it; returns how many."""
        known = weakref.ref(call, self.forget)
        with self.lock:
            at_work = sum(self.calls.values())
            self.calls[known] = helpers = max(0, min(wanted, limit - len(self.calls) - 1 - at_work))
            while self.helpers < at_work + helpers:  # as many as may be at work
                if not self.started():
                    break
        for _ in range(helpers if self.helpers else 0):
            self.queue.put(work)
        return helpers

    def started(self) -> bool:
        """Start a helper; False at the end of the interpreter, or where there are no more threads."""
        try:
            name = f"numbabn_{self.helpers}"
            threading.Thread(target=_help, args=(self.queue,), name=name, daemon=True).start()
        except RuntimeError:
            return False
        self.helpers += 1
        return True

    def leave(self, call: Any) -> None:
        """Count a call out."""
        self.forget(weakref.ref(call))

    def forget(self, call: weakref.ref[Any]) -> None:
        """Count out what is known as a call; one step, as it may come at any time."""
        self.calls.pop(call, None)


def _help(queue: SimpleQueue[Callable[[], None]]) -> None:
    """What a helper does: it is idle whenever no caller waits for it, and so the process may end."""
    _inside.helper = True
    while True:
        queue.get()()


class _Claims:
    """The items of one call: handed out in consecutive ranges, until they are gone or someone failed."""

    def __init__(self, body: Callable[[int, int], None], items: int, threads: int) -> None:
        self.body, self.items, self.threads = body, items, threads
        self.most = max(1, items // (CLAIMS * threads))
        self.next = 0
        self.helping = 0
        self.error: BaseException | None = None
        self.waiting = False
        # Locks as they are: a condition, made of several, took as long as some of the work.
        self.lock, self.done = threading.Lock(), threading.Lock()
        self.done.acquire()

    def work(self) -> None:
        """Take ranges until there are none."""
        while True:
            with self.lock:
                lo = self.next
                if lo >= self.items:
                    return
                # Ever fewer towards the end, so that nobody has much to do when all others are done.
                share = min(self.most, (self.items - lo) // (2 * self.threads))
                hi = self.next = lo + max(1, share)
            self.body(lo, hi)

    def help(self) -> None:
        """`work` in a helper thread, which gets no Ctrl-C; an exception is kept for the caller."""
        with self.lock:
            self.helping += 1
        try:
            self.work()
        except BaseException as error:
            self.error = error
            self.stop()
        finally:
            with self.lock:
                self.helping -= 1
                if self.helping == 0 and self.waiting:
                    self.waiting = False
                    if self.done.locked():  # else Ctrl-C came before the caller began to wait
                        self.done.release()

    def stop(self) -> None:
        """Hand out nothing more: a helper that starts late finds nothing to do."""
        with self.lock:
            self.next = self.items

    def wait(self) -> None:
        """Wait for every helper, even when Ctrl-C comes meanwhile: they write into the caller's memory."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self.lock:
                    if self.helping == 0:
                        break
                    self.waiting = True
                self.done.acquire()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def parallel_for(body: Callable[[int, int], None], items: int, small: bool = False) -> None:
    """Call ``body(lo, hi)`` over ranges that cover 0..items, on as many threads as are free.

    Returns when all is done. The first exception, Ctrl-C included, stops the handing out of further
    ranges and is raised here once no thread is at work any more.
    """
    if small or items <= 1 or getattr(_inside, "helper", False):
        body(0, items)
        return
    limit, runtime = get_num_threads(), _runtime
    call = _Claims(body, items, limit)
    try:
        runtime.enter(call, call.help, min(limit, items) - 1, limit)
        call.work()
    finally:
        try:
            call.stop()
            call.wait()
        finally:
            runtime.leave(call)
    if call.error is not None:
        raise call.error


def assisted(work: Callable[[int], int], help: Callable[[], None], threads: int) -> int:
    """``work(helpers)`` here, while so many others call `help`, late or not at all; what `work` gives."""
    if getattr(_inside, "helper", False):
        return work(0)
    limit, runtime = get_num_threads(), _runtime
    try:
        return work(runtime.enter(help, help, min(limit, threads) - 1, limit))
    finally:
        runtime.leave(help)


def default_limit() -> tuple[int, str]:
    """How many threads to use when nobody says, and why."""
    text = os.environ.get("NUMBABN_NUM_THREADS")
    if text is not None:
        if not (text.isdecimal() and int(text) > 0):
            raise ValueError(f"NUMBABN_NUM_THREADS is {text!r}; expected a whole number, 1 or more")
        return int(text), "NUMBABN_NUM_THREADS"
    if multiprocessing.current_process().daemon:
        return 1, "a daemonic worker process, one of several"
    limit, reason = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "CPUs of this process",
    )
    quota = _cgroup_quota()
    if quota is not None and quota < limit:
        limit, reason = quota, "cgroup CPU quota"
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # set by joblib, Dask and others for their workers
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and 0 < int(text) < limit:
            limit, reason = int(text), name
    return limit, reason


def _cgroup_quota() -> int | None:
    """Whole CPUs that a container may use, rounded up; None where there is no quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdecimal() and period.isdecimal()):
        return None  # "max", or -1
    return max(1, -(-int(quota) // int(period)))


def get_num_threads() -> int:
    """The most threads that a call made here may use.

    Examples
    --------
    >>> import numbabn
    >>> with numbabn.num_threads(1):
    ...     numbabn.get_num_threads()
    1
    """
    return _block_limit.get() or _runtime.known_limit()


def set_num_threads(n: int) -> None:
    """Set the most threads that a call may use, for the whole process.

    Parameters
    ----------
    n : int
        1 or more; with 1 the caller does all of the work.

    Examples
    --------
    >>> import numbabn
    >>> before = numbabn.get_num_threads()
    >>> numbabn.set_num_threads(2)
    >>> numbabn.get_num_threads()
    2
    >>> numbabn.set_num_threads(before)
    """
    _runtime.limit, _runtime.reason = _valid(n), "set_num_threads"


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Limit the threads of the calls made in a block, by this thread or task alone.

    Parameters
    ----------
    n : int
        1 or more.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> with numbabn.num_threads(1):
    ...     m = numbabn.moments(np.ones((4, 2)))
    """
    token = _block_limit.set(_valid(n))
    try:
        yield
    finally:
        _block_limit.reset(token)


def limit_reason() -> str:
    """Where the thread limit comes from."""
    get_num_threads()
    return "num_threads block" if _block_limit.get() else _runtime.reason


def _valid(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads is {n!r}; expected an int, 1 or more")
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"the number of threads is {n}; expected 1 or more")
    return n


def _after_fork() -> None:
    """A forked child has none of its parent's threads: forget them, keep the limit that was set."""
    global _runtime
    kept = (_runtime.limit, _runtime.reason) if _runtime.reason == "set_num_threads" else None
    _runtime = _Runtime()
    _inside.helper = False
    if kept:
        _runtime.limit, _runtime.reason = kept


_runtime = _Runtime()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
