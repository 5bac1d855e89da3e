"""Where a CUDA toolkit lies: its compiler and its tools serve where no package brings them."""

import os
import shutil
from pathlib import Path

NAMES = ("CUDA_PATH", "CUDA_HOME")  # as numba looks for them
ROOTS = (Path("/usr/local"), Path("/opt"))


def folders():
    """The toolkits that are there: those that are named, that of the nvcc on the PATH, those in the usual places."""
    found = [Path(os.environ[name]) for name in NAMES if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc:
        found.append(Path(nvcc).resolve().parent.parent)
    for root in ROOTS:
        found += [root / "cuda", *sorted(root.glob("cuda-*"), reverse=True)]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def named():
    """Name one to numba, if nobody has: it finds those of packages by itself, but not always one beside them."""
    if not any(os.environ.get(name) for name in NAMES):
        for folder in folders():
            if (folder / "nvvm").is_dir():
                os.environ["CUDA_HOME"] = os.fspath(folder)
                break
