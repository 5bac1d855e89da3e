"""The benchmarks run: every class is set up, which checks its answers, and every method is called once."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUITE = Path(__file__).parent.parent / "asv_bench"
TOPICS = {"accuracy", "imports", "memory", "moments", "small", "streaming", "train", "transform"}
KINDS = ("time_", "timeraw_", "track_", "peakmem_")
TINY = "0.0001"


def load_suite() -> dict[str, ModuleType]:
    """The benchmark modules by name; under a name of their own, as asv's `benchmarks` is anyone's."""
    folder = SUITE / "benchmarks"
    spec = importlib.util.spec_from_file_location(
        "numbabn_benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    names = [m.name for m in pkgutil.iter_modules([str(folder)])]
    return {name: importlib.import_module(f"{spec.name}.{name}") for name in names}


def classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The benchmark classes that a module defines."""
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__ and methods(value):
            yield name, value


def methods(benchmark: type) -> list[str]:
    return [name for name in dir(benchmark) if name.startswith(KINDS)]


def param_sets(benchmark: type) -> list[tuple[Any, ...]]:
    """As asv reads `params`: one list of values, or several lists to be combined."""
    params = getattr(benchmark, "params", ())
    if params and not isinstance(params[0], (tuple, list)):
        params = (params,)
    return list(itertools.product(*params))


MODULES = load_suite()
FOUND = [(f"{module}.{name}", cls) for module in MODULES for name, cls in classes(MODULES[module])]
RUNS = [
    pytest.param(cls, params, id=f"{name}({', '.join(map(str, params))})")
    for name, cls in FOUND
    for params in param_sets(cls)
]


def test_every_topic_is_there() -> None:
    assert {name.split(".")[0] for name, _ in FOUND} == TOPICS
    assert len(FOUND) >= 16
    kinds = {kind for _, cls in FOUND for name in methods(cls) for kind in KINDS if name.startswith(kind)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(("name", "cls"), FOUND, ids=[name for name, _ in FOUND])
def test_params_have_names(name: str, cls: type) -> None:
    lists = getattr(cls, "params", ())
    wanted = 0 if not lists else len(lists) if isinstance(lists[0], (tuple, list)) else 1
    assert len(getattr(cls, "param_names", ())) == wanted


@pytest.mark.parametrize(("cls", "params"), RUNS)
def test_runs_once(cls: type, params: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBABN_BENCH_SCALE", TINY)
    benchmark = cls()
    if hasattr(benchmark, "setup"):
        benchmark.setup(*params)
    for name in methods(cls):
        result = getattr(benchmark, name)(*params)
        if name.startswith("timeraw_"):
            subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(result)], check=True)
        elif name.startswith("track_"):
            assert isinstance(result, (int, float))
            assert 0 <= result < float("inf")


def test_a_wrong_answer_is_refused() -> None:
    import numbabn

    suite = sys.modules["numbabn_benchmarks"]
    x = suite.draw((50, 3))
    m = numbabn.moments(x)
    suite.check_moments(m, x, 1)
    with pytest.raises(AssertionError):
        suite.check_moments(numbabn.Moments(m.count, m.mean, m.m2 * 1.001), x, 1)
    y, _ = numbabn.batch_norm(x)
    suite.check_trained(y, x, 1)
    y[7, 2] += 1e-3
    with pytest.raises(AssertionError):
        suite.check_trained(y, x, 1)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "much"])
def test_a_wrong_scale_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBABN_BENCH_SCALE", text)
    with pytest.raises(ValueError, match="NUMBABN_BENCH_SCALE"):
        sys.modules["numbabn_benchmarks"].scale()


def test_asv_check() -> None:
    pytest.importorskip("asv")
    command = [sys.executable, "-m", "asv", "check", "-E", f"existing:{sys.executable}"]
    done = subprocess.run(command, cwd=SUITE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def versus(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, os.fspath(SUITE / "versus.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_versus_has_every_row(tmp_path: Path) -> None:
    file = tmp_path / "versus.json"
    done = versus("--scale", "tiny", "--rounds", "1", "--threads", "2", "--json", os.fspath(file))
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    jobs = ["moments", "inference", "training"]
    assert [row["job"] for row in report["rows"]] == [job for job in jobs for _ in range(4)]
    assert [row["channel axis"] for row in report["rows"]] == [1, 1, 1, 3] * 3
    for row in report["rows"]:
        assert row["copy"]["seconds"] > 0
        ours = row["contenders"]["numbabn"]
        peers = {name: c["median"] for name, c in row["contenders"].items() if not name.startswith("numbabn")}
        assert row["best peer"] == min(peers, key=peers.__getitem__)
        assert row["best peer / numbabn"] == pytest.approx(min(peers.values()) / ours["median"])
        assert 0 < ours["q1"] <= ours["median"] <= ours["q3"]
        assert ("numbabn, fresh" in row["contenders"]) == (row["job"] != "moments")
        for peer, package in (("NumPy", "numpy"), ("scikit-learn", "sklearn"), ("PyTorch", "torch")):
            fits = not (
                peer == "scikit-learn" and row["shape"][1:] and row["channel axis"] == 1 and len(row["shape"]) == 4
            )
            installed = importlib.util.find_spec(package) is not None
            assert (peer in row["contenders"]) == (fits and installed), (row["job"], row["shape"], peer)
    for job in jobs:
        assert done.stdout.count(job) >= 4
    for shape in ("x64 ", "x1024 ", "NCHW", "NHWC"):
        assert done.stdout.count(shape) >= 3
    assert "GB/s" in done.stdout


def test_versus_prints_markdown() -> None:
    done = versus("--scale", "tiny", "--rounds", "1", "--markdown")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 12
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("option", [("--rounds", "0"), ("--scale", "huge"), ("--threads", "0")])
def test_versus_refuses(option: tuple[str, str]) -> None:
    done = versus(*option)
    assert done.returncode == 2
    assert option[0] in done.stderr
