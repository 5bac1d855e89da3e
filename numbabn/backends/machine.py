"""What this machine's memory likes: only speed depends on it, never a result."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

AHEAD = 256  # values that a stream of the moments asks for ahead of time


@cache
def past_the_cache() -> bool:
    """Whether large results are stored past the cache, and memory is asked for ahead of time.

    On Intel's processors that takes 0.6 of the time: a line is not read before it is written, and one core has not
    enough reads under way by itself. On AMD's (Zen 3 to 5) it was between a tenth faster and a fifth slower.
    `NUMBABN_STREAM` set to 1 or 0 decides it.
    """
    told = os.environ.get("NUMBABN_STREAM")
    if told is not None:
        if told not in ("0", "1"):
            raise ValueError(f"NUMBABN_STREAM is {told!r}; expected 0 or 1")
        return told == "1"
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text().partition("flags")[0]
    except OSError:
        return False


def ahead() -> int | None:
    """How many values ahead a stream asks for memory; None where it does not."""
    return AHEAD if past_the_cache() else None
