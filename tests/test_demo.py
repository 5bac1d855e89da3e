"""The demo, at a size that takes seconds."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from numbabn import BatchNorm, data
from numbabn.cli import contest, demo
from numbabn.cli.commands import cli

SMALL = [f"{verb}_{name}" for verb in ("normalized", "denormalized") for name in ("spectra.npy", "photographs.npy")] + [
    f"{name}_statistics.npz" for name in ("spectra", "photographs", "large")
]


def run(directory, *args):
    result = CliRunner().invoke(cli, ["demo", "--directory", str(directory), *args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_all_of_it_is_shown(tmp_path):
    result = run(tmp_path / "d", "--size", "8MiB")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    out = result.stdout
    assert names(tmp_path / "d") == sorted(SMALL)
    for name in ("spectra.npy", "photographs.npy"):
        x = np.load(data.path(name)).astype(float)
        y, back = (np.load(tmp_path / "d" / f"{verb}_{name}") for verb in ("normalized", "denormalized"))
        rows = tuple(range(x.ndim - 1))
        bn = BatchNorm.load(tmp_path / "d" / name.replace(".npy", "_statistics.npz"))
        np.testing.assert_allclose(bn.running_mean, x.mean(rows), rtol=1e-11)
        np.testing.assert_allclose(y, (x - x.mean(rows)) / np.sqrt(x.var(rows) + bn.eps), rtol=1e-5, atol=1e-5)
        assert (abs(back - x) <= 1e-6 * abs(x).max(rows)).all()
    first = re.search(r"^0 +(\S+) +(\S+) +(\S+) +(\S+)$", out, re.M)
    spectra = np.load(data.path("spectra.npy"))[:, 0].astype(float)
    assert [float(first[1]), float(first[2])] == pytest.approx([spectra.mean(), spectra.std()], rel=1e-5)
    assert len(re.findall(r"^\d+ ", out, re.M)) == 12 + 3
    for text in (
        "all 1,047 channels after",
        "all 3 channels after",
        "all 64 channels after",
        "file to file",
        "in memory",
    ):
        assert text in out
    assert "\nin memory" in out
    assert out.count("plain copy  ") == 2
    assert out.count("NumPy expression  ") == 2


def test_json_tells_the_same(tmp_path):
    result = run(tmp_path, "--size", "4MiB", "--json", "--keep")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert names(tmp_path) == sorted([*SMALL, "large.npy", "normalized_large.npy"])
    for part in (*told["small"], told["large"]):
        assert part["largest_mean_after"] < 1e-7
        assert 0.9 < part["smallest_std_after"] <= part["largest_std_after"] < 1.000001
        assert part["largest_std_error"] < 1e-7
    x, y = np.load(tmp_path / "large.npy"), np.load(tmp_path / "normalized_large.npy")
    assert list(x.shape) == told["large"]["shape"] == [16384, 64]
    np.testing.assert_allclose(y, contest.expression(x.astype(float), demo.EPS), rtol=1e-5, atol=1e-5)
    rows = told["large"]["throughput"]
    assert len(rows) == 6
    for row in rows:
        assert row["gb_per_s"] == pytest.approx(x.nbytes / row["seconds"] / 1e9)
        assert math.isfinite(row["times_copy"])
        assert row["times_copy"] == 1 or row["what"] != "plain copy"


def test_the_copy_is_a_copy_and_the_expression_is_the_same_job(tmp_path):
    x = np.random.default_rng(0).normal(3, 2, (1000, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    contest._copy_file(tmp_path / "x.npy", tmp_path / "copy.npy")
    assert (tmp_path / "copy.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()
    contest._numpy_file(tmp_path / "x.npy", tmp_path / "y.npy", 0.1)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1), rtol=1e-6)


def test_too_little_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda path: usage)
    result = run(tmp_path, "--size", "1GiB")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "the demo needs 3.29 GB on the disk" in result.stderr
    assert "give a smaller --size" in result.stderr
    assert names(tmp_path) == []


def test_with_too_little_memory_numpy_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "_available_memory", lambda: 10**6)
    result = run(tmp_path, "--size", "4MiB")
    assert result.exit_code == 0, result.output
    assert "left out: they need 21 MB of memory, and 1 MB are free" in result.stdout
    assert "NumPy expression  " not in result.stdout
    assert "\nin memory" not in result.stdout


def test_an_interruption_leaves_no_large_file(tmp_path, monkeypatch):
    def interrupt(*args):
        assert {"large.npy", "normalized_large.npy"} <= set(names(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(contest, "measure", interrupt)
    assert run(tmp_path, "--size", "4MiB").exit_code != 0
    assert names(tmp_path) == sorted(SMALL)
