"""compute-sanitizer: memory that is out of bounds or freed, races, memory that nobody wrote, barriers."""

import importlib.util
import os
import shutil
from pathlib import Path

# Of each tool, what it does not do by itself: memory of the pool that one stream frees while another reads it.
TOOLS = {
    "memcheck": ("--track-stream-ordered-races", "all"),
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
    toolkits = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(t) for t in toolkits if t] + [Path(f) for f in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        for pattern in ("bin", "compute-sanitizer", "*/bin", "*/compute-sanitizer"):
            for at in folder.glob(f"{pattern}/compute-sanitizer"):
                if at.is_file() and os.access(at, os.X_OK):
                    return os.fspath(at)
    return None
