"""The `numbabn` command: signals, exit codes, and what to install when the command line is missing.

Exit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

NEEDS = ("click", "rich")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; ends by SystemExit with the exit code.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments, instead of those of the process.
    """
    try:
        from .commands import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        sys.exit("numbabn: the command line needs click and rich, which are not here: pip install 'numbabn[cli]'")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _stop)
    try:
        cli.main(args, prog_name="numbabn")
    except _Stopped:
        # Here, and not in the handler, where a progress bar that is taken away would take it along.
        print("numbabn: interrupted; no half-written file is left", file=sys.stderr)
        raise


class _Stopped(SystemExit):
    """The way out after a signal: by an exception, so that whatever is half written is removed."""


def _stop(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would stop the cleaning up
    raise _Stopped(128 + number)
