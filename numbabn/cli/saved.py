"""Statistics as the commands use them: learned or loaded for a file, merged, and put into words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..batchnorm import BatchNorm
from ..checks import channel_axes, in_channels
from ..pipeline import stream
from ..pipeline.npyfile import NpyFile, describe
from ..statistics import Moments
from .terminal import Terminal, size

Axis = int | tuple[int, ...]


def learn(terminal: Terminal, found: NpyFile, axis: Axis | None, eps: float | None) -> BatchNorm:
    """Statistics of a file."""
    with terminal.progress("reading statistics", found.nbytes) as progress:
        bn = stream.learn(
            found.path, axis=-1 if axis is None else axis, eps=1e-5 if eps is None else eps, progress=progress
        )
    if bn.count.size > 1 and bn.count.max() == 1:
        terminal.warn(
            f"along axis {axis_text(bn.axis)} each of the {bn.count.size:,} channels has a single value; "
            "--axis none takes all values as one channel"
        )
    return bn


def load_for(found: NpyFile, path: Path, axis: Axis | None, eps: float | None) -> BatchNorm:
    """Saved statistics that fit a file, and contradict no axis and eps that were given beside them."""
    bn = BatchNorm.load(path)
    ndim = len(found.shape)
    if any(not -ndim <= a < ndim for a in np.atleast_1d(bn.axis)):
        raise ValueError(
            f"the statistics in {str(path)!r} are along axis {axis_text(bn.axis)}, which {str(found.path)!r} of shape "
            f"{found.shape} does not have; give statistics of such data"
        )
    axes = channel_axes(bn.axis, ndim)
    if axis is not None and channel_axes(axis, ndim) != axes:
        raise ValueError(
            f"--axis is {axis_text(axis)}, but the statistics in {str(path)!r} are along axis {axis_text(bn.axis)}; "
            "leave --axis out, or give other statistics"
        )
    if eps is not None and eps != bn.eps:
        raise ValueError(
            f"--eps is {eps:g}, but the statistics in {str(path)!r} come with eps {bn.eps:g}; "
            "leave --eps out, or save statistics with this eps"
        )
    stream.check_channels(found, axes, bn)
    return bn


def merged(paths: Sequence[Path], eps: float | None) -> BatchNorm:
    """The statistics in several files together; `eps` settles in what they may differ."""
    for k, path in enumerate(paths):
        if any(path.resolve() == other.resolve() for other in paths[:k]):
            raise ValueError(f"{str(path)!r} is given twice, and its data would count twice; give it once")
    parts = [BatchNorm.load(path) for path in paths]
    first = parts[0]
    whole = first.copy(eps=eps)
    for path, part in zip(paths[1:], parts[1:], strict=True):
        files = f"{str(paths[0])!r} and {str(path)!r}"
        if axis_text(first.axis) != axis_text(part.axis):
            raise ValueError(
                f"{files} are of axes {axis_text(first.axis)} and {axis_text(part.axis)}; merge statistics of one axis"
            )
        if eps is None and first.eps != part.eps:
            raise ValueError(f"{files} have eps {first.eps:g} and {part.eps:g}; say by --eps which to keep")
        for name, mine, its in (("gamma", first.gamma, part.gamma), ("beta", first.beta, part.beta)):
            if not np.array_equal(np.nan if mine is None else mine, np.nan if its is None else its, equal_nan=True):
                raise ValueError(f"{files} differ in {name}; merge statistics with the same")
        try:
            whole.merge(part)
        except ValueError as error:
            raise ValueError(f"{files} do not go together: {error}") from error
    return whole


def moments(bn: BatchNorm) -> Moments:
    """Count, mean and M2 of what was learned."""
    m2 = bn.state_dict().get("m2", bn.running_var * bn.count)
    return Moments(bn.count, bn.running_mean, m2)


def nonfinite(bn: BatchNorm) -> NDArray:
    """The channels whose statistics are not numbers."""
    return np.asarray(~(np.isfinite(bn.running_mean) & np.isfinite(bn.running_var)))


def facts(bn: BatchNorm, path: Path | None) -> dict[str, Any]:
    """Statistics for a machine, and the file that holds them."""
    m = moments(bn)
    return {
        "statistics": None if path is None else str(path),
        "axis": bn.axis,
        "channels": bn.channels,
        "eps": bn.eps,
        "nonfinite_channels": np.argwhere(nonfinite(bn)),
        "count": m.count,
        "mean": m.mean,
        "var": m.var(),
        "std": m.std(),
    }


def array_facts(found: NpyFile) -> dict[str, Any]:
    """A file for a machine."""
    return {
        "path": str(found.path),
        "shape": found.shape,
        "dtype": found.dtype.str,
        "order": "F" if found.fortran else "C",
        "bytes": found.nbytes,
    }


def array_line(found: NpyFile) -> str:
    """A file for a person."""
    swapped = "" if found.dtype.isnative else " of foreign byte order"
    return f"{found.dtype.name}{swapped} {found.shape}{', Fortran order' if found.fortran else ''}"


def channels_line(bn: BatchNorm) -> str:
    """What the channels are, for a person."""
    if not bn.channels:
        return "all values as one channel"
    many = " x ".join(f"{n:,}" for n in bn.channels)
    return f"{many} channel{'s' * (bn.channels != (1,))} along axis {axis_text(bn.axis)}"


def axis_text(axis: Axis) -> str:
    """An axis as it is written on the command line."""
    return (",".join(map(str, axis)) or "none") if isinstance(axis, tuple) else str(axis)


def warn(terminal: Terminal, bn: BatchNorm, path: Path, consequence: str) -> None:
    """Name the channels whose statistics are not numbers, if there are any."""
    bad = nonfinite(bn)
    if bad.any():
        terminal.warn(f"{str(path)!r} has NaN or infinity {in_channels(bad)}; {consequence}")


def done(
    terminal: Terminal, what: str, found: NpyFile, bn: BatchNorm, target: Path, stats: Path | None, seconds: float
) -> None:
    """Tell what was written."""
    made = describe(target)
    # The start-up outweighs the work on a small file, and its speed would mislead.
    speed = f"{seconds:.2f} s" + (f", {size(found.nbytes / seconds)}/s" if found.nbytes >= 1 << 26 else "")
    terminal.say(f"{target}: {array_line(made)}; {channels_line(bn)}; {what}d in {speed}")
    result = {"command": what, "input": array_facts(found), "output": array_facts(made), "seconds": seconds}
    terminal.document(result | facts(bn, stats))
