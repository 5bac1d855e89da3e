"""gpu_report.py without a GPU: it says so, its checks run in numba's simulator, and its table is laid out."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from rivals import SUITE

import numbabn
from numbabn.devices import probe

SMALL = """
import sys; sys.path.insert(0, {suite!r})
import numba
from numbabn.backends import cuda_cuts, device_state
sizes = dict(COLS=4, ROWS=2, SIZE=8, JOIN=4, BLOCKS=12, NARROW=8, EACH=1, RUN=64)
for name, value in sizes.items():
    setattr(cuda_cuts, name, value)
device_state.THREADS = 4
import gpu_report
sys.exit(gpu_report.main(["--check", "--tiny", "--dtypes", {dtypes!r}]))
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
    assert "answers agree with the CPU's." in ran.stdout


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
    machine = {"devices": ["a device"], "driver": "13.0", "python": "3.12", "versions": {"numbabn": "1"}}
    text = "\n".join(report.markdown({"rows": rows, "machine": machine, "host_us": 21.5}))
    assert "| eval | (N, 64) | float32 | 1.000 | 1.100 | 90% | 2.200 |  |  |" in text
    assert "eval: 0 of 1 at 92% of a copy's speed or more; least 90%." in text
    assert "train: 1 of 1 at 85%" in text
    assert "2.00 in the geometric mean" in text
    assert "21.5 microseconds" in text
    assert report.markdown({"rows": []}) == []


def test_what_is_measured_is_there(report: ModuleType) -> None:
    from gpu import contests, sanitize

    assert set(report.TASKS) <= set(contests.BYTES)
    assert all(len(shape) > axis for shape, axis in contests.SHAPES.values())
    assert isinstance(contests.libraries(), dict)
    assert sanitize.program() is None or os.path.exists(sanitize.program())
    assert report.machine()["versions"]["numbabn"] == numbabn.__version__
