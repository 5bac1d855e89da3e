"""The CUDA engine without a GPU: beside the CPU's in numba's simulator, and as machine code."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rivals import SUITE


def test_every_verb_agrees_with_the_cpu_in_the_simulator() -> None:
    script = Path(__file__).with_name("simulated.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "ok\n"


@pytest.mark.skipif(not importlib.util.find_spec("numba_cuda"), reason="numba-cuda is not installed: make test-cuda")
@pytest.mark.parametrize("kernels", ["rows.moments", "planes.sums", "columns.transform", "merge"])
def test_kernels_become_machine_code_without_spills(kernels: str) -> None:
    command = [sys.executable, os.fspath(SUITE / "gpu_code.py"), "--dtypes", "float32,float64", "--only", kernels]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "there is no ptxas" in ran.stderr:
        pytest.skip("nvidia-cuda-nvcc is not installed: make test-cuda")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No spills and no stack frames." in ran.stdout
