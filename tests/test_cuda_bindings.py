"""Every call of the CUDA driver through the real cuda-bindings and numba-cuda, to a driver that only keeps books."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(
    COMPILER is None or importlib.util.find_spec("cuda") is None, reason="needs cc and pip install 'numbabn[cuda]'"
)
STEPS = """
import sys, threading
import numpy as np
from numba import cuda
import numbabn
from numbabn import devices
from numbabn.devices import DeviceArray, Place
from numbabn.devices.driver import LEGACY

x = np.zeros((64, 3), np.float32)
mine = DeviceArray(devices.upload(x, Place(0, LEGACY, "numbabn")))
bn = numbabn.BatchNorm(3, gamma=1.0, beta=0.0).to("cuda")
bn(mine, training=True, out=mine)
print("again", file=sys.stderr)
bn(mine, training=True, out=mine)
print("done", file=sys.stderr)
bn(mine, out=mine)
for word in ("back", "back again"):
    bn.backward(mine, mine, out=mine)
    print(word, file=sys.stderr)
dx, dgamma, dbeta = bn.backward(mine, mine)
assert dgamma.shape == (3,) and dgamma.dtype == np.float64

stream = cuda.stream()
theirs = cuda.to_device(x, stream=stream)
y, m = numbabn.batch_norm(theirs)
assert isinstance(y, cuda.devicearray.DeviceNDArray) and y.shape == x.shape
assert y.__cuda_array_interface__["stream"] == theirs.__cuda_array_interface__["stream"] == int(stream.handle)
for _ in range(2):
    y = bn(theirs, training=True)
    assert isinstance(y, cuda.devicearray.DeviceNDArray)
gradients = bn.backward(theirs, theirs)
assert all(isinstance(g, cuda.devicearray.DeviceNDArray) for g in gradients)
assert numbabn.batch_norm(x, backend="cuda")[0].shape == x.shape
errors = []

def elsewhere():
    try:
        numbabn.BatchNorm(3).to("cuda:1").running_mean
        numbabn.moments(mine)
    except Exception as error:
        errors.append(error)

thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
assert not errors, errors
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("driver_stand_in.c")
    command = [str(COMPILER), "-O1", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return folder


def run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(driver), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    environment = os.environ | {"LD_LIBRARY_PATH": path}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_driver_takes_every_call(driver: Path) -> None:
    ran = run(driver, "-c", STEPS)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "without a context" not in ran.stderr
    again = ran.stderr.split("again\n")[1].split("done\n")[0].splitlines()
    # A step like the one before launches what that did; nothing is allocated, recorded or waited for.
    assert set(again) == {"driver: launch"}
    back = ran.stderr.split("back\n")[1].split("back again\n")[0].splitlines()
    # So does a way back, but for the gradients of gamma and beta, which are new, and go again.
    assert Counter(back) - Counter({"driver: launch": len(back)}) == {"driver: alloc": 1, "driver: free": 1}


def test_the_report_measures_to_the_end(driver: Path, tmp_path: Path) -> None:
    into = tmp_path / "gpu.json"
    script = str(Path(__file__).parent.parent / "asv_bench" / "gpu_report.py")
    how = ("--measure", "--shapes", "small", "--dtypes", "float32", "--runs", "2", "--json", str(into))
    ran = run(driver, script, *how)
    assert ran.returncode == 1, ran.stderr[-3000:]  # the kernels of the stand-in do nothing, which is seen
    report = json.loads(into.read_text())
    assert not {"failed", "problems", "stopped"} & set(report["measure"]), report["measure"]
    assert set(report["measure"]["host_us"]) == {"eval", "train", "backward"}
    for row in report["rows"]:
        assert "failed" not in row
        assert row["ms"]["numbabn"] == row["copy_ms"] == 1  # what the stand-in says of all events
        assert row["wrong"] == "256 of 256 values of channel 0 are wrong"
    assert [row["of_copy"] for row in report["rows"]] == [1, 1.5, 2.5]
