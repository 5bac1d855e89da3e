"""What is found out about the machine decides about speed alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbabn
from numbabn import lanes
from numbabn.backends import cuts, machine

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx2\n\nprocessor\t: 1\n"
ZEN3 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx2\n\n"
ZEN4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx2 avx512f\n\n"
OTHER = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n\n"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Forget what was found out, now and at the end; gives a function that lets the system say something else."""
    found = (machine.past_the_cache, machine.second_level, machine._processor)

    def forget() -> None:
        for one in found:
            one.cache_clear()

    def tell(read: Callable[[Path], str], stream: str | None = None) -> None:
        forget()
        monkeypatch.setattr(Path, "read_text", read)
        monkeypatch.delenv("NUMBABN_STREAM", raising=False)
        if stream is not None:
            monkeypatch.setenv("NUMBABN_STREAM", stream)

    yield tell
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(
    ("text", "stream", "past", "ahead"),
    [
        (INTEL, None, True, [256, 256, 256]),
        (ZEN3, None, False, [None] * 3),
        (ZEN4, None, True, [48, 96, 96]),
        (OTHER, None, False, [None] * 3),
        (ZEN3, "1", True, [48, 96, 96]),
        (INTEL, "0", False, [None] * 3),
        (OTHER, "1", True, [256, 256, 256]),
    ],
    ids=["Intel", "Zen 3", "Zen 4", "another", "Zen 3, told", "Intel, told", "another, told"],
)
def test_what_a_processor_likes(text: str, stream: str | None, past: bool, ahead: list[int | None], told: Any) -> None:
    """ahead: for float64, float32 and float16."""
    told(lambda path: text, stream)
    assert machine.past_the_cache() is past
    assert [machine.ahead(itemsize) for itemsize in (8, 4, 2)] == ahead


def test_a_system_that_tells_nothing(told: Any) -> None:
    def refuse(path: Path) -> str:
        raise FileNotFoundError(path)

    told(refuse)
    assert (machine.past_the_cache(), machine.ahead(4), machine.second_level()) == (False, None, machine.SECOND)


def test_a_wrong_word_is_refused(told: Any) -> None:
    told(lambda path: INTEL, "yes")
    with pytest.raises(ValueError, match="NUMBABN_STREAM is 'yes'; expected 0 or 1"):
        machine.past_the_cache()


@pytest.mark.parametrize("shape", [(8, 1400, 7, 7), (4, 64, 60, 50)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_depends_on_the_second_level(shape: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    results = set()
    for size in (1, 1 << 40):
        lanes._known.clear()
        monkeypatch.setattr(machine, "second_level", lambda size=size: size)
        layout = numbabn.layout.canonical({"x": x, "out": np.empty_like(x)}, (1,))
        assert cuts.trained_while_cached(layout.window()) is (size > 1)
        with numbabn.num_threads(threads):
            y, m = numbabn.batch_norm(x, axis=1)
            place = x.copy()
            numbabn.batch_norm(place, axis=1, out=place)
        assert place.tobytes() == y.tobytes()
        results.add((y.tobytes(), m.mean.tobytes(), m.m2.tobytes()))
    lanes._known.clear()
    assert len(results) == 1
