"""gpu_report.py without a GPU: it says so, its checks run in numba's simulator, and its table is laid out."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import devicelike
import numpy as np
import pytest
from rivals import SUITE

import numbabn
from numbabn.devices import probe

engine = devicelike.engine
SMALL = """
import sys; sys.path.insert(0, {suite!r})
import numba
from numbabn.backends import cuda_cuts, device_state
sizes = dict(COLS=4, SUMS=8, WRITES=8, MANY=5, JOIN=8, BLOCKS=12, EACH=4, STEPS=5)
for name, value in sizes.items():
    setattr(cuda_cuts, name, value)
device_state.THREADS = device_state.LEARNERS = 4
import gpu_report
sys.exit(gpu_report.main(["--part", "check", "--tiny", "--seed", "7", "--dtypes", {dtypes!r}]))
"""


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SUITE))
    spec = importlib.util.spec_from_file_location("gpu_report", SUITE / "gpu_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(probe.why_not() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    ran = subprocess.run([sys.executable, str(SUITE / "gpu_report.py")], capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert "nothing was checked or measured, as CUDA cannot run here: " in ran.stderr


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs pip install 'numbabn[cuda]'")
def test_its_checks_pass_in_the_simulator() -> None:
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    code = SMALL.format(suite=str(SUITE), dtypes="float32")
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "answers, all agree with the CPU's (seed 7)." in ran.stdout


LARGE = """
import numpy as np
from gpu import check, large, own
values = [large.compared(family, np.random.default_rng(3), 1600, (4, 3)) for family in check.FAMILIES]
repeated = own.repeated
def spoiled(shape, few):
    array = repeated(shape, few)
    array._shadow.view(np.ndarray).reshape(-1)[-1] += 1  # the simulator's device is the host
    return array
own.repeated = spoiled
for family in check.FAMILIES:
    try:
        large.compared(family, np.random.default_rng(3), 1600, (4, 3))
    except AssertionError as error:
        values.append(str(error).split(":")[0])
large.BYTES = 1 << 30
print(values, large.compared("rows", None, 1600))
"""


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs pip install 'numbabn[cuda]'")
def test_what_is_known_of_a_large_array_is_compared() -> None:
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    code = SMALL.format(suite=str(SUITE), dtypes="").split("import gpu_report")[0] + LARGE
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[5, 5, '(552, 3) int8, mean', '(2, 3, 276) int8, mean'] 0"


ORDERS = {
    "C": lambda a: a,
    "Fortran, of its own": lambda a: np.asfortranarray(a).astype(np.float64),
    "neither, of its own": lambda a: a.transpose(0, 2, 1).copy().transpose(0, 2, 1).astype(np.float64),
    "a view": lambda a: a.T[1:, ::-1],
    "a number": lambda a: a[0, 0, 0],
}


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_sent_comes_back_in_whatever_order_it_lies(order: str, report: ModuleType, engine: Any) -> None:
    from gpu import check

    a = ORDERS[order](np.arange(24.0).reshape(2, 3, 4))
    np.testing.assert_array_equal(check.fetch(a), a)
    if order != "a number":
        there = check.send(a)
        assert there.__cuda_array_interface__["strides"] in (a.strides, None if a.flags.c_contiguous else ())
        np.testing.assert_array_equal(check.fetch(there), a)


def test_a_wrong_answer_is_named(report: ModuleType) -> None:
    from gpu import check

    case = check.Case("rows float32", np.zeros((3, 2), np.float32), -1)
    good = np.ones((3, 2), np.float32)
    check.agree(case, "y", good + np.float32(1e-7), good)
    bad = good.copy()
    bad[1, 0] = np.nan
    with pytest.raises(AssertionError, match=r"rows float32, y: 1 of 6 values are wrong, the first at \(1, 0\): .*nan"):
        check.agree(case, "y", bad, good)
    with pytest.raises(AssertionError, match="dtype float64, expected float32"):
        check.agree(case, "y", good.astype(float), good)


def test_the_table(report: ModuleType) -> None:
    rows = [
        {
            "task": task,
            "shape": "(N, 64)",
            "size": [8, 64],
            "dtype": "float32",
            "copy_ms": 1.0,
            "of_copy": share,
            "ms": {"numbabn": 1.1, "torch": 2.2},
        }
        for task, share in (("eval", 0.9), ("train", 0.86))
    ]
    broken = rows[0] | {"shape": "(N, 3)", "ms": {}, "failed": {"numbabn": "MemoryError: none left"}}
    del broken["of_copy"]
    machine = {"devices": ["a device"], "driver": "13.0", "python": "3.12", "versions": {"numbabn": "1"}}
    measure = {"host_us": {"train": 21.5}, "stopped": "after 9 s"}
    text = "\n".join(report.markdown({"rows": [*rows, broken], "machine": machine, "measure": measure}))
    assert "| eval | (N, 64) | float32 | 1.000 | 1.100 | 90% | 2.200 |  |  |" in text
    assert "eval: 0 of 1 at 92% of a copy's speed or more; least 90%." in text
    assert "train: 1 of 1 at 85%" in text
    assert "2.00 in the geometric mean" in text
    assert "Host time in microseconds: train 21.5; the goal for train is 30." in text
    assert "| eval | (N, 3) | float32 | 1.000 | failed |  |  |  |  |" in text
    assert "failed: numbabn, eval (N, 3) float32: MemoryError: none left" in text
    assert "stopped: after 9 s." in text
    assert "failed: no PyTorch." in "\n".join(
        report.markdown({"rows": [], "machine": machine, "measure": {"failed": "no PyTorch"}})
    )
    good = {"rows": rows, "check": {"float32": {"wrong": []}}, "sanitizer": {"memcheck": {"verdict": "clean"}}}
    assert report.sound(good | {"measure": {}})
    for bad in (
        {"rows": [broken]},
        {"rows": [rows[0] | {"wrong": "1 of 2 values"}]},
        {"check": {"float32": {"wrong": ["x"]}}},
        {"sanitizer": {"memcheck": {"verdict": "errors"}}},
        {"measure": {"failed": "no PyTorch"}},
    ):
        assert not report.sound(good | {"measure": {}} | bad)


def test_what_is_measured_is_there(report: ModuleType) -> None:
    from gpu import contests, measure, sanitize

    assert set(measure.TASKS) <= set(contests.BYTES)
    assert all(len(shape) > axis for shape, axis in contests.SHAPES.values())
    assert isinstance(contests.libraries(), dict)
    assert sanitize.program() is None or os.path.exists(sanitize.program())
    assert report.machine()["versions"]["numbabn"] == numbabn.__version__


def test_the_families_are_those_of_the_kernels(report: ModuleType) -> None:
    from gpu import check

    from numbabn.layout import canonical

    both = [check.cases_of(False, family) for family in check.FAMILIES]
    assert sorted([*both[0], *both[1]]) == sorted(check.SHAPES)
    for cases, family in zip(both, check.FAMILIES, strict=True):
        for name, (shape, axis, view) in cases.items():
            x = view(np.empty(shape, np.float32))
            axes = tuple(sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))))
            window = canonical({"x": x}, axes).window()
            assert window is None or window.geometry.rows == (family == "rows"), name


def test_one_verb_that_fails_stops_no_other(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu import check

    def fails(case: Any, rng: Any) -> int:
        raise RuntimeError("CUDA driver: an error")

    def is_wrong(case: Any, rng: Any) -> int:
        raise AssertionError("y is wrong")

    monkeypatch.setattr(check, "VERBS", (fails, lambda case, rng: 2, is_wrong))
    found = check.everything(tiny=True, dtypes=("float32",), seed=1, say=lambda *a, **k: None)
    assert found["answers"] == 2 * len(check.TINY)
    assert found["wrong"][:2] == [
        "rows float32, fails: RuntimeError: CUDA driver: an error",
        "rows float32, is_wrong: y is wrong",
    ]
    monkeypatch.setattr(check, "ENOUGH", 1)
    assert len(check.everything(tiny=True, seed=1)["wrong"]) == 1


def test_what_fails_in_a_measurement_is_in_its_row(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu import contests, measure, timing

    tensor = type("Tensor", (), {"shape": (4, 2)})

    def problem(name: str, dtype: str, scale: float) -> Any:
        if name == "(N, 16)":
            raise MemoryError("too large")
        return contests.Problem(name, 1, [(tensor, None, None)] * 2)

    def ours(p: Any, task: str) -> Any:
        if task == "train":
            raise RuntimeError("a launch")
        return [lambda: None], [None]

    def rival(p: Any, task: str) -> Any:
        if task == "eval":
            raise RuntimeError("no compiler")
        return [lambda: None]

    monkeypatch.setattr(contests, "libraries", lambda: {"torch": "1"})
    monkeypatch.setattr(contests, "problem", problem)
    monkeypatch.setattr(contests, "ours", ours)
    monkeypatch.setattr(contests, "wrong", lambda p, task, works, bns: "2 values" if task == "backward" else "")
    monkeypatch.setattr(contests, "CONTENDERS", {"torch": rival, "torch.compile": rival, "cupy": rival})
    monkeypatch.setattr(measure, "_copy_ms", lambda p, runs: 1.0)
    monkeypatch.setattr(measure, "_forget", lambda: None)
    monkeypatch.setattr(timing, "median_ms", lambda works, runs, hold: 2.0)
    told: list[int] = []
    options = report.parsed(["--shapes", "(N, 1", "--dtypes", "float32"])
    monkeypatch.setattr(measure, "on", lambda device: contextlib.nullcontext())
    found = measure.everything(options, lambda found: told.append(len(found["rows"])))
    assert told == [0, 3, 6, 6, 6, 6]
    assert found["problems"] == {"(N, 16) float32": "MemoryError: too large"}
    rows = {(row["task"], row["shape"]): row for row in found["rows"]}
    assert rows["eval", "(N, 1024)"]["ms"] == {"numbabn": 2.0}
    assert rows["eval", "(N, 1024)"]["failed"] == dict.fromkeys(("torch", "torch.compile"), "RuntimeError: no compiler")
    assert rows["train", "(N, 16384)"]["failed"] == {"numbabn": "RuntimeError: a launch"}
    assert rows["backward", "(N, 1024)"]["wrong"] == "2 values"
    assert rows["backward", "(N, 1024)"]["ms"] == {"numbabn": 2.0, "torch": 2.0, "torch.compile": 2.0}
    options.budget = -1
    assert "stopped" in measure.everything(options, lambda found: None)


def test_only_what_is_asked_for_is_done_each_in_its_time(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu import parts, sanitize

    given: dict[str, float] = {}

    def part(name: str, found: Any) -> Any:
        def run(*arguments: Any) -> Any:
            given[name] = arguments[-1]
            return dict(found)

        return run

    monkeypatch.setattr(
        report, "machine", lambda: {"devices": ["a device"], "driver": "", "python": "", "versions": {}}
    )
    monkeypatch.setattr(parts, "checked", part("check", {"float32": {"answers": 1, "wrong": []}}))
    monkeypatch.setattr(parts, "measured", part("measure", {"rows": []}))
    monkeypatch.setattr(parts, "sanitized", part("sanitize", {"memcheck": {"verdict": "clean"}}))
    monkeypatch.setattr(sanitize, "program", lambda: "a program")
    for asked, shares in (
        ([], {"check": 50, "measure": 60, "sanitize": 100}),  # nothing takes any time here: 0.8 of 100, less 20
        (["--check"], {"check": 100}),
        (["--sanitize"], {"sanitize": 100}),
        (["--check", "--measure"], {"check": 50, "measure": 80}),
    ):
        given.clear()
        assert report.whole(report.parsed([*asked, "--budget", "100"])) == 0
        assert given == pytest.approx(shares, abs=2)


def test_a_library_that_does_not_compute_here_is_left_out(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from gpu import contests

    monkeypatch.syspath_prepend(str(tmp_path))
    for name in contests.TRIALS:
        (tmp_path / f"{name}.py").write_text("raise OSError('libcudart is not there')")
        monkeypatch.delitem(sys.modules, name, raising=False)
    contests.libraries.cache_clear()
    assert contests.libraries() == {}
    assert "torch is there and does not compute here: OSError: libcudart is not there" in capsys.readouterr().out
    (tmp_path / "cupy.py").write_text("__version__ = '1'\ndef zeros(n):\n    return n\n")
    importlib.invalidate_caches()
    contests.libraries.cache_clear()
    assert contests.libraries() == {"cupy": "1"}
    contests.libraries.cache_clear()
    del sys.modules["cupy"]


def test_memory_is_given_back_by_every_library(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu import contests, measure

    freed: list[str] = []
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append("cupy"))
    torch = SimpleNamespace(cuda=SimpleNamespace(empty_cache=lambda: freed.append("torch")))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(get_default_memory_pool=lambda: pool))
    monkeypatch.setitem(sys.modules, "torch", torch)
    for there in ({}, {"cupy": "1"}, {"torch": "1", "cupy": "1"}):
        freed.clear()
        monkeypatch.setattr(contests, "libraries", lambda there=there: there)
        measure._forget()
        assert sorted(freed) == sorted(there)


def test_the_host_never_waits_for_a_full_queue(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu import timing

    queued, most = 0, 0

    def work() -> None:
        nonlocal queued, most
        queued += 8  # launches, more than any task makes
        most = max(most, queued)

    def synchronize(stream: int) -> tuple[Any]:
        nonlocal queued
        queued = 0
        return ("done",)

    driver = ModuleType("cuda.bindings.driver")
    driver.CUresult = SimpleNamespace(CUDA_SUCCESS="done")  # type: ignore[attr-defined]
    driver.cuStreamSynchronize = synchronize  # type: ignore[attr-defined]
    package = ModuleType("cuda.bindings")
    package.driver = driver  # type: ignore[attr-defined]
    for name, module in {"cuda": ModuleType("cuda"), "cuda.bindings": package, "cuda.bindings.driver": driver}.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert timing.host_us(work) > 0
    assert 0 < most < 1000


def test_a_wrong_timed_answer_is_seen(report: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    from gpu import contests

    x, dy = torch.randn(40, 3), torch.randn(40, 3)
    bn = numbabn.BatchNorm(3, gamma=1.0, beta=0.0)
    for task in ("eval", "train", "backward"):
        y = torch.empty_like(x)
        p = contests.Problem("rows", 1, [(x, y, dy)])
        bn(x, training=True)
        works = {
            "eval": lambda y=y: bn(x, out=y),
            "train": lambda y=y: bn(x, training=True, out=y),
            "backward": lambda y=y: bn.backward(dy, x, out=y),
        }
        assert contests.wrong(p, task, [works[task]], [bn]) == ""
        assert contests.wrong(p, task, [lambda y=y: y.zero_()], [bn]) == "40 of 40 values of channel 0 are wrong"
        assert "1 of 40 values of channel 2" in contests.wrong(
            p, task, [lambda y=y, work=works[task]: (work(), y[7:8, 2].fill_(float("nan")))], [bn]
        )
