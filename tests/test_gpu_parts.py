"""The parts of gpu_report.py as processes: what one breaks the others do not see, and nothing that failed passes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rivals import SUITE


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SUITE))


PARTS = """
import json, os, sys, time
dtype, into = sys.argv[sys.argv.index("--dtypes") + 1], sys.argv[-1]
if dtype == "crash":
    print("before it"), sys.stdout.flush(), os.abort()
if dtype == "raises":
    raise ImportError("no such package")
json.dump({"answers": 0 if dtype == "nothing" else 3, "wrong": []}, open(into, "w"))
if dtype == "slow":
    time.sleep(60)
"""


def test_a_part_that_crashes_or_hangs_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpu import parts

    script = tmp_path / "script.py"
    script.write_text(PARTS)
    monkeypatch.setattr(parts, "SCRIPT", script)
    found = parts.checked(("crash", "slow", "fine", "raises", "nothing"), ("rows",), ["--tiny"], 3)
    assert found["fine rows"] == {"answers": 3, "wrong": []}
    assert found["slow rows"] == {"answers": 3, "wrong": ["slow rows: not finished in 3 s"]}
    (wrong,) = found["crash rows"]["wrong"]
    assert wrong.startswith("crash rows: ended with exit code -6: before it")
    (wrong,) = found["raises rows"]["wrong"]
    assert wrong.startswith("raises rows: ended with exit code 1: ")
    assert "no such package" in wrong
    assert found["nothing rows"]["wrong"] == ["nothing rows: nothing was compared: "]


HOLDS = """
import fcntl, os, subprocess, sys, time
if "--held" not in sys.argv:
    subprocess.run([sys.executable, __file__, "--held", sys.argv[-1]])
file = open(sys.argv[-1] + ".new", "w")
fcntl.flock(file, fcntl.LOCK_EX)
os.rename(sys.argv[-1] + ".new", sys.argv[-1] + ".held")
time.sleep(60)
"""


def test_what_a_part_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpu import parts

    script = tmp_path / "script.py"
    script.write_text(HOLDS)
    monkeypatch.setattr(parts, "SCRIPT", script)
    with contextlib.ExitStack() as stack:
        with parts.side_by_side() as running:
            running["it"] = parts.Part("it", [])
            held = Path(f"{running['it']._found}.held")
            waited_for(held.exists)
            file = stack.enter_context(held.open())
            assert not free(file)
        waited_for(lambda: free(file))  # what is killed lets go a moment later
    assert not held.parent.exists()


def waited_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def free(file: Any) -> bool:
    """Whether no other process holds a file."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


SANITIZER = """#!/bin/sh
echo "$@"
[ "$2" = racecheck ] && exit "$4"
[ "$2" = initcheck ] && exit 1
[ "$2" = synccheck ] && exit 0
while [ "$1" != {python} ]; do shift; done
exec "$@"
"""


def test_compute_sanitizer_is_asked_and_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpu import parts, sanitize

    script, program = tmp_path / "script.py", tmp_path / "compute-sanitizer"
    script.write_text(PARTS)
    program.write_text(SANITIZER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(parts, "SCRIPT", script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert sanitize.program() == str(program)
    found = parts.sanitized(sanitize.program(), sanitize.TOOLS, sanitize.FOUND, ("float32",), 30)
    assert {tool: one["verdict"] for tool, one in found.items()} == {
        "memcheck": "clean",
        "racecheck": "errors",
        "initcheck": "did not run through (exit code 1)",
        "synccheck": "did not run through (exit code 0)",  # it has compared nothing
    }
    assert "--part check --tiny --dtypes float32" in found["racecheck"]["said"]


def test_a_toolkit_is_found_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpu import sanitize, toolkit

    older, newer = tmp_path / "usr" / "cuda-12.9", tmp_path / "usr" / "cuda-13.0"
    tool = newer / "compute-sanitizer" / "compute-sanitizer"
    for folder in (older / "nvvm", newer / "nvvm", tool.parent):
        folder.mkdir(parents=True)
    tool.write_text("")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolkit, "ROOTS", (tmp_path / "usr",))
    for name in toolkit.NAMES:
        monkeypatch.delenv(name, raising=False)
    assert toolkit.folders() == [newer, older]
    assert sanitize.program() == str(tool)
    toolkit.named()
    assert os.environ["CUDA_HOME"] == str(newer)
    monkeypatch.setenv("CUDA_HOME", str(older))
    toolkit.named()
    assert os.environ["CUDA_HOME"] == str(older)
    assert toolkit.folders() == [older, newer]
