"""The demo: two real data sets and a large generated one, normalized from file to file."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, warm
from ..arrays import NDArray
from ..batchnorm import BatchNorm
from ..pipeline import npyfile, stream
from ..state import atomic
from ..statistics import Moments
from . import contest, saved
from .terminal import Terminal, channel_name, number, size, table

EPS = 1e-5
CHANNELS = 64
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
    error = _error(np.load(source), np.load(back))
    terminal.say(made)
    terminal.say()
    summary = _summary(terminal, before, after)
    terminal.say(f"denormalized again: within {error:.1e} of the original, relative to each channel's largest value\n")
    return {
        "input": str(source),
        "output": str(out),
        "statistics": str(kept),
        "channels": count,
        **summary,
        "denormalized_error": error,
    }


def _summary(terminal: Terminal, before: Moments, after: Moments) -> dict[str, Any]:
    """How well all channels came out: mean 0, and a std that falls short of 1 by what eps takes."""
    std, expected = after.std(), before.std() / np.sqrt(before.var() + EPS)
    result = {
        "largest_mean_after": abs(after.mean).max(),
        "smallest_std_after": std.min(),
        "largest_std_after": std.max(),
        "largest_std_error": abs(std - expected).max(),
    }
    mean, lowest, highest, off = result.values()
    terminal.say(
        f"all {std.size:,} channels after: |mean| at most {mean:.1e}; std {lowest:.6f} to {highest:.6f},\n"
        f"  within {off:.1e} of sqrt(var / (var + eps)), eps = {EPS:g}"
    )
    return result


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
        terminal.say(f"  -> {out}, statistics in {kept}")
        summary = _summary(terminal, saved.moments(bn), after)
        terminal.say()
        rows = contest.measure(terminal, source, other, found.nbytes, EPS)
    if keep:
        terminal.say(f"kept: {source}, {out}")
    return {
        "shape": found.shape,
        "bytes": found.nbytes,
        "statistics": str(kept),
        **summary,
        "throughput": rows,
    }


def generate(terminal: Terminal, path: Path, nbytes: int) -> None:
    """Write float32 (rows, 64): each channel of its own scale, about a mean that drifts from row to row."""
    rng = np.random.default_rng(2015)
    rows = max(2, nbytes // (4 * CHANNELS))
    scale = np.logspace(-1, 3, CHANNELS, dtype=np.float32)
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
