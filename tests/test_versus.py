"""The comparison with others runs, checks every answer, and says what was measured."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rivals import CONTENDERS, SUITE, from_the_suite

import numbabn

GOALS = from_the_suite("goals")
TABLES = from_the_suite("tables")
WORKLOADS = {w.name: w for w in CONTENDERS.WORKLOADS}
CHOSEN = ("rows-64", "columns", "small-32x64")  # what planes would add are minutes of compilation
LINES = {"samples", "lines"}  # what only arrays of more axes have
MISSING = [] if importlib.util.find_spec("jax") else ["JAX"]  # the one peer that the tests do without
TINY = 0.0002


def suite(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", os.fspath(SUITE / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What one run printed, reported and drew."""
    folder = tmp_path_factory.mktemp("versus")
    files = {kind: folder / f"versus.{kind}" for kind in ("json", "png")}
    options = ["--scale", "tiny", "--rounds", "2", "--threads", "1", "--goals", "--dtypes", "float32"]
    options += ["--workloads", ",".join(CHOSEN), "--json", str(files["json"]), "--picture", str(files["png"])]
    run = suite("versus.py", *options)
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads(files["json"].read_text()), files["png"]


def test_every_task_of_every_array_has_a_row(done: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = done
    expected = [(name, task) for name in CHOSEN for task in WORKLOADS[name].tasks]
    assert sorted((row["workload"], row["task"]) for row in report["rows"]) == sorted(expected)
    assert {task for _, task in expected} == set(CONTENDERS.TASKS) - LINES
    assert {task for w in CONTENDERS.WORKLOADS for task in w.tasks} == set(CONTENDERS.TASKS)
    assert report["missing"] == MISSING


def test_a_row_says_who_took_part(done: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = done
    for row in report["rows"]:
        libraries = {c["library"] for c in row["contenders"].values()}
        outputs = row["task"] in ("inference", "denormalize", "train", "backward", "step", "layer")
        assert ("numbabn, fresh" in row["contenders"]) == outputs
        assert ("numbabn, plain" in row["contenders"]) == (row["task"] in CONTENDERS.ours.PICKS)
        assert ("onnxruntime" in libraries) == (row["task"] == "inference" and row["order"] != "columns")
        if row["task"] in ("moments", "inference", "train"):
            assert {"NumPy", "PyTorch", "JAX", "scikit-learn"} - {*MISSING} <= libraries
        if row["task"] == "backward":
            forms = {name for name, c in row["contenders"].items() if c["library"] == "PyTorch"}
            assert forms == {"PyTorch", "PyTorch, out=", "PyTorch, autograd"}
        # PyTorch's operator that writes into a given array forgets the mean of x with gaps between its rows.
        assert set(row["left out"]) == (
            {"PyTorch, out="} if (row["task"], row["order"]) == ("train", "columns") else set()
        )


def test_the_numbers_of_a_row_agree(done: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = done
    for row in report["rows"]:
        unit = row["unit"]["seconds"]
        for c in row["contenders"].values():
            assert 0 < c["q1"] <= c["median"] <= c["q3"]
            assert c["median"] == pytest.approx(c["seconds"] / unit)
            assert c["largest errors"]
        peers = {name: c["median"] for name, c in row["contenders"].items() if c["library"] != "numbabn"}
        assert row["best peer"] == min(peers, key=peers.__getitem__, default=None)
        if peers:
            ratio = peers[row["best peer"]] / row["contenders"]["numbabn"]["median"]
            assert row["best peer / numbabn"] == pytest.approx(ratio)
        assert set(row["references"]) == (set() if row["small"] else {"copy", "read"})
        assert row["goal"] == GOALS.goal(row)
        assert row["goal"] is None or row["goal"]["met"] == (row["goal"]["value"] <= row["goal"]["limit"])


def test_the_tables(done: tuple[str, dict[str, Any], Path]) -> None:
    text, report, _ = done
    for task in set(CONTENDERS.TASKS) - LINES:
        assert f"{task}: " in text or f"{task}, small: " in text
    for words in (
        "GB/s",
        "Goals: ",
        "scikit-learn",
        "onnxruntime",
        "Left out: PyTorch, out= in train of columns",
        "wrong",
    ):
        assert words in text, words
    lines = TABLES.markdown(report["rows"], True)
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == len(report["rows"]) + 2 * sum(line.startswith("**") for line in lines)
    for title, some, columns in TABLES.groups(report["rows"]):
        at = lines.index(f"**{title}**") + 2
        assert {line.count(" | ") for line in lines[at : at + 2 + len(some)]} == {len(columns) + 2}


def test_the_picture(done: tuple[str, dict[str, Any], Path]) -> None:
    image = pytest.importorskip("matplotlib.image").imread(done[2])
    assert min(image.shape[:2]) > 500
    drawn = (image[..., :3] < 0.97).any(axis=2)
    assert 0.005 < drawn.mean() < 0.5
    red = (image[..., 0] > 0.75) & (image[..., 1:3] < 0.3).all(axis=2)
    assert red.any(), "no mark of numbabn"


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_right_for_numbabn(name: str) -> None:
    p = CONTENDERS.Problem.of(WORKLOADS[name], "float32", TINY)
    small = WORKLOADS[name].small
    assert (p.x.shape == WORKLOADS[name].shape) == small
    for reference in CONTENDERS.references(p):
        p.out.fill(0)
        CONTENDERS.check_reference(p, reference, reference.work())
        if not small:
            p.out.fill(0)
            with pytest.raises(AssertionError):
                CONTENDERS.check_reference(p, reference, 0)
    for task in ("moments", "inference", "train"):
        for c in CONTENDERS.ours.contenders(task, p):
            p.out.fill(0)
            CONTENDERS.check(task, p, c, c.work())


@pytest.mark.parametrize("name", ["nchw-112", "nhwc-112", "fortran"])
@pytest.mark.parametrize("library", CONTENDERS.PEERS)
def test_peers_are_right_in_other_orders(library: str, name: str) -> None:
    if library in MISSING:
        pytest.skip(f"{library} is not installed")
    p = CONTENDERS.Problem.of(WORKLOADS[name], "float32", TINY)
    found = CONTENDERS.peers(library, "inference", p)
    assert bool(found) != (library == "scikit-learn" and name == "nchw-112")
    for c in found:
        p.out.fill(0)
        CONTENDERS.check("inference", p, c, c.work())
    forms = {c.form for c in found}
    assert ("out=" in forms) == (library in ("NumPy", "PyTorch", "onnxruntime"))
    assert "mkldnn" not in forms or name == "nchw-112"


@pytest.mark.parametrize("task", CONTENDERS.TASKS)
def test_a_wrong_answer_is_found(task: str) -> None:
    name = "small-32x64" if task in ("step", "layer") else "nhwc-56" if task in LINES else "rows-64"
    p = CONTENDERS.Problem.of(WORKLOADS[name], "float32", TINY)
    c = CONTENDERS.ours.contenders(task, p)[-1]
    answer = c.answer(c.work())
    CONTENDERS.check(task, p, c, c.work())
    parts = answer if isinstance(answer, tuple) else (answer,)
    for k in range(len(parts)):
        spoiled = [np.array(part) for part in parts]
        spoiled[k].reshape(-1)[-1] += 1e-2 * p.n if task == "backward" and k else 1e-2
        wrong = CONTENDERS.Contender("numbabn", "", c.work, lambda _, s=spoiled: tuple(s) if len(s) > 1 else s[0])
        with pytest.raises(CONTENDERS.WrongAnswerError, match="off by"):
            CONTENDERS.check(task, p, wrong, None)


@pytest.mark.parametrize("library", ["NumPy", "JAX", "scikit-learn"])
@pytest.mark.parametrize("task", ["positions", "weighted", *sorted(LINES)])
def test_what_all_channels_have_alike(task: str, library: str) -> None:
    if library in MISSING:
        pytest.skip(f"{library} is not installed")
    for name in ("nhwc-56", "nchw-56"):
        p = CONTENDERS.Problem.of(WORKLOADS[name], "float32", TINY)
        found = CONTENDERS.peers(library, task, p)
        assert bool(found) != (library == "scikit-learn" and name == "nchw-56")
        for c in (*found, *CONTENDERS.ours.contenders(task, p)):
            CONTENDERS.check(task, p, c, c.work())
        weights = np.broadcast_to(p.beside(task), p.x.shape)
        mean = np.average(p.x.astype(np.float64), axis=p.reduced, weights=weights)
        np.testing.assert_allclose(p.moments_of(task)[0], mean, rtol=1e-12)
        assert p.beside(task).size == {"samples": len(p.x), "lines": p.x.shape[1 if p.axis == 3 else 2]}.get(task, p.n)


def test_the_truth_of_a_problem() -> None:
    """Slab by slab it is what NumPy says of the whole."""
    x = np.random.default_rng(0).normal(100, 15, (1200, 300))
    p = CONTENDERS.Problem(x, 1)
    assert len(p.slabs()) > 1
    np.testing.assert_allclose(p.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(p.var, x.var(axis=0), rtol=1e-12)
    masked = np.ma.masked_array(x, ~p.where)
    np.testing.assert_allclose(p.moments_of("masked"), (masked.mean(axis=0), masked.var(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(p.moments_of("omitting")[1], np.nanvar(p.holes, axis=0), rtol=1e-12)
    mean = np.average(x, axis=0, weights=p.weights)
    np.testing.assert_allclose(p.moments_of("weighted")[0], mean, rtol=1e-13)
    y, m = numbabn.batch_norm(x)
    dx, dgamma, dbeta = numbabn.batch_norm_backward(p.dy, x, m)
    np.testing.assert_allclose(p.gradients, (dgamma, dbeta), rtol=1e-10)
    for s in p.slabs():
        np.testing.assert_allclose(p.x_hat(s), y[s], atol=1e-12)
        np.testing.assert_allclose(p.dx(s), dx[s] * np.sqrt(p.var), atol=1e-10)


def test_goals() -> None:
    row: dict[str, Any] = {
        "task": "train", "small": False, "order": "NCHW", "shape": [64, 64, 112, 112], "channel axis": 1,
        "bytes": 64 * 64 * 112 * 112 * 4, "references": {"copy": {"seconds": 2.0}, "read": {"seconds": 1.0}},
        "contenders": {"numbabn": {"seconds": 2.4}, "numbabn, plain": {"seconds": 1.0}},
    }  # fmt: skip

    def ratio(**changes: Any) -> tuple[float, bool]:
        goal = GOALS.goal({**copy.deepcopy(row), **changes})
        return pytest.approx(goal["value"]), goal["met"]

    assert ratio() == (1.2, True)  # cached planes: 1.25 copies
    assert ratio(shape=[256, 3, 224, 224]) == (0.8, True)  # too few channels: a read and a copy
    assert ratio(shape=[32, 2048, 7, 7]) == (0.8, True)  # short runs are rows
    assert ratio(order="NHWC") == (0.8, True)
    assert ratio(bytes=1 << 30) == (0.8, True)  # a channel that no cache holds
    assert ratio(task="moments") == (2.4, False)
    assert ratio(task="inference") == ratio(task="denormalize") == (1.2, False)
    assert ratio(task="backward") == (0.48, True)  # 3 reads and a copy
    assert ratio(task="masked") == (2.4, False)
    assert GOALS.goal({**row, "task": "update"}) is None
    small = {"numbabn": {"seconds": 3.0}, "numbabn, fresh": {"seconds": 4.0}, "PyTorch": {"seconds": 5.0}}
    assert ratio(small=True, contenders=small) == (0.8, True)
    assert GOALS.goal({**row, "small": True}) is None


@pytest.mark.parametrize(
    "option", [("--rounds", "0"), ("--scale", "huge"), ("--threads", "0"), ("--tasks", "sleep"), ("--workloads", "")]
)
def test_versus_refuses(option: tuple[str, str]) -> None:
    run = suite("versus.py", *option)
    assert run.returncode != 0
    assert option[0] in run.stderr
    assert "Traceback" not in run.stderr


def test_the_limit_comes_first() -> None:
    with pytest.raises(RuntimeError, match=r"numpy.* came before the limit"):
        from_the_suite("limits").confine(1)
    code = "import limits, os; limits.confine(1); print(limits.cores(), os.environ['OMP_NUM_THREADS'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=SUITE, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "1"]


def test_nobody_of_a_race_follows_the_same_one_always() -> None:
    race = from_the_suite("benchmarks.race").race
    ran: list[str] = []
    works = {name: lambda name=name: ran.append(name) for name in "abcd"}
    times = race(works, 40, {"d": 4})
    assert {name: len(times[name].seconds) for name in works} == {"a": 40, "b": 40, "c": 40, "d": 10}
    for name in "abc":
        before = {earlier for earlier, later in itertools.pairwise(ran) if later == name}
        assert before >= {"a", "b", "c", "d"} - {name}


def test_growth(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"growth.{kind}" for kind in ("json", "png")}
    options = ["--largest", "64KiB", "--size", "64KiB", "--channels", "4", "--rounds", "2", "--threads", "1,2"]
    run = suite("growth.py", *options, "--json", str(files["json"]), "--picture", str(files["png"]))
    assert run.returncode == 0, run.stderr
    points = json.loads(files["json"].read_text())["points"]
    assert sorted({p["bytes"] for p in points if p["series"] == "size"}) == [16 << 10, 64 << 10]
    assert sorted({p["channels"] for p in points if p["series"] == "channels"}) == [1, 4]
    assert sorted({p["threads"] for p in points if p["series"] == "threads"}) == [1, 2]
    assert len(points) == 12  # rows and planes of each
    for p in points:
        for task in ("moments", "inference", "train"):
            assert p[task]["over copy"] == pytest.approx(p[task]["seconds"] / p["copy"])
    image = pytest.importorskip("matplotlib.image").imread(files["png"])
    assert image.shape[1] > 1500
    assert (image[..., :3] < 0.5).any()


def test_what_a_process_pays_is_one_table(tmp_path: Path) -> None:
    options = [
        "--rounds",
        "1",
        "--mib",
        "1",
        "--cached",
        "1",
        "--threads",
        "2",
        "--json",
        str(tmp_path / "process.json"),
    ]
    run = suite("process.py", *options, "--markdown", "--verbs", "normalize")
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "process.json").read_text())
    rows = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == len(report) + 2
    said = " ".join(row["what"] for row in report)
    assert all(
        what in said for what in ("import", "kernels cached", "nothing cached", "extra memory", "2 threads, train")
    )
    assert sum(row["met"] for row in report) == run.stdout.count(" met |")
    assert all(row["met"] for row in report if row["what"].startswith(("import", "extra")))
