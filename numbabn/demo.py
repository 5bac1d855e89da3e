"""The demo: two real data sets and a large generated one, normalized from file to file.

The large one is measured beside a plain copy and a NumPy expression of the same array, in turn and
in one run, each writing to disk in the same way.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import data, functional, saved, warm
from .arrays import NDArray
from .batchnorm import BatchNorm
from .pipeline import npyfile, stream
from .state import atomic
from .terminal import Terminal, channel_name, number, size, table

EPS = 1e-5
CHANNELS = 64
ROUNDS = {"numbabn": 3, "copy": 3, "numpy": 2}
SHOWN = 12
LARGE = "large.npy"


def run(terminal: Terminal, directory: Path, nbytes: int, keep: bool) -> dict[str, Any]:
    """Do all of it in `directory`; returns what a machine wants to know."""
    directory.mkdir(parents=True, exist_ok=True)
    refuse_if_short_of_disk(directory, nbytes)
    seconds = {"compiling": warm.warmup(["float32"])}
    terminal.say(f"kernels compiled, or loaded from their cache, in {seconds['compiling']:.1f} s\n")
    small = [real(terminal, name, axis, directory) for name, axis in (("spectra.npy", -1), ("photographs.npy", -1))]
    return {"directory": str(directory), "small": small, "large": large(terminal, directory, nbytes, keep)}


def refuse_if_short_of_disk(directory: Path, nbytes: int) -> None:
    """Refuse before any work what would end in a full disk."""
    needed, free = 3 * nbytes + (64 << 20), shutil.disk_usage(directory).free
    if needed > free:
        raise ValueError(
            f"the demo needs {size(needed)} on the disk of {str(directory)!r}, and {size(free)} are free; "
            "give a smaller --size, or another --directory"
        )


# A real data set -----------------------------------------------------------------------------------


def real(terminal: Terminal, name: str, axis: int, directory: Path) -> dict[str, Any]:
    """Normalize a shipped file, and back; show each channel before and after."""
    source = data.path(name)
    out, back = directory / f"normalized_{name}", directory / f"denormalized_{name}"
    kept = directory / f"{source.stem}_statistics.npz"
    bn = stream.learn(source, axis=axis, eps=EPS)
    bn.save(kept)
    stream.normalize(source, out, bn)
    stream.denormalize(out, back, BatchNorm.load(kept))
    before, after = saved.moments(bn), stream.moments(out, axis=axis)
    terminal.say(f"{name}: {saved.array_line(npyfile.describe(source))}, {saved.channels_line(bn)}")
    terminal.say(f"  -> {out}: {saved.array_line(npyfile.describe(out))}, statistics in {kept}\n")
    made = table("channel", "mean before", "std before", "mean after", "std after")
    count = before.mean.size
    for i in sorted({round(k) for k in np.linspace(0, count - 1, min(count, SHOWN))}):
        row = (before.mean[i], before.std()[i], after.mean[i], after.std()[i])
        made.add_row(channel_name((i,)), *map(number, row[:2]), f"{row[2]:.1e}", f"{row[3]:.6f}")
    largest, lowest, highest = abs(after.mean).max(), after.std().min(), after.std().max()
    error = _error(np.load(source), np.load(back))
    terminal.say(made)
    terminal.say(
        f"\nall {count:,} channels after: |mean| at most {largest:.1e}, std from {lowest:.6f} to {highest:.6f}\n"
        f"denormalized again: within {error:.1e} of the original, relative to each channel's largest value\n"
    )
    return {
        "input": str(source),
        "output": str(out),
        "statistics": str(kept),
        "channels": count,
        "largest_mean_after": largest,
        "std_after": [lowest, highest],
        "denormalized_error": error,
    }


def _error(x: NDArray, again: NDArray) -> float:
    """The largest difference, relative to the largest value of its channel; channels last."""
    rows = tuple(range(x.ndim - 1))
    original = x.astype(np.float64)
    return float((abs(again - original).max(rows) / abs(original).max(rows)).max())


# A large generated one -----------------------------------------------------------------------------


def large(terminal: Terminal, directory: Path, nbytes: int, keep: bool) -> dict[str, Any]:
    """Generate a large file, normalize it, check the result, and measure all contestants."""
    source, out, other = directory / LARGE, directory / f"normalized_{LARGE}", directory / f"contestant_{LARGE}"
    kept = directory / "large_statistics.npz"
    with contextlib.ExitStack() as at_end:
        for path in (source, out) if not keep else ():
            at_end.callback(path.unlink, missing_ok=True)
        at_end.callback(other.unlink, missing_ok=True)
        for path in (source, out, other):
            path.unlink(missing_ok=True)  # an earlier run's, which would take the place on the disk
        generate(terminal, source, nbytes)
        found = npyfile.describe(source)
        terminal.say(
            f"{source}: {saved.array_line(found)}, {size(found.nbytes)}, generated: drifting means, many scales"
        )
        bn = _learn_and_normalize(terminal, source, out, found.nbytes)
        bn.save(kept)
        after = stream.moments(out)
        largest, lowest, highest = abs(after.mean).max(), after.std().min(), after.std().max()
        terminal.say(f"  -> {out}, statistics in {kept}")
        terminal.say(
            f"all {CHANNELS} channels after: |mean| at most {largest:.1e}, std from {lowest:.6f} to {highest:.6f}\n"
        )
        rows = measure(terminal, source, other, found.nbytes)
    if keep:
        terminal.say(f"kept: {source}, {out}")
    return {
        "shape": found.shape,
        "bytes": found.nbytes,
        "statistics": str(kept),
        "largest_mean_after": largest,
        "std_after": [lowest, highest],
        "throughput": rows,
    }


def generate(terminal: Terminal, path: Path, nbytes: int) -> None:
    """Write float32 (rows, 64): each channel of its own scale, about a mean that drifts from row to row."""
    rng = np.random.default_rng(2015)
    rows = max(2, nbytes // (4 * CHANNELS))
    scale = np.logspace(-3, 3, CHANNELS, dtype=np.float32)
    start, drift = (rng.normal(size=(2, CHANNELS)) * 10 * scale).astype(np.float32)
    step = 1 << 17
    with (
        atomic(path) as temporary,
        temporary.open("xb") as file,
        terminal.progress("generating", rows * CHANNELS * 4) as progress,
    ):
        npyfile.write_header(file, (rows, CHANNELS), np.dtype(np.float32), False)
        for lo in range(0, rows, step):
            x = rng.standard_normal((min(step, rows - lo), CHANNELS), dtype=np.float32)
            x *= scale
            x += start + drift * np.float32(lo / rows)
            file.write(x.data)
            progress(x.nbytes)


def _learn_and_normalize(terminal: Terminal, source: Path, out: Path, nbytes: int) -> BatchNorm:
    with terminal.progress("reading statistics", nbytes) as progress:
        bn = stream.learn(source, eps=EPS, progress=progress)
    with terminal.progress("normalizing", nbytes) as progress:
        stream.normalize(source, out, bn, progress=progress)
    return bn


def measure(terminal: Terminal, source: Path, target: Path, nbytes: int) -> list[dict[str, Any]]:
    """Seconds and throughput of all contestants, from file to file and in memory."""
    files = {
        "numbabn": lambda: stream.normalize(source, target, stream.learn(source, eps=EPS)),
        "copy": lambda: _copy_file(source, target),
        "numpy": lambda: _numpy_file(source, target),
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
            "numbabn": lambda: functional.batch_norm(x, eps=EPS, out=out),
            "copy": lambda: np.copyto(out, x),
            "numpy": lambda: expression(x),
        }
        rows += _rows("in memory", _rounds(terminal, "measuring in memory", memory, None), nbytes)
    made = table("median of a few rounds, in turn", "seconds", "GB/s of input", "time / plain copy")
    for k, row in enumerate(rows):
        if k and row["where"] != rows[k - 1]["where"]:
            made.add_section()
        figures = (f"{row['seconds']:.3f}", f"{row['gb_per_s']:.2f}", f"{row['times_copy']:.2f}")
        made.add_row(f"{row['where']}: {row['what']}", *figures)
    terminal.say(made)
    if not rich:
        terminal.say(
            f"\nNumPy and the comparison in memory are left out: they need {size(needed)} of memory, "
            f"and {size(free or 0)} are free; a smaller --size shows them."
        )
    return rows


def expression(x: NDArray) -> NDArray:
    """What people write."""
    return np.asarray((x - x.mean(0)) / np.sqrt(x.var(0) + EPS))


def _copy_file(source: Path, target: Path) -> None:
    """A plain copy, in the chunks and to the disk as the others."""
    found = npyfile.describe(source)
    with atomic(target) as temporary, temporary.open("xb") as file:
        npyfile.write_header(file, found.shape, found.dtype, found.fortran)
        for _, x in found.chunks(stream.CHUNK // found.dtype.itemsize):
            file.write(x.data)


def _numpy_file(source: Path, target: Path) -> None:
    with atomic(target) as temporary, temporary.open("xb") as file:
        np.save(file, expression(np.load(source)))


LABELS = {
    "numbabn": "numbabn",
    "copy": "plain copy",
    "numpy": "(x - x.mean(0)) / np.sqrt(x.var(0) + eps)",
}


def _rounds(
    terminal: Terminal, title: str, contestants: dict[str, Callable[[], object]], target: Path | None
) -> dict[str, float]:
    """Median seconds of each contestant; they take turns, so that a busy spell of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with terminal.progress(title, max(ROUNDS.values())) as progress:
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
