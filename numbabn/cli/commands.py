"""The commands, each a thin layer over `numbabn.pipeline.stream`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .. import __version__, report
from ..pipeline import npyfile, stream
from . import saved
from .arguments import (
    INPUT,
    Sentences,
    all_option,
    axis_and_eps,
    common,
    computing,
    dtype_option,
    epilog,
    force_option,
    refuse_outputs,
    size_type,
)
from .terminal import Terminal, statistics_table


@click.group(
    cls=Sentences,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(
        "numbabn stats x.npy",
        "numbabn normalize x.npy y.npy --save-stats x-stats.npz",
        "numbabn normalize new.npy out.npy --stats x-stats.npz",
        "numbabn denormalize y.npy x-again.npy --stats x-stats.npz",
    )
    + "\n\n\b\nExit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted, 143 terminated.",
)
@click.version_option(__version__, package_name="numbabn")
def cli() -> None:
    """Batch normalization of .npy files, of any size, channel by channel.

    Files are read in chunks, so they may be larger than memory. An output appears under its name
    only when it is complete.
    """


@cli.command(
    short_help="Show mean and standard deviation of each channel.",
    epilog=epilog(
        "numbabn stats x.npy",
        "numbabn stats images.npy --axis 1 --json",
        "numbabn stats day1.npy --save-stats day1.npz",
    ),
)
@click.argument("source", metavar="IN", type=INPUT)
@axis_and_eps()
@click.option(
    "--save-stats", type=INPUT, metavar="S", help="Save the statistics, for normalize, denormalize and merge."
)
@all_option
@force_option
@computing
@common
def stats(
    terminal: Terminal,
    source: Path,
    axis: Any,
    eps: float | None,
    save_stats: Path | None,
    everything: bool,
    force: bool,
) -> None:
    """Count, mean and standard deviation of each channel of IN.

    The standard deviation is that of the population. NaN or infinity in a channel shows in its mean
    and standard deviation, and is not left out.
    """
    refuse_outputs({"--save-stats": save_stats}, [source], force)
    found = npyfile.describe(source)
    bn = saved.learn(terminal, found, axis, eps)
    saved.warn(terminal, bn, source, "its statistics are not numbers there")
    if save_stats is not None:
        bn.save(save_stats)
    m = saved.moments(bn)
    terminal.say(f"{source}: {saved.array_line(found)}; {saved.channels_line(bn)}\n")
    terminal.say(statistics_table(m, everything))
    if save_stats is not None:
        terminal.say(f"\nsaved the statistics to {save_stats}")
    terminal.document({"command": "stats", "input": saved.array_facts(found), **saved.facts(bn, save_stats)})


@cli.command(
    short_help="Normalize a file by its own or saved statistics.",
    epilog=epilog(
        "numbabn normalize x.npy y.npy",
        "numbabn normalize images.npy out.npy --axis 1 --dtype float32",
        "numbabn normalize train.npy a.npy --save-stats s.npz",
        "numbabn normalize test.npy b.npy --stats s.npz",
    ),
)
@click.argument("source", metavar="IN", type=INPUT)
@click.argument("target", metavar="OUT", type=INPUT)
@click.option(
    "--stats", "given", type=INPUT, metavar="S", help="Normalize by these statistics, instead of those of IN."
)
@click.option("--save-stats", type=INPUT, metavar="S", help="Save the statistics of IN.")
@axis_and_eps(", or that of S")
@dtype_option
@force_option
@computing
@common
def normalize(
    terminal: Terminal,
    source: Path,
    target: Path,
    given: Path | None,
    save_stats: Path | None,
    axis: Any,
    eps: float | None,
    dtype: str | None,
    force: bool,
) -> None:
    """Write (x - mean) / sqrt(var + eps) of IN to OUT, channel by channel.

    Without --stats, IN is read twice: for its statistics, and to normalize it. With --stats, axis and
    eps are those of the statistics; --axis and --eps may repeat but not contradict them. A channel
    with NaN or infinity comes out as NaN, with a warning.
    """
    if given is not None and save_stats is not None:
        raise click.UsageError(
            "--save-stats saves the statistics of IN, and with --stats none are made; give one of the two."
        )
    refuse_outputs({"OUT": target, "--save-stats": save_stats}, [source, given], force)
    start = time.perf_counter()
    found = npyfile.describe(source)
    bn = saved.learn(terminal, found, axis, eps) if given is None else saved.load_for(found, given, axis, eps)
    saved.warn(terminal, bn, given or source, "OUT has NaN there")
    with terminal.progress("normalizing", found.nbytes) as progress:
        stream.normalize(source, target, bn, dtype=dtype, progress=progress)
    if save_stats is not None:
        bn.save(save_stats)
    saved.done(terminal, "normalize", found, bn, target, given or save_stats, time.perf_counter() - start)
    if save_stats is not None:
        terminal.say(f"saved the statistics to {save_stats}")


@cli.command(short_help="Undo normalize.", epilog=epilog("numbabn denormalize y.npy x.npy --stats s.npz"))
@click.argument("source", metavar="IN", type=INPUT)
@click.argument("target", metavar="OUT", type=INPUT)
@click.option(
    "--stats", "given", type=INPUT, metavar="S", required=True, help="The statistics that IN was normalized by."
)
@axis_and_eps(", or that of S")
@dtype_option
@force_option
@computing
@common
def denormalize(
    terminal: Terminal,
    source: Path,
    target: Path,
    given: Path,
    axis: Any,
    eps: float | None,
    dtype: str | None,
    force: bool,
) -> None:
    """Write y * sqrt(var + eps) + mean of IN to OUT: the inverse of normalize.

    OUT is floating, also where the data once were integers: rounding is left to you.
    """
    refuse_outputs({"OUT": target}, [source, given], force)
    start = time.perf_counter()
    found = npyfile.describe(source)
    bn = saved.load_for(found, given, axis, eps)
    saved.warn(terminal, bn, given, "OUT has NaN there")
    with terminal.progress("denormalizing", found.nbytes) as progress:
        stream.denormalize(source, target, bn, dtype=dtype, progress=progress)
    saved.done(terminal, "denormalize", found, bn, target, given, time.perf_counter() - start)


@cli.command(
    short_help="Merge saved statistics.", epilog=epilog("numbabn merge day1.npz day2.npz day3.npz -o week.npz")
)
@click.argument("parts", metavar="S1 S2 ...", type=INPUT, nargs=-1, required=True)
@click.option("-o", "--output", type=INPUT, metavar="S", required=True, help="Where to save the merged statistics.")
@click.option("--eps", type=click.FloatRange(min=0), metavar="EPS", help="Of the result.  [default: that of the parts]")
@all_option
@force_option
@common
def merge(
    terminal: Terminal, parts: tuple[Path, ...], output: Path, eps: float | None, everything: bool, force: bool
) -> None:
    """Merge statistics: the result is that of all the data together.

    The parts must be of the same channels and axes.
    """
    refuse_outputs({"--output": output}, parts, force)
    merged = saved.merged(parts, eps)
    merged.save(output)
    terminal.say(f"{output}: {len(parts)} file{'s' * (len(parts) > 1)} merged; {saved.channels_line(merged)}\n")
    terminal.say(statistics_table(saved.moments(merged), everything))
    terminal.document({"command": "merge", "inputs": [str(p) for p in parts], **saved.facts(merged, output)})


@cli.command(short_help="Show what runs where, and why.", epilog=epilog("numbabn info", "numbabn info --json"))
@common
def info(terminal: Terminal) -> None:
    """Show what runs where, and why not elsewhere."""
    if terminal.as_json:
        terminal.document({"command": "info", **report.config()})
    elif not terminal.quiet:
        report.show_config()


@cli.command(
    short_help="Compile the kernels now.",
    epilog=epilog("numbabn warmup", "numbabn warmup --dtype float16 --dtype uint8"),
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    default=("float32", "float64"),
    show_default=True,
    type=click.Choice(
        ("float16", "float32", "float64", "bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
    ),
    help="Type of data; repeat it for several.",
)
@computing
@common
def warmup(terminal: Terminal, dtypes: tuple[str, ...]) -> None:
    """Compile the kernels now, and keep them, so that no later run waits for it."""
    from ..warm import warmup

    seconds = warmup(dtypes)
    terminal.say(f"kernels for {', '.join(dtypes)} are ready ({seconds:.1f} s)")
    terminal.document({"command": "warmup", "dtypes": dtypes, "seconds": seconds})


@cli.command(
    short_help="See it work on real data and at speed.",
    epilog=epilog("numbabn demo", "numbabn demo --size 256MiB --directory /tmp/demo --keep"),
)
@click.option(
    "--size",
    "nbytes",
    type=size_type,
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="Of the generated array.",
)
@click.option(
    "--directory", type=INPUT, default="demo", show_default=True, help="Where to work; made if it is not there."
)
@click.option("--keep", is_flag=True, help="Keep the large files, too.")
@computing
@common
def demo(terminal: Terminal, nbytes: int, directory: Path, keep: bool) -> None:
    """Normalize two real data sets and a large generated one, and show what comes of it.

    Small results and statistics stay in the directory, where they replace those of an earlier run.
    """
    from .demo import run

    terminal.document({"command": "demo", **run(terminal, directory, nbytes, keep)})
