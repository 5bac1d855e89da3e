"""What runs where, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any, TextIO

from . import __version__, backends
from .backends import threads
from .devices import probe

PACKAGES = ("numpy", "numba", "llvmlite", "array-api-compat", "ml_dtypes", "numba-cuda", "cuda-core", "cuda-bindings")


def config() -> dict[str, Any]:
    """What runs where and why, as plain values.

    Returns
    -------
    dict
        Versions; for each backend whether it can run here and if not why not; the devices; the choice in force;
        the thread limit and where it comes from; where compiled kernels are kept.

    Examples
    --------
    >>> import numbabn
    >>> numbabn.config()["backends"]["cpu"]
    'available'
    """
    return {
        "numbabn": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "backends": {
            name: f"not available: {reason}" if (reason := backends.why_not(name)) else "available"
            for name in backends.CHOICES
            if name != "auto"
        },
        "devices": _devices(),
        "backend": backends.current(),
        "runs on": _runs_on(),
        "threads": threads.get_num_threads(),
        "threads from": threads.limit_reason(),
        "kernel cache": _cache(),
    }


def show_config(file: TextIO | None = None) -> None:
    """Print what runs where, and why not elsewhere.

    Parameters
    ----------
    file : text file, optional
        Where to print; standard output if not given.
    """
    for key, value in config().items():
        if value == {}:
            value = "none"
        if isinstance(value, dict):
            value = "\n".join(f"{name}: {v}" for name, v in value.items()).replace("\n", f"\n{'':14}")
        print(f"{key:<13} {value}", file=file or sys.stdout)


def _devices() -> dict[str, str]:
    """Each device that there is, in words."""
    return {f"cuda:{device.number}": device.in_words() for device in probe.devices()}


def _runs_on() -> str:
    """Where a call goes that says nothing of it."""
    if backends.current() == "cuda":
        return "cuda"
    return "cpu; arrays on a device there" if probe.why_not() is None and backends.current() == "auto" else "cpu"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cache() -> str:
    if os.environ.get("NUMBABN_CACHE", "1") == "0":
        return "off (NUMBABN_CACHE=0)"
    return " or ".join(backends.cache_folders())
