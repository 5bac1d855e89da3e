"""CUDA kernels as machine code, without a GPU: kept on disk, and found again in another process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbabn.backends import cuda_code

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


def test_what_is_broken_is_not_taken(tmp_path: Path) -> None:
    at = tmp_path / "new" / "kernel.cubin"
    assert cuda_code._read(at) is None
    cuda_code._write(at, b"\x7fELF\n code", "name")
    assert cuda_code._read(at) == (b"\x7fELF\n code", "name")
    whole = at.read_bytes()
    for broken in (whole[:-1], b"", b"\n\n", b"nothing"):
        at.write_bytes(broken)
        assert cuda_code._read(at) is None
    cuda_code._write(at / "in a file", b"", "")  # no place for it: nothing happens
    assert [*at.parent.iterdir()] == [at]
