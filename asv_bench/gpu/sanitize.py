"""compute-sanitizer over the checks: memory that is out of bounds, races, memory that nobody wrote, barriers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
FOUND = 86  # the exit code that says that something was found


def program():
    """The path of compute-sanitizer, or None."""
    usual = Path("/usr/local/cuda/bin/compute-sanitizer")
    return shutil.which("compute-sanitizer") or (os.fspath(usual) if usual.exists() else None)


def run(tool, script, timeout=600):
    """(verdict, the end of what it said) of one tool over the small checks."""
    command = [program(), "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, script, "--check", "--tiny"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"not finished in {timeout} s", ""
    said = (ran.stdout + ran.stderr)[-2000:]
    if ran.returncode == FOUND:
        return "errors", said
    return ("clean" if ran.returncode == 0 else f"did not run (exit code {ran.returncode})"), said
