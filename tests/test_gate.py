"""The gate: what it makes of ratios, and that it runs two builds of a commit. Nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rivals import SUITE, from_the_suite

RATIOS = from_the_suite("gating.ratios")
WORKER = from_the_suite("gating.worker")
ROOT = SUITE.parent
LIMITS = (1.10, 1.05)


def noisy(factor: float, pairs: int = 6, rounds: int = 7, seed: int = 0, apart: float = 0.0) -> np.ndarray:
    """Ratios as a shared machine gives them: some percent of noise, outliers; apart: noise of a pair of processes."""
    rng = np.random.default_rng(seed)
    ratios = factor * np.exp(rng.normal(0, apart, (pairs, 1)) + rng.normal(0, 0.05, (pairs, rounds)))
    return np.where(rng.random(ratios.shape) < 0.1, ratios * np.exp(rng.normal(0, 0.5, ratios.shape)), ratios)


def test_a_planted_slowdown_is_found_and_none_is_not() -> None:
    def slower(factor: float, apart: float) -> int:
        return sum(RATIOS.judged(noisy(factor, seed=seed, apart=apart), *LIMITS).slower for seed in range(100))

    assert slower(1.2, apart=0.0) == 100
    assert slower(1.2, apart=0.05) >= 90  # of single jobs; of several, one is enough
    assert slower(1.0, apart=0.05) == slower(1 / 1.2, apart=0.05) == 0


def test_the_interval_holds_the_truth() -> None:
    for apart in (0.0, 0.05):
        found = (RATIOS.interval(noisy(1.1, seed=seed, apart=apart)) for seed in range(200))
        assert sum(low <= 1.1 <= high for low, high in found) >= 160  # nominally 190; outliers, and few pairs


def test_the_interval_is_that_of_the_median() -> None:
    assert RATIOS.interval([[1.3] * 9] * 2) == (1.3, 1.3)
    assert RATIOS.interval(noisy(1.0)) == RATIOS.interval(noisy(1.0))  # nothing drawn anew
    few, many = (RATIOS.interval(noisy(1.0, n)) for n in (3, 60))
    assert many[1] - many[0] < few[1] - few[0]
    low, high = RATIOS.interval(noisy(1.0), confidence=0.5)
    wide = RATIOS.interval(noisy(1.0), confidence=0.99)
    assert wide[0] < low < 1.05
    assert 0.95 < high < wide[1]


def test_more_rounds_do_not_make_two_processes_sure() -> None:
    """Two pairs that contradict each other, whatever the rounds."""
    low, high = RATIOS.interval([[1.0] * 500, [1.3] * 500])
    assert (low, high) == (1.0, 1.3)


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([[1.11] * 5] * 4, True),
        ([[1.09] * 5] * 4, False),  # not beyond the limit
        ([[1.5] * 5] * 3 + [[1.0] * 5] * 2, False),  # beyond it, and not sure
        ([[0.5] * 5] * 4, False),
    ],
)
def test_both_limits_count(ratios: list[list[float]], slower: bool) -> None:
    verdict = RATIOS.judged(ratios, *LIMITS)
    assert verdict.slower is slower
    assert verdict.low <= verdict.median <= verdict.high


@pytest.mark.parametrize("ratios", [[], [[]], [[1.0, 0.0]], [[1.0, float("nan")]], [1.0]])
def test_what_is_no_ratio_is_refused(ratios: list[Any]) -> None:
    with pytest.raises(ValueError, match="no ratios"):
        RATIOS.interval(ratios)


@pytest.mark.parametrize(("plant", "expected"), [(1.0, 10.0), (1.2, 12.0), (2.0, 20.0)])
def test_the_plant_is_inside_of_what_is_timed(plant: float, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: work takes a second, a look at the clock next to nothing."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1e-3
        return now

    def work() -> None:
        nonlocal now
        now += 1.0

    monkeypatch.setattr(WORKER.time, "perf_counter", clock)
    assert WORKER.timed(work, 10, plant) == pytest.approx(expected, abs=0.02)


def gate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, os.fspath(SUITE / "gate.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="builds commits of the repository")


@needs_git
def test_it_builds_and_runs_both(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    options = [
        "--jobs",
        "small inference",
        "--pairs",
        "2",
        "--rounds",
        "3",
        "--run",
        "0.001",
        "--threads",
        "1",
        "--plant",
        "1.2",
    ]
    done = gate("HEAD", "HEAD", *options, "--builds", str(tmp_path / "builds"), "--json", str(file))
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(file.read_text())
    (row,) = report["rows"]
    assert row["job"] == "small inference"
    assert [len(of_a_pair) for of_a_pair in row["ratios"]] == [3, 3]
    assert done.returncode == int(row["slower"])
    assert ("SLOWER" in done.stdout) == row["slower"]
    assert report["commits"]["base"] == report["commits"]["head"]
    assert "slowed down on purpose" in done.stdout
    assert len(list((tmp_path / "builds").glob("*/site/numbabn/__init__.py"))) == 1


@needs_git
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("no-such-commit",), "no-such-commit"),
        (("HEAD", "--jobs", "sleep"), "no job is called sleep"),
        (("HEAD", "--rounds", "0"), "--rounds"),
        (("HEAD", "--pairs", "0"), "--pairs"),
    ],
)
def test_it_refuses(options: tuple[str, ...], words: str) -> None:
    done = gate(*options)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
