"""compute-sanitizer: memory that is out of bounds or freed, races, memory that nobody wrote, barriers."""

import importlib.util
import os
import shutil
from pathlib import Path

from gpu import toolkit

# Of each tool, what it does otherwise than by itself. memcheck also looks for memory of the pool that one stream frees
# while another reads it. It says nothing of calls of the driver that fail: cuda-bindings asks an older driver for
# functions that it does not have, and numbabn looks at the answer of each of its own calls.
TOOLS = {
    "memcheck": ("--track-stream-ordered-races", "all", "--report-api-errors", "no"),
    "racecheck": (),
    "initcheck": (),
    "synccheck": (),
}
FOUND = 86  # the exit code that says that something was found
DTYPES = ("float32", "bfloat16")


def program():
    """The path of compute-sanitizer, from the PATH, a toolkit or a package; None without one."""
    found = shutil.which("compute-sanitizer")
    if found:
        return found
    spec = importlib.util.find_spec("nvidia")
    folders = [*toolkit.folders(), *map(Path, (spec and spec.submodule_search_locations) or ())]
    for folder in folders:
        for pattern in ("bin", "compute-sanitizer", "*/bin", "*/compute-sanitizer"):
            for at in folder.glob(f"{pattern}/compute-sanitizer"):
                if at.is_file() and os.access(at, os.X_OK):
                    return os.fspath(at)
    return None
