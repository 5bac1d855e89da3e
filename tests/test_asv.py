"""The benchmarks run: every class is set up, which checks its answers, and every method is called once."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
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
TOPICS = {"accuracy", "backward", "gpu", "imports", "masks", "memory", "moments", "small", "streaming", "train"}
TOPICS |= {"transform", "versus"}
KINDS = ("time_", "timeraw_", "track_", "peakmem_")
TINY = "0.0001"
# Of these parameters only so many are tried here: every further value compiles kernels for some seconds.
FEW = {
    "backward.Step": {"activation": ("none",)},
    "imports.ColdCall": {"verb": ("normalize",)},
    "masks.Extra": {"extra": ("all",)},
    "masks.Picks": {"layout": ("rows-64", "nchw"), "pick": ("plain", "position", "omit")},
    "memory.Extra": {"case": ("rows", "columns", "nchw", "strided")},
    "memory.ExtraOfOthers": {"case": ("rows",)},
    "moments.DTypes": {"dtype": ("float64",)},
    "train.DTypes": {"dtype": ("float64",)},
    "transform.DTypes": {"dtype": ("float64",)},
}


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


def param_lists(benchmark: type) -> list[tuple[Any, ...]]:
    """As asv reads `params`: one list of values, or several lists to be combined."""
    params = getattr(benchmark, "params", ())
    return [tuple(params)] if params and not isinstance(params[0], (tuple, list)) else list(params)


def param_sets(name: str, benchmark: type) -> list[tuple[Any, ...]]:
    """Every combination of the parameters that is tried here."""
    few = FEW.get(name, {})
    lists = zip(getattr(benchmark, "param_names", ()), param_lists(benchmark), strict=True)
    return list(itertools.product(*(few.get(param, values) for param, values in lists)))


MODULES = load_suite()
FOUND = [(f"{module}.{name}", cls) for module in MODULES for name, cls in classes(MODULES[module])]
RUNS = [
    pytest.param(cls, params, id=f"{name}({', '.join(map(str, params))})")
    for name, cls in FOUND
    for params in param_sets(name, cls)
]


def test_every_topic_is_there() -> None:
    assert {name.split(".")[0] for name, _ in FOUND} == TOPICS
    assert len(FOUND) >= 16
    kinds = {kind for _, cls in FOUND for name in methods(cls) for kind in KINDS if name.startswith(kind)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(("name", "cls"), FOUND, ids=[name for name, _ in FOUND])
def test_params_have_names(name: str, cls: type) -> None:
    lists = param_lists(cls)
    assert len(getattr(cls, "param_names", ())) == len(lists)
    for param, few in FEW.get(name, {}).items():
        assert set(few) < set(lists[cls.param_names.index(param)])


def test_what_is_tried_in_part_is_there() -> None:
    assert set(FEW) <= {name for name, _ in FOUND}


@pytest.mark.parametrize(("cls", "params"), RUNS)
def test_runs_once(cls: type, params: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBABN_BENCH_SCALE", TINY)
    benchmark = cls()
    if hasattr(benchmark, "setup"):
        try:
            benchmark.setup(*params)
        except NotImplementedError:
            torn_down(benchmark, params)  # asv does that too
            pytest.skip("its setup skips it on this machine, as asv takes it")
    for name in methods(cls):
        result = getattr(benchmark, name)(*params)
        if name.startswith("timeraw_"):
            code, before = result if isinstance(result, tuple) else (result, "")
            code = textwrap.dedent(before) + textwrap.dedent(code)
            subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
        elif name.startswith("track_"):
            assert isinstance(result, (int, float))
            assert 0 <= result < float("inf")
    torn_down(benchmark, params)


def torn_down(benchmark: Any, params: tuple[Any, ...]) -> None:
    if hasattr(benchmark, "teardown"):
        benchmark.teardown(*params)


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
