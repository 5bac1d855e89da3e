"""numbabn beside a plain copy and a NumPy expression of the same array, in one run.

From file to file, each writing to the disk in the same way and waiting until it is there; and in
memory, each into memory that it need not fault in, but for the expression, which makes its own.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional
from ..arrays import NDArray
from ..pipeline import stream
from ..state import atomic
from .terminal import Terminal, size, table

ROUNDS = {"numbabn": 3, "copy": 3, "numpy": 2}
LABELS = {"numbabn": "numbabn", "copy": "plain copy", "numpy": "NumPy expression"}
EXPRESSION = "(x - x.mean(0)) / np.sqrt(x.var(0) + eps)"


def measure(terminal: Terminal, source: Path, target: Path, nbytes: int, eps: float) -> list[dict[str, Any]]:
    """Seconds and throughput of all contestants, from file to file and in memory."""
    files = {
        "numbabn": lambda: stream.normalize(source, target, stream.learn(source, eps=eps)),
        "copy": lambda: _copy_file(source, target),
        "numpy": lambda: _numpy_file(source, target, eps),
    }
    needed, free = 5 * nbytes, _available_memory()
    rich = free is None or needed < free
    if not rich:
        del files["numpy"]
    rows = _rows("file to file", _rounds(terminal, "measuring file to file", files, target), nbytes)
    if rich:
        x = np.load(source)
        out = np.zeros_like(x)
        out.fill(0)  # touched, so that no contestant pays for its page faults
        memory = {
            "numbabn": lambda: functional.batch_norm(x, eps=eps, out=out),
            "copy": lambda: np.copyto(out, x),
            "numpy": lambda: expression(x, eps),
        }
        rows += _rows("in memory", _rounds(terminal, "measuring in memory", memory, None), nbytes)
    made = table("", "seconds", "GB/s of input", "time / plain copy")
    for where in dict.fromkeys(row["where"] for row in rows):
        made.add_section()
        made.add_row(where)
        for row in (r for r in rows if r["where"] == where):
            figures = (f"{row['seconds']:.3f}", f"{row['gb_per_s']:.2f}", f"{row['times_copy']:.2f}")
            made.add_row(f"  {row['what']}", *figures)
    terminal.say(f"float32, {size(nbytes)}; median of {ROUNDS['copy']} rounds in turn")
    if rich:
        terminal.say(f"NumPy expression: {EXPRESSION}, {ROUNDS['numpy']} rounds")
    terminal.say()
    terminal.say(made)
    if not rich:
        terminal.say(
            f"\nNumPy and the comparison in memory are left out: they need {size(needed)} of memory, "
            f"and {size(free or 0)} are free; a smaller --size shows them."
        )
    return rows


def expression(x: NDArray, eps: float) -> NDArray:
    """What people write."""
    return np.asarray((x - x.mean(0)) / np.sqrt(x.var(0) + eps))


def _copy_file(source: Path, target: Path) -> None:
    """A plain copy, in the chunks and to the disk as the others."""
    buffer = np.empty(stream.CHUNK, np.uint8)
    with source.open("rb", buffering=0) as from_, atomic(target) as temporary, temporary.open("xb") as to:
        while count := from_.readinto(buffer.data):
            to.write(buffer[:count].data)


def _numpy_file(source: Path, target: Path, eps: float) -> None:
    with atomic(target) as temporary, temporary.open("xb") as file:
        np.save(file, expression(np.load(source), eps))


def _rounds(
    terminal: Terminal, title: str, contestants: Mapping[str, Callable[[], object]], target: Path | None
) -> dict[str, float]:
    """Median seconds of each contestant; they take turns, so that a busy spell of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with terminal.progress(title, sum(ROUNDS[name] for name in contestants), steps=True) as progress:
        for k in range(max(ROUNDS.values())):
            for name, work in contestants.items():
                if k >= ROUNDS[name]:
                    continue
                if target is not None:
                    target.unlink(missing_ok=True)
                start = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - start)
                progress(1)
    return {name: statistics.median(t) for name, t in times.items()}


def _rows(where: str, seconds: dict[str, float], nbytes: int) -> list[dict[str, Any]]:
    return [
        {
            "where": where,
            "what": LABELS[name],
            "seconds": s,
            "gb_per_s": nbytes / s / 1e9,
            "times_copy": s / seconds["copy"],
        }
        for name, s in seconds.items()
    ]


def _available_memory() -> int | None:
    """Bytes that could be had without swapping; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
