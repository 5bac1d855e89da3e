"""The engine never copies x: peak memory beyond x and out, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).parent.parent / "asv_bench" / "benchmarks" / "probe.py"
MIB = 1 << 20
ALLOWED = 24 * MIB

# case: MiB of x made of 256 MiB of float32, which is what a copy of it would take at least
CASES = {"rows": 256, "fortran": 256, "nchw": 256, "columns": 128, "big-endian": 256, "uint8": 64, "strided": 64}


def extra(case: str, *verbs: str) -> dict[str, int]:
    """Bytes by which each verb raised the peak of the resident set."""
    command = [sys.executable, "-P", "-W", "error", os.fspath(PROBE), case, "256", *verbs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("case", CASES)
def test_no_copy_of_x(case: str) -> None:
    grown = extra(case, "moments", "normalize", "batch_norm")
    assert set(grown) == {"moments", "normalize", "batch_norm"}
    for verb, size in grown.items():
        assert size < ALLOWED, f"{verb} took {size / MIB:.0f} MiB beyond x and out"


@pytest.mark.parametrize("case", ["rows", "nchw", "columns", "strided"])
def test_no_copy_in_place(case: str) -> None:
    assert extra(case, "in_place")["in_place"] < ALLOWED


@pytest.mark.parametrize("case", ["rows", "uint8"])
def test_a_copy_would_be_seen(case: str) -> None:
    size = CASES[case] * MIB
    assert 0.95 * size < extra(case, "copy")["copy"] < 1.2 * size
    assert 0.5 * size > ALLOWED
