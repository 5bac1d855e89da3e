"""The parallel runtime: many callers, forks, workers, exit, Ctrl-C."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from numba.core.compiler_lock import global_compiler_lock
from numbabn.kernels.ending import to_the_end

import numbabn
from numbabn.backends import threads

X = np.random.default_rng(0).standard_normal((20_000, 24), dtype=np.float32) * 3 + 7  # enough for several items


def expected() -> np.ndarray:
    with numbabn.num_threads(1):
        return numbabn.batch_norm(X)[0]


def run_python(code: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def test_covers_every_item_once_and_never_runs_more_threads_than_the_limit():
    lock, running, most, seen = threading.Lock(), 0, 0, []

    def body(lo, hi):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            seen.extend(range(lo, hi))
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    with numbabn.num_threads(3):
        threads.parallel_for(body, 101)
    assert sorted(seen) == list(range(101))
    assert most <= 3


def test_several_callers_share_the_helpers():
    lock, at_work, most = threading.Lock(), set(), 0

    def body(lo, hi):
        nonlocal most
        with lock:
            at_work.add(threading.get_ident())
            most = max(most, len(at_work))
        threading.Event().wait(0.005)
        with lock:
            at_work.discard(threading.get_ident())

    def call(_):
        with numbabn.num_threads(4):
            threads.parallel_for(body, 20)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(call, range(12)))
    assert most <= 6 + 3  # the callers themselves, and no more helpers than the limit leaves beside one
    assert not threads._runtime.calls


def test_helpers_are_started_when_they_are_needed():
    result = run_python(
        """
        import threading, numbabn
        from numbabn.backends.threads import parallel_for
        numbabn.set_num_threads(64)
        with numbabn.num_threads(3):
            parallel_for(lambda lo, hi: None, 100)
        print(threading.active_count())
        """
    )
    assert result.stdout == "3\n", result.stderr


def test_a_call_from_inside_a_helper_runs_where_it_is():
    nested = []

    def inner(lo, hi):
        nested.append((threading.get_ident(), lo, hi))

    def outer(lo, hi):
        threads.parallel_for(inner, 5)
        threading.Event().wait(0.002)

    with numbabn.num_threads(2):
        threads.parallel_for(outer, 16)
    assert sum(hi - lo for _, lo, hi in nested) >= 16 * 5 // 2


def test_an_exception_reaches_the_caller_and_stops_the_rest():
    done = []

    def body(lo, hi):
        done.append(lo)
        threading.Event().wait(0.001)
        if lo >= 10:
            raise RuntimeError(f"at {lo}")

    with numbabn.num_threads(2), pytest.raises(RuntimeError, match="at "):
        threads.parallel_for(body, 1000)
    assert len(done) < 1000 // 2
    assert not threads._runtime.calls
    numbabn.moments(X)  # and the runtime still works


def test_sixteen_threads_on_shared_and_on_own_objects():
    want, before = expected(), X.copy()
    shared = numbabn.BatchNorm(24, momentum=None)
    frozen = numbabn.BatchNorm(24)
    frozen.update(X)
    inference = frozen(X)
    start = threading.Barrier(16)

    def work(k):
        start.wait()
        own = numbabn.BatchNorm(24, momentum=None)
        for _ in range(5):
            assert np.array_equal(numbabn.batch_norm(X)[0], want)
            assert np.array_equal(shared(X, training=True), want)
            assert np.array_equal(own(X, training=True), want)
            assert np.array_equal(frozen(X), inference)
        return own.num_batches

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [5] * 16
    assert shared.num_batches == 80
    assert (shared.count == 80 * len(X)).all()
    np.testing.assert_allclose(shared.running_mean, numbabn.moments(X).mean, rtol=1e-12)
    assert np.array_equal(X, before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_limits(n):
    with numbabn.num_threads(n):
        assert numbabn.get_num_threads() == n
        assert numbabn.config()["threads from"] == "num_threads block"


def test_limit_of_the_process_and_refusals():
    before = threads._runtime.known_limit(), threads._runtime.reason
    try:
        numbabn.set_num_threads(np.int64(3))
        assert numbabn.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # another thread sees it too
            assert pool.submit(numbabn.get_num_threads).result() == 3
        for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
            with pytest.raises(error, match="number of threads"):
                numbabn.set_num_threads(wrong)
        assert numbabn.get_num_threads() == 3
    finally:
        threads._runtime.limit, threads._runtime.reason = before


@pytest.mark.parametrize(
    ("environment", "limit"),
    [({"NUMBABN_NUM_THREADS": "5"}, 5), ({"OMP_NUM_THREADS": "1"}, 1), ({"NUMBA_NUM_THREADS": "1"}, 1)],
    ids=str,
)
def test_limit_from_the_environment(environment, limit):
    result = run_python(
        "import numbabn; print(numbabn.get_num_threads(), numbabn.config()['threads from'])", **environment
    )
    assert result.stdout.split() == [str(limit), next(iter(environment))], result.stderr


def test_a_wrong_environment_is_said_plainly():
    result = run_python("import numbabn; numbabn.get_num_threads()", NUMBABN_NUM_THREADS="many")
    assert "NUMBABN_NUM_THREADS is 'many'" in result.stderr


def test_affinity_limits_the_threads():
    result = run_python(
        """
        import os, numbabn
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
        print(numbabn.get_num_threads())
        """,
        OMP_NUM_THREADS="",
        NUMBA_NUM_THREADS="",
    )
    assert result.stdout == "1\n", result.stderr


def test_fork_after_use_and_use_in_the_child():
    result = run_python(
        """
        import os, threading, numpy as np, numbabn
        x = np.random.default_rng(0).standard_normal((200_000, 8))
        numbabn.set_num_threads(4)
        want = numbabn.batch_norm(x)[0]
        parent_threads = threading.active_count()
        assert parent_threads > 1
        for _ in range(3):
            child = os.fork()
            if child == 0:
                ok = numbabn.get_num_threads() == 4
                ok &= np.array_equal(numbabn.batch_norm(x)[0], want)
                grandchild = os.fork()
                if grandchild == 0:
                    os._exit(0 if np.array_equal(numbabn.batch_norm(x)[0], want) else 1)
                ok &= os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
                os._exit(0 if ok else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert np.array_equal(numbabn.batch_norm(x)[0], want)
        print("ok")
        """
    )
    assert result.stdout == "ok\n", result.stderr


def test_fork_while_other_threads_compute():
    result = run_python(
        """
        import os, threading, warnings, numpy as np, numbabn
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
        x = np.random.default_rng(0).standard_normal((100_000, 8))
        want = numbabn.batch_norm(x)[0]
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                numbabn.batch_norm(x)
        workers = [threading.Thread(target=busy) for _ in range(3)]
        [w.start() for w in workers]
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(numbabn.batch_norm(x)[0], want) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        [w.join() for w in workers]
        print("ok")
        """
    )
    assert result.stdout == "ok\n", result.stderr


def test_fork_while_another_thread_compiles():
    result = run_python(
        """
        import os, signal, threading, warnings, numpy as np, numbabn
        from numba.core.compiler_lock import global_compiler_lock
        warnings.simplefilter("ignore", DeprecationWarning)
        x = np.random.default_rng(0).standard_normal((1000, 8))
        numbabn.moments(x.astype("f4"))
        compiler = threading.Thread(target=numbabn.batch_norm, args=(x,))
        compiler.start()
        compiling = 0
        while compiler.is_alive() and not compiling:
            if global_compiler_lock._lock.acquire(blocking=False):
                global_compiler_lock._lock.release()
            else:
                compiling = 1
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            numbabn.batch_norm(x)
            os._exit(0)
        compiler.join()
        print(compiling, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        NUMBABN_CACHE="0",
    )
    assert result.stdout == "1 0\n", result.stderr


def moments_of(seed):
    x = np.random.default_rng(seed).standard_normal((100_000, 4))
    return numbabn.moments(x).to_dict(), numbabn.get_num_threads()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*was called:RuntimeWarning")  # JAX, where another test has imported it
def test_multiprocessing(method):
    want = [moments_of(seed)[0] for seed in range(4)]
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:  # its workers are daemonic: one thread each, so that they do not crowd
        results = pool.map(moments_of, range(4))
    assert [r[0] for r in results] == want
    assert {r[1] for r in results} == {1}
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert [r[0] for r in pool.map(moments_of, range(4))] == want


def test_thread_pool_of_the_caller():
    with ThreadPoolExecutor(4) as pool:
        want = numbabn.moments(X)
        assert all(m == want for m in pool.map(lambda _: numbabn.moments(X), range(50)))


def test_joblib_workers():
    joblib = pytest.importorskip("joblib")
    want = moments_of(3)[0]
    for backend in ("loky", "threading"):
        results = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(moments_of)(3) for _ in range(4))
        assert all(r[0] == want for r in results)


def test_use_at_interpreter_exit():
    result = run_python(
        """
        import atexit, threading, numpy as np, numbabn
        x = np.ones((200_000, 4))
        numbabn.set_num_threads(4)
        numbabn.moments(x)

        class Late:
            def __del__(self):
                print("del", numbabn.moments(x).count)

        late = Late()
        atexit.register(lambda: print("atexit", numbabn.moments(x).count))

        def after_main():
            threading.main_thread().join()
            print("thread", numbabn.moments(x).count)

        threading.Thread(target=after_main).start()
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert sorted(result.stdout.split()) == sorted(["thread", "200000.0", "atexit", "200000.0", "del", "200000.0"])


def test_ctrl_c_does_not_break_off_a_compilation():
    result = run_python(
        """
        import collections, gc, os, signal, threading, numpy as np, numbabn
        from numba.core import event

        class Interrupts(event.Listener):
            left = 40

            def on_start(self, event):
                assert threading.current_thread() is not threading.main_thread()
                if self.left:
                    self.left -= 1
                    os.kill(os.getpid(), signal.SIGINT)

            def on_end(self, event):
                pass

        class Counts(event.Listener):
            def __init__(self):
                self.begun, self.ended = [], []

            def on_start(self, event):
                self.begun.append((event.data["dispatcher"], event.data["args"]))

            def on_end(self, event):
                self.ended.append((event.data["dispatcher"], event.data["args"]))

        interrupts, counts = Interrupts(), Counts()
        event.register("numba:run_pass", interrupts)
        event.register("numba:compile", counts)
        interrupted, mean = 0, None
        while mean is None:
            try:
                mean = numbabn.moments(np.arange(12.0).reshape(4, 3)).mean.tolist()
            except KeyboardInterrupt:
                interrupted += 1
        gc.collect()
        assert counts.begun and collections.Counter(counts.begun) == collections.Counter(set(counts.ended)), counts
        print(interrupted > 0, interrupts.left, mean)
        """,
        NUMBABN_CACHE="0",
    )
    assert result.stdout == "True 0 [4.5, 5.5, 6.5]\n", result.stderr


def test_a_compilation_ends_after_its_caller_was_interrupted():
    ended = threading.Event()

    def compiles(signature):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        to_the_end(compiles)(())
    assert ended.wait(10)


@pytest.mark.parametrize("where", ["thread", "lock"])
def test_a_compilation_stays_where_nothing_can_interrupt_it_or_no_other_thread_could_do_it(where):
    compiles = to_the_end(lambda signature: threading.get_ident())
    if where == "thread":
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(compiles, ()).result() == pool.submit(threading.get_ident).result()
    else:
        with global_compiler_lock:
            assert compiles(()) == threading.get_ident()


def test_a_compilation_without_threads_or_with_an_error(monkeypatch):
    def fails(signature):
        raise TypeError(signature)

    with pytest.raises(TypeError, match="float64"):
        to_the_end(fails)("float64")
    assert to_the_end(lambda signature: threading.get_ident())(()) != threading.get_ident()

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert to_the_end(lambda signature: threading.get_ident())(()) == threading.get_ident()


def test_ctrl_c_leaves_a_working_process():
    result = run_python(
        """
        import gc, os, signal, threading, numpy as np, numbabn
        from numbabn.backends import threads
        numbabn.set_num_threads(2)
        x = np.zeros((4_000_000, 16), dtype=np.float32)
        bn = numbabn.BatchNorm(16)
        bn(x[:10_000], training=True)
        want = numbabn.moments(x[:50_000])
        state = bn.state_dict()
        interrupted = 0
        for k in range(30):
            timer = threading.Timer(0.005 + 0.0013 * k, os.kill, (os.getpid(), signal.SIGINT))
            before = bn.num_batches
            try:
                timer.start()
                while True:
                    bn(x, training=True, out=x)
                    before = bn.num_batches
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
            gc.collect()
            assert bn.num_batches in (before, before + 1)
            assert not threads._runtime.calls
            assert numbabn.moments(np.zeros((50_000, 16), dtype=np.float32)) == want
        print(interrupted)
        """
    )
    assert result.stdout == "30\n", result.stderr
