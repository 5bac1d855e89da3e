"""What this machine's memory likes: only speed depends on it, never a result."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

# Values that a stream of the moments asks for ahead of time, and as many bytes at most.
AHEAD = {"GenuineIntel": (256, 2048), "AuthenticAMD": (96, 384)}
SECOND = 1 << 20  # bytes of a core's second-level cache, where the system does not tell


@cache
def past_the_cache() -> bool:
    """Whether large results are stored past the cache, and memory is asked for ahead of time.

    On Intel's processors, and on AMD's with AVX-512 (Zen 4), that takes 0.6 to 0.9 of the time: a line is not read
    before it is written, and one core has not enough reads under way by itself. `NUMBABN_STREAM` set to 1 or 0
    decides it.
    """
    told = os.environ.get("NUMBABN_STREAM")
    if told is not None:
        if told not in ("0", "1"):
            raise ValueError(f"NUMBABN_STREAM is {told!r}; expected 0 or 1")
        return told == "1"
    maker, flags = _processor()
    return maker == "GenuineIntel" or (maker == "AuthenticAMD" and "avx512f" in flags)


def ahead(itemsize: int) -> int | None:
    """How many values of so many bytes ahead a stream asks for memory; None where it does not."""
    if not past_the_cache():
        return None
    values, size = AHEAD.get(_processor()[0], AHEAD["GenuineIntel"])
    return min(values, size // itemsize)


@cache
def second_level() -> int:
    """Bytes of the first processor's second-level cache."""
    for one in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (one / "level").read_text().strip() == "2":
                return int((one / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return SECOND


@cache
def _processor() -> tuple[str, frozenset[str]]:
    """Who made the first processor, and what it can do; nothing where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return "", frozenset()
    told = {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
    return told.get("vendor_id", "").strip(), frozenset(told.get("flags", "").split())
