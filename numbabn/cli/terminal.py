"""What a person sees: tables, progress, warnings; or one JSON document for machines."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ..statistics import Moments

MANY = 20  # more channels than this are shown by their first and last
ENDS = 6
WIDTH = 120  # off a terminal, where nothing must be shortened


class Terminal:
    """Where a command's output goes: results to stdout, everything else to stderr."""

    def __init__(self, as_json: bool = False, quiet: bool = False, progress: bool = True) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self.out.is_terminal:
            self.out.width = WIDTH
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.bar = progress and not quiet and self.err.is_terminal

    def say(self, thing: Any = "") -> None:
        """Show a line or a table to a person."""
        if not (self.as_json or self.quiet):
            self.out.print(thing)

    def warn(self, text: str) -> None:
        """Say what is wrong with a result that is given nevertheless."""
        click.echo(f"Warning: {text}", err=True)

    def document(self, result: Mapping[str, Any]) -> None:
        """Give a machine the whole result."""
        if self.as_json:
            json.dump(_plain(result), sys.stdout, indent=2, allow_nan=False)
            sys.stdout.write("\n")

    @contextlib.contextmanager
    def progress(self, title: str, total: int, steps: bool = False) -> Iterator[Callable[[int], object]]:
        """A bar over `total` bytes or steps, on a terminal only; gives the function to call with what is done."""
        done = (MofNCompleteColumn(),) if steps else (DownloadColumn(), TransferSpeedColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), *done, TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.bar) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.advance(task, done)


def table(*columns: str) -> Table:
    """An empty table of right-aligned columns, but for the first."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for k, name in enumerate(columns):
        made.add_column(name, justify="right" if k else "left", no_wrap=True)
    return made


def statistics_table(m: Moments, everything: bool) -> Table:
    """Count, mean and std of each channel, and of all values together in the last row."""
    made = table("channel", "count", "mean", "std")
    count = np.broadcast_to(m.count, m.mean.shape)
    std = m.std()
    shown = range(m.mean.size)
    parts = [shown] if everything or len(shown) <= MANY else [shown[:ENDS], shown[-ENDS:]]
    for k, part in enumerate(parts):
        if k:
            made.add_row("...", "", "", "")
        for i in part:
            at = np.unravel_index(i, m.mean.shape)
            made.add_row(channel_name(at), f"{count[at]:,.0f}", number(m.mean[at]), number(std[at]))
    if m.mean.size > 1:
        made.add_section()
        whole = overall(m)
        made.add_row("overall", f"{whole.count:,.0f}", number(whole.mean), number(whole.std()))
    return made


def overall(m: Moments) -> Moments:
    """All channels taken as one."""
    count = np.broadcast_to(m.count, m.mean.shape)
    total = count.sum()
    if total == 0:
        return Moments(0.0, np.zeros(()), np.zeros(()))
    with np.errstate(invalid="ignore"):
        mean = (count * m.mean).sum() / total
        return Moments(total, mean, (m.m2 + count * (m.mean - mean) ** 2).sum())


def channel_name(index: tuple[Any, ...]) -> str:
    """'3', or '1,3' for several channel axes."""
    return ",".join(map(str, index)) or "all"


def number(value: Any) -> str:
    """A figure of six digits."""
    return f"{float(value):.6g}"


def size(nbytes: float) -> str:
    """'1.07 GB'."""
    power = min(4, (len(f"{nbytes:.0f}") - 1) // 3)
    return f"{nbytes / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN, no infinity and no arrays: the first two become null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
