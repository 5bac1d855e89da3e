"""What the commands share: kinds of arguments, common options, and what is refused before any work."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..backends import BackendUnavailableError
from ..backends.threads import num_threads
from .terminal import Terminal

Command = TypeVar("Command", bound=Callable[..., Any])

INPUT = click.Path(path_type=Path)
UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def axis_type(text: str) -> Any:
    """Channel axes: '1', '0,2', '-1', or 'none'."""
    if text.strip().lower() == "none":
        return ()
    try:
        axes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no axis; expected a number such as 1 or -1, several as 0,2, or none"
        ) from None
    return axes if len(axes) > 1 else axes[0]


def size_type(text: str) -> int:
    """A number of bytes: '1GiB', '500MB', '4096'."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?|)b?\s*", text.lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; expected something like 1GiB, 500MB or 4096")
    return int(float(match[1]) * UNITS[match[2]])


class Sentences(click.Group):
    """A group whose commands end in one sentence, where the data or the files are refused."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads on
        except (ValueError, OSError, MemoryError, BackendUnavailableError) as error:
            raise click.ClickException(_sentence(error)) from error


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def epilog(*examples: str) -> str:
    """Examples below the options of a command's help, line by line as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


def common(command: Command) -> Command:
    """--json, --quiet and --no-progress, handed on as `terminal`."""

    @functools.wraps(command)
    def wrapped(as_json: bool, quiet: bool, no_progress: bool, **given: Any) -> Any:
        return command(terminal=Terminal(as_json, quiet, not no_progress), **given)

    for option in (
        click.option("--no-progress", is_flag=True, help="No progress bar; there is none off a terminal."),
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout; NaN becomes null."),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def computing(command: Command) -> Command:
    """--threads, in force while the command runs."""

    @functools.wraps(command)
    def wrapped(threads: int | None, **given: Any) -> Any:
        if threads is None:
            return command(**given)
        with num_threads(threads):
            return command(**given)

    text = "The most threads to use.  [default: see numbabn info]"
    return click.option("--threads", type=click.IntRange(min=1), metavar="N", help=text)(wrapped)  # type: ignore[return-value]


def axis_and_eps(beside: str = "") -> Callable[[Command], Command]:
    """--axis and --eps; `beside` tells where their defaults come from otherwise."""

    def wrapped(command: Command) -> Command:
        text = "Channel axes: 1, or 0,2, or -1; none for all values as one channel."
        command = click.option(
            "--eps",
            type=click.FloatRange(min=0),
            metavar="EPS",
            help=f"Added to the variance.  [default: 1e-5{beside}]",
        )(command)
        return click.option("--axis", type=axis_type, metavar="AXIS", help=f"{text}  [default: -1{beside}]")(command)

    return wrapped


dtype_option = click.option(
    "--dtype",
    type=click.Choice(("float16", "float32", "float64")),
    help="Of OUT.  [default: that of IN where it is floating; float32 for up to 16 bits of integer, else float64]",
)
all_option = click.option("--all", "everything", is_flag=True, help="Show every channel, however many there are.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite files that are there.")


def refuse_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None], force: bool) -> None:
    """Refuse, before any work, outputs that cannot be written or would destroy something.

    `outputs` maps what a path was given as to the path.
    """
    sources = [path for path in inputs if path is not None]
    taken: dict[Path, str] = {}
    for what, path in outputs.items():
        if path is None:
            continue
        for source in sources:
            if _same(path, source):
                raise ValueError(f"{what} {str(path)!r} is also an input; give it another name")
        if (first := taken.setdefault(path.resolve(), what)) != what:
            raise ValueError(f"{first} and {what} are both {str(path)!r}; give each its own name")
        if not path.parent.is_dir():
            raise ValueError(f"{what} {str(path)!r} would lie in a directory that is not there; make it first")
        if path.exists() and not path.is_file():
            raise ValueError(f"{what} {str(path)!r} is there and not a regular file; give it another name")
        if path.exists() and not force:
            raise ValueError(f"{what} {str(path)!r} is there already; give --force to overwrite it, or another name")


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there
        return a.resolve() == b.resolve()
