"""Which backend a call takes, and what is told where CUDA cannot run: every reason, by drivers that are made up."""

from __future__ import annotations

import ctypes
import importlib.metadata
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import devicelike
import numpy as np
import pytest
from devicelike import WithDlpack

import numbabn
from numbabn.devices import probe

engine = devicelike.engine
X = np.arange(12.0).reshape(6, 2)


class Driver:
    """A driver's library, as ctypes would give it."""

    def __init__(self, version: int = 13000, init: int = 0, devices: tuple[tuple[str, int, int], ...] = ()) -> None:
        self.version, self.init, self.devices = version, init, devices

    def cuDriverGetVersion(self, to: Any) -> int:
        to._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, to: Any) -> int:
        to._obj.value = len(self.devices)
        return 0

    def cuDeviceGetName(self, to: Any, size: int, device: int) -> int:
        to.value = self.devices[device][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, to: Any, device: int) -> int:
        to._obj.value = 141 << 30
        return 0

    def cuDeviceGetAttribute(self, to: Any, which: int, device: int) -> int:
        to._obj.value = {75: self.devices[device][1], 76: self.devices[device][2], 16: 132}[which]
        return 0


H200 = ("NVIDIA H200", 9, 0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend to a driver, the packages and their version."""

    def pretend(library: Any, packages: bool = True, major: int = 13) -> None:
        for name in ("NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(probe, "_library", lambda: library)
        monkeypatch.setattr(probe, "_is_there", lambda module: packages)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{major}.0.1")
        probe._found.cache_clear()

    yield pretend
    probe._found.cache_clear()


REASONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "packages": (None, {"packages": False}, r"numba-cuda and .* not installed: pip install 'numbabn\[cuda\]'"),
    "no driver": (None, {}, "there is no NVIDIA driver .*: install the driver"),
    "old driver": (
        Driver(12040),
        {},
        r"too old: it supports CUDA 12\.4 and the packages are of 13: .*'numba-cuda\[cu12\]'",
    ),
    "no device": (Driver(init=100), {}, "finds no device"),
    "none counted": (Driver(), {}, "finds no device"),
    "mismatch": (Driver(init=803), {}, r"does not fit its library \(error 803\): update the driver"),
    "broken": (Driver(init=999), {}, r"for CUDA 13\.0 fails to start \(error 999\)"),
    "old device": (
        Driver(devices=(("Tesla K80", 3, 7),)),
        {},
        r"Tesla K80, compute capability 3\.7, 141 GiB is older than CUDA 13 makes code for \(7\.5 or later\)",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_every_reason_is_told_with_its_cure(case: str, machine: Any) -> None:
    library, how, message = REASONS[case]
    machine(library, **how)
    for call in (
        lambda: numbabn.moments(X, backend="cuda"),
        lambda: numbabn.set_backend("cuda"),
        lambda: numbabn.BatchNorm(2, backend="cuda")(X),
    ):
        with pytest.raises(numbabn.BackendUnavailableError, match=f"backend 'cuda' cannot run here: .*{message}"):
            call()
    with pytest.raises(TypeError, match=f"devicelike array on device cuda:0, and CUDA cannot run here: .*{message}"):
        numbabn.moments(WithDlpack(X))
    assert numbabn.get_backend() == "auto"
    assert numbabn.moments(X).count == 6  # automatic choice falls back, and says nothing
    config = numbabn.config()
    assert config["backends"]["cuda"].startswith("not available: ")
    assert (config["devices"], config["runs on"]) == ({}, "cpu")
    assert probe.devices() == ()


def test_what_hides_devices_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(Driver(init=100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is ''" in (probe.why_not() or "")
    machine(Driver(devices=(H200,)))
    monkeypatch.setenv("NUMBA_DISABLE_CUDA", "1")
    assert "NUMBA_DISABLE_CUDA" in (probe.why_not() or "")


def test_devices_are_shown(machine: Any) -> None:
    machine(Driver(12040, devices=(H200, ("Tesla K80", 3, 7))), major=12)
    assert probe.why_not() is None
    assert probe.driver_version() == "12.4"
    assert [d.multiprocessors for d in probe.devices()] == [132, 132]
    config = numbabn.config()
    assert config["devices"]["cuda:0"] == "NVIDIA H200, compute capability 9.0, 141 GiB"
    assert config["runs on"] == "cpu; arrays on a device there"
    with numbabn.backend("cpu"):
        assert numbabn.config()["runs on"] == "cpu"
    text = io.StringIO()
    numbabn.show_config(text)
    assert "cuda:1: Tesla K80, compute capability 3.7, 141 GiB" in text.getvalue()


def test_a_numpy_that_the_compiler_cannot_be_used_with(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def loads(error: Exception | None) -> None:
        def load(name: str) -> None:
            tried.append(name)
            if error is not None:
                raise error

        machine(Driver(devices=(H200,)))
        monkeypatch.setattr(importlib, "import_module", load)

    gone = AttributeError("module 'numpy' has no attribute 'row_stack'")
    monkeypatch.setattr(np, "__version__", "2.4.6")
    loads(gone)
    assert probe.why_not() is None
    assert tried == []
    monkeypatch.setattr(np, "__version__", "2.5.0rc1")
    for fine in (None, ModuleNotFoundError("no module", name="numba.cuda.np")):
        loads(fine)
        assert probe.why_not() is None
    for error, reason in (
        (
            gone,
            "numba-cuda 13.0.1 cannot be used with NumPy 2.5.0rc1 (AttributeError: module 'numpy' has no attribute "
            "'row_stack'): pip install 'numpy<2.5', or a later numba-cuda",
        ),
        (
            ModuleNotFoundError("no module named 'nothing'", name="nothing"),
            "numba-cuda cannot be loaded: no module named 'nothing': pip install 'numbabn[cuda]'",
        ),
    ):
        loads(error)
        assert probe.why_not() == reason
        assert probe.devices() == ()
    assert set(tried) == {"numba.cuda.np.arrayobj"}


def test_the_drivers_of_this_machine_are_asked_without_a_package() -> None:
    packages = {"numba", "numba_cuda", "cuda.core", "cuda.bindings"}
    code = f"import sys, numbabn; numbabn.config(); print({packages} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "set()\n", ran.stderr
    library = probe._library()
    assert library is None or isinstance(library, ctypes.CDLL)


def test_a_cpu_call_loads_nothing_of_cuda() -> None:
    code = (
        "import sys, numpy as np, numbabn; numbabn.BatchNorm(2)(np.ones((3, 2)), training=True);"
        "print([m for m in sys.modules if m.startswith(('numba.cuda', 'cuda', 'numba_cuda', 'numbabn.backends.device',"
        "'numbabn.backends.streamed'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr


def test_the_simulator_counts_as_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    for there in (True, False):
        monkeypatch.setattr(probe, "_is_there", lambda module, there=there: there)
        probe._found.cache_clear()
        assert len(probe.devices()) == there
        assert (probe.why_not() is None) == there
    probe._found.cache_clear()


def test_a_device_array_chooses_its_device_and_a_host_array_the_cpu(engine: Any) -> None:
    numbabn.moments(X)
    assert engine.places == []
    for call in (
        lambda: numbabn.moments(WithDlpack(X)),
        lambda: numbabn.moments(WithDlpack(X), backend="auto"),
        lambda: numbabn.moments(WithDlpack(X), backend="cuda"),
    ):
        call()
        assert engine.places.pop() == ("moments", 1)
    with numbabn.backend("cpu"):
        with pytest.raises(TypeError, match="choose backend='auto'"):
            numbabn.moments(WithDlpack(X))
        numbabn.moments(WithDlpack(X), backend="auto")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """What sets the choice that a process starts with."""

    def starts_with(choice: str) -> None:
        numbabn.backends._choice_at_start.cache_clear()
        monkeypatch.setenv("NUMBABN_BACKEND", choice)

    yield starts_with
    numbabn.backends._choice_at_start.cache_clear()


def test_the_environment_chooses(engine: Any, environment: Callable[[str], None]) -> None:
    environment("cpu")
    with pytest.raises(TypeError, match="CPU backend"):
        numbabn.moments(WithDlpack(X))
    environment("cuda")
    numbabn.moments(WithDlpack(X))
    assert engine.places == [("moments", 1)]
    assert numbabn.config()["runs on"] == "cuda"
