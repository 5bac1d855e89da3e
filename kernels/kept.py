"""Machine code on disk: what one process has compiled serves the next, and no failure of it reaches a call.

`NUMBA_CACHE_DIR` says where; without it that is `__pycache__` beside this file, or the user's cache where that cannot
be written. `NUMBABN_CACHE=0` keeps nothing.
"""

import contextlib
import hashlib
import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any


def folders() -> list[Path]:
    """Where code may lie, the best place first; nowhere if that is switched off."""
    if os.environ.get("NUMBABN_CACHE", "1") == "0":
        return []
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen) / "numbabn"]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [Path(__file__).parent / "__pycache__", Path(home) / "numbabn"]


def read(name: str) -> bytes | None:
    """What was kept under a name; None where there is nothing, or not all of it."""
    for folder in folders():
        with contextlib.suppress(OSError):
            digest, code = _halves((folder / name).read_bytes())
            if digest == _digest(code):
                return code
    return None


def write(name: str, code: bytes) -> None:
    """Keep code under a name, in the first folder that takes it; other processes see all of it or nothing."""
    for folder in folders():
        with contextlib.suppress(OSError):  # read-only, full: the next one, or go on without
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=name, delete=False) as file:
                file.write(_digest(code) + code)
            os.replace(file.name, folder / name)
            return


def named(*what: Any) -> str:
    """Part of a file's name that differs where any of this does."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


@cache
def stamp() -> tuple[Any, ...]:
    """What all code depends on: the files of this room, and the compiler."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    rooms = tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)
    return (*rooms, *map(_installed, ("numba", "llvmlite")))


def _installed(package: str) -> tuple[Any, ...]:
    """A package as it is installed, without an import of it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return (package,)
    found = Path(spec.origin).with_name("_version.py").stat()
    return package, found.st_mtime_ns, found.st_size


_DIGEST = hashlib.sha256().digest_size


def _halves(content: bytes) -> tuple[bytes, bytes]:
    return content[:_DIGEST], content[_DIGEST:]


def _digest(code: bytes) -> bytes:
    return hashlib.sha256(code).digest()
