"""CUDA kernels as machine code, without a GPU: kept on disk, and found again in another process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="needs pip install 'numbabn[cuda]'"
)
CODE = """
from types import SimpleNamespace
import numba, numba.cuda.dispatcher as dispatcher
from numba import types
from numbabn.backends import cuda_code
from numbabn.backends.cuts import kernels
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
compile_it = cuda_code.compiled
cuda_code.compiled = lambda *how: print("compiles") or compile_it(*how)
f8, i8 = types.Array(types.float64, 1, "C"), types.int64
for size in (32, 64):
    kernel = kernels("cuda_merge").family(size).total
    binary, name = cuda_code.machine_code(kernel, (f8, i8, i8, i8, i8, f8), (9, 0))
    print(binary[:4] == b"\\x7fELF", name.encode() in binary)
"""


@needs_cuda
def test_another_process_compiles_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBABN_CACHE": "1"}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    said = []
    for off in ("1", "1", "0"):
        command = [sys.executable, "-c", CODE]
        ran = subprocess.run(
            command, env=environment | {"NUMBABN_CACHE": off}, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout.split())
    each = ["compiles", "True", "True"]
    assert said == [each * 2, each[1:] * 2, each * 2]
    assert len([*tmp_path.rglob("*.cubin")]) == 2


SLOTS = """
import re
from types import SimpleNamespace
import numpy as np, ml_dtypes
import numba.cuda.dispatcher as dispatcher
from numbabn.arrays import kernel_ready
from numbabn.backends import cuda_code, cuda_launch
from numbabn.backends.cuts import activation, kernels
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
planes, rows = kernels("cuda_planes").family(64, 4, 2), kernels("cuda_rows").family(8, 8, 4, 2)
columns = kernels("cuda_columns").family(8, 8, 4, 2)
merge, learn = kernels("cuda_merge").family(64), kernels("cuda_learn")
f8, mask = np.zeros(4), kernel_ready(np.zeros(4, bool))
for dtype in (np.float16, ml_dtypes.bfloat16):
    x = kernel_ready(np.zeros(4, dtype))
    picks = ((mask, 1, 0, 1), None, None), (None, (f8, 1, 0, 1), True), None
    calls = [(planes.moments, (x, 1, 2, 1, 2, 1, 1, 1, pick, f8)) for pick in picks]
    calls.append((rows.moments, (x, 1, 2, 1, 2, 1, 1, 1, None, True, f8)))
    for act, beta, residual in ((activation(("Silu", 1.0)), f8, x), (activation(("Clip", 0.0, 1.0)), None, None)):
        calls.append((columns.transform, (x, 1, 2, x, 1, 2, 1, 2, 1, 1, 1, 1, f8, f8, beta, residual, 0, 0, act)))
    calls.append((merge.finish, (f8, 1, 1, 1, 1, f8, None, np.float64(0.5), None)))
    calls.append((learn.learn, (f8, f8, np.zeros(1, int), 1, np.int64(0), 0, 0.1, 0.0, 0)))
    for kernel, args in calls:
        slots = []
        for a in args:
            cuda_launch._pack(a, slots)
        code = cuda_code.compiled(kernel, tuple(cuda_launch._type(a) for a in args), (9, 0))
        declared = re.findall(r"\\.param \\.[a-z](\\d+)[^,]*_param_\\d+", code.split(".entry")[1].split("{")[0])
        sizes = [SIZES[bits] for bits in declared]
        assert len(sizes) == len(slots), (kernel.py_func.__qualname__, len(sizes), len(slots))
        assert all(slot < 1 << 8 * size for slot, size in zip(slots, sizes)), (sizes, slots)
"""


@needs_cuda
def test_arguments_fill_the_parameters_that_a_kernel_declares() -> None:
    pytest.importorskip("ml_dtypes")
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    ran = subprocess.run([sys.executable, "-c", SLOTS], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
