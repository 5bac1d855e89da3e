"""The command line: results, refusals, exit codes, and what an interrupted run leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from numbabn import BatchNorm, __version__, config
from numbabn.cli.commands import cli
from numbabn.pipeline.npyfile import write_header

EPS = 1e-5


def numbabn(*args, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in args], prog_name="numbabn")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*args, code=1):
    """The one sentence on stderr of a refusal; stdout stays empty."""
    result = numbabn(*args, code=code)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def x(tmp_path, monkeypatch):
    """x.npy in the current directory, (500, 4)."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(1).normal([0, 10, -5, 3], [1, 2, 3, 0.1], (500, 4)).astype(np.float32)
    np.save("x.npy", x)
    return x


def files():
    return sorted(os.listdir())


# What it does --------------------------------------------------------------------------------------


def test_stats_prints_each_channel(x):
    lines = numbabn("stats", "x.npy").stdout.splitlines()
    assert lines[0] == "x.npy: float32 (500, 4); 4 channels along axis -1"
    assert lines[2].split() == ["channel", "count", "mean", "std"]
    mean, std = x.mean(0, dtype=float), x.std(0, dtype=float)
    for k in range(4):
        assert lines[4 + k].split() == [str(k), "500", f"{mean[k]:.6g}", f"{std[k]:.6g}"]
    assert lines[-1].split() == ["overall", "2,000", f"{x.mean(dtype=float):.6g}", f"{x.std(dtype=float):.6g}"]


def test_stats_shows_the_first_and_last_of_many_channels(x):
    np.save("many.npy", np.ones((3, 50)))
    short, full = numbabn("stats", "many.npy").stdout, numbabn("stats", "many.npy", "--all").stdout
    names = [line.split()[0] for line in short.splitlines()[4:] if line.split()]
    assert names == [*"012345", "...", "44", "45", "46", "47", "48", "49", "overall"]
    assert len(full.splitlines()) == 4 + 50 + 2


def test_stats_names_channels_of_several_axes(x):
    np.save("z.npy", np.arange(24.0).reshape(2, 3, 4))
    out = numbabn("stats", "z.npy", "--axis", "0,-1").stdout
    assert "2 x 4 channels along axis 0,-1" in out
    assert [line.split()[0] for line in out.splitlines()[4:12]] == [
        "0,0",
        "0,1",
        "0,2",
        "0,3",
        "1,0",
        "1,1",
        "1,2",
        "1,3",
    ]


def test_axis_none_takes_all_values_as_one_channel(x):
    np.save("line.npy", np.arange(10.0))
    one_each = numbabn("stats", "line.npy")
    assert "--axis none takes all values as one channel" in one_each.stderr
    out = numbabn("stats", "line.npy", "--axis", "none", "--json")
    assert out.stderr == ""
    assert json.loads(out.stdout)["mean"] == 4.5


def test_normalize_uses_the_file_s_own_statistics_and_saves_them(x):
    numbabn("normalize", "x.npy", "y.npy", "--save-stats", "s.npz", "--eps", "0.01")
    wanted = (x - x.mean(0, dtype=float)) / np.sqrt(x.var(0, dtype=float) + 0.01)
    np.testing.assert_allclose(np.load("y.npy"), wanted, rtol=1e-5, atol=1e-5)
    bn = BatchNorm.load("s.npz")
    assert (bn.momentum, bn.eps, bn.axis, bn.channels) == (None, 0.01, -1, (4,))
    np.testing.assert_allclose(bn.running_mean, x.mean(0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(bn(x), np.load("y.npy"), rtol=1e-6, atol=1e-6)


def test_normalize_by_the_statistics_of_another_file(x):
    np.save("new.npy", x[:50] * 2 + 1)
    numbabn("stats", "x.npy", "--save-stats", "s.npz")
    before = Path("s.npz").read_bytes()
    numbabn("normalize", "new.npy", "y.npy", "--stats", "s.npz", "--axis", "1", "--eps", "1e-5")
    wanted = (np.load("new.npy") - x.mean(0, dtype=float)) / np.sqrt(x.var(0, dtype=float) + EPS)
    np.testing.assert_allclose(np.load("y.npy"), wanted, rtol=1e-5, atol=1e-5)
    assert Path("s.npz").read_bytes() == before


@pytest.mark.parametrize("order", ["C", "F"])
def test_denormalize_gives_the_data_back(x, order):
    images = np.asarray(np.random.default_rng(2).integers(0, 256, (2, 3, 20, 30)), np.uint8, order=order)
    np.save("images.npy", images)
    numbabn("normalize", "images.npy", "y.npy", "--save-stats", "s.npz", "--axis", "1")
    numbabn("denormalize", "y.npy", "back.npy", "--stats", "s.npz", "--dtype", "float64")
    back = np.load("back.npy")
    assert back.dtype == np.float64
    assert back.flags.f_contiguous == (order == "F")
    np.testing.assert_allclose(back, images, atol=1e-4)


def test_merge_is_the_statistics_of_all(x):
    for k, part in enumerate((x[:10], x[10:300], x[300:])):
        np.save(f"{k}.npy", part)
        numbabn("stats", f"{k}.npy", "--save-stats", f"{k}.npz")
    out = numbabn("merge", "0.npz", "1.npz", "2.npz", "-o", "all.npz")
    assert out.stdout.startswith("all.npz: 3 files merged; 4 channels along axis -1\n")
    bn = BatchNorm.load("all.npz")
    np.testing.assert_allclose(bn.running_mean, x.mean(0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, x.var(0, dtype=float), rtol=1e-12)
    np.testing.assert_array_equal(bn.count, 500)
    numbabn("merge", "0.npz", "-o", "one.npz")
    assert BatchNorm.load("one.npz") == BatchNorm.load("0.npz")


def test_threads_and_dtype_and_quiet(x):
    out = numbabn("normalize", "x.npy", "y.npy", "--threads", 1, "--dtype", "float64", "--quiet")
    assert out.output == ""
    assert np.load("y.npy").dtype == np.float64
    numbabn("normalize", "x.npy", "z.npy", "--threads", 3, "--dtype", "float64", "-q")
    np.testing.assert_array_equal(np.load("y.npy"), np.load("z.npy"))


def test_nonfinite_values_are_named_and_no_error(x):
    x[7, 2] = np.nan
    np.save("x.npy", x)
    out = numbabn("normalize", "x.npy", "y.npy", "--save-stats", "s.npz", "--json")
    assert out.stderr == "Warning: 'x.npy' has NaN or infinity in channel 2; OUT has NaN there\n"
    result = json.loads(out.stdout)
    assert result["nonfinite_channels"] == [[2]]
    assert result["mean"][2] is None
    y = np.load("y.npy")
    assert np.isnan(y[:, 2]).all()
    assert np.isfinite(np.delete(y, 2, 1)).all()
    assert "nan" in numbabn("stats", "x.npy").stdout
    assert "'s.npz' has NaN" in numbabn("normalize", "x.npy", "z.npy", "--stats", "s.npz").stderr


def test_json_is_one_document_that_says_all(x):
    result = json.loads(numbabn("stats", "x.npy", "--json", "--save-stats", "s.npz").stdout)
    assert result["command"] == "stats"
    assert result["input"] == {"path": "x.npy", "shape": [500, 4], "dtype": "<f4", "order": "C", "bytes": 8000}
    assert (result["axis"], result["channels"], result["eps"], result["count"]) == (-1, [4], EPS, [500.0] * 4)
    assert result["statistics"] == "s.npz"
    bn = BatchNorm.load("s.npz")
    assert result["mean"] == bn.running_mean.tolist()
    assert result["var"] == bn.running_var.tolist()
    for args in (
        ("normalize", "x.npy", "y.npy"),
        ("denormalize", "y.npy", "z.npy", "--stats", "s.npz"),
        ("merge", "s.npz", "-o", "m.npz"),
        ("warmup", "--dtype", "float32"),
        ("info",),
    ):
        out = numbabn(*args, "--json")
        assert json.loads(out.stdout)["command"] == args[0]
        assert out.stderr == ""


def test_info_and_version(x):
    out = numbabn("info", "--json")
    expected = json.loads(json.dumps(config()))
    assert json.loads(out.stdout) == {"command": "info", **expected}
    assert "threads" in numbabn("info").stdout
    assert __version__ in numbabn("--version").stdout


@pytest.mark.parametrize("command", cli.commands)
def test_help_has_examples(command):
    out = numbabn(command, "--help").stdout
    assert f"Examples:\n    numbabn {command}" in out
    assert "--json" in out


# What it refuses -----------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_told(x):
    numbabn("normalize", "x.npy", "y.npy", "--save-stats", "s.npz")
    before = {name: Path(name).read_bytes() for name in files()}
    for args in (
        ("normalize", "x.npy", "y.npy"),
        ("normalize", "x.npy", "new.npy", "--save-stats", "s.npz"),
        ("denormalize", "x.npy", "y.npy", "--stats", "s.npz"),
        ("stats", "x.npy", "--save-stats", "y.npy"),
        ("merge", "s.npz", "-o", "y.npy"),
    ):
        assert "is there already; give --force to overwrite it" in refused(*args)
    assert {name: Path(name).read_bytes() for name in files()} == before
    numbabn("normalize", "x.npy", "y.npy", "--force", "--dtype", "float16")
    assert np.load("y.npy").dtype == np.float16


def test_an_input_is_no_output_even_if_told(x):
    numbabn("stats", "x.npy", "--save-stats", "s.npz")
    os.link("x.npy", "hard.npy")
    os.symlink("x.npy", "soft.npy")
    for args in (
        ("normalize", "x.npy", "x.npy"),
        ("normalize", "x.npy", "./x.npy"),
        ("normalize", "x.npy", "hard.npy"),
        ("normalize", "x.npy", "soft.npy"),
        ("normalize", "x.npy", "s.npz", "--stats", "s.npz"),
        ("normalize", "x.npy", "y.npy", "--save-stats", "x.npy"),
        ("stats", "x.npy", "--save-stats", "x.npy"),
        ("merge", "s.npz", "-o", "s.npz"),
    ):
        assert "is also an input" in refused(*args, "--force")
    assert "are both" in refused("normalize", "x.npy", "y.npy", "--save-stats", "./y.npy")
    np.testing.assert_array_equal(np.load("x.npy"), x)


def test_outputs_are_checked_before_any_work(x):
    assert "directory that is not there" in refused("normalize", "missing.npy", "no/y.npy")
    assert "not a regular file" in refused("normalize", "missing.npy", ".", "--force")
    assert "not a regular file" in refused("normalize", "missing.npy", "/dev/null", "--force")


def test_statistics_must_fit(x):
    numbabn("stats", "x.npy", "--save-stats", "s.npz")
    np.save("five.npy", np.zeros((7, 5)))
    np.save("deep.npy", np.zeros((7, 5, 3)))
    numbabn("stats", "deep.npy", "--axis", 2, "--save-stats", "deep.npz")
    normalize = ("normalize", "x.npy", "y.npy", "--stats")
    assert "of 4 channels, but 'five.npy'" in refused("normalize", "five.npy", "y.npy", "--stats", "s.npz")
    assert "--axis is 0, but the statistics in 's.npz' are along axis -1" in refused(*normalize, "s.npz", "--axis", 0)
    assert "--eps is 0.1, but" in refused(*normalize, "s.npz", "--eps", 0.1)
    assert "are along axis 2, which 'x.npy' of shape (500, 4) does not have" in refused(*normalize, "deep.npz")
    assert "'x.npy' is not a numbabn state" in refused("normalize", "deep.npy", "y.npy", "--stats", "x.npy")
    assert "No such file" in refused(*normalize, "nothing.npz")
    assert "y.npy" not in files()


def test_merge_refuses_what_does_not_go_together(x):
    def save(name, *args, **options):
        BatchNorm(*args, momentum=options.pop("momentum", None), **options).save(name)

    save("a.npz", 4)
    save("channels.npz", 5)
    save("axis.npz", 4, axis=0)
    save("eps.npz", 4, eps=0.5)
    save("gamma.npz", 4, gamma=2.0)
    save("average.npz", 4, momentum=0.1)
    for name, message in (
        ("channels.npz", "do not go together: `other` has channels"),
        ("axis.npz", "are of axes -1 and 0"),
        ("eps.npz", "have eps 1e-05 and 0.5; say by --eps"),
        ("gamma.npz", "differ in gamma"),
        ("average.npz", "do not go together: `other` has average"),
        ("a.npz", "is given twice"),
    ):
        assert message in refused("merge", "a.npz", name, "-o", "out.npz")
    assert "out.npz" not in files()
    numbabn("merge", "a.npz", "eps.npz", "-o", "out.npz", "--eps", 0.25)
    assert BatchNorm.load("out.npz").eps == 0.25


def test_other_inputs_are_refused_in_a_sentence(x):
    np.savez("a.npz", x)
    Path("empty.npy").touch()
    for name, message in (
        ("a.npz", "is a .npz archive"),
        ("empty.npy", "is not a .npy file"),
        ("nothing.npy", "nothing.npy: No such file or directory"),
    ):
        assert message in refused("stats", name)
        assert message in refused("normalize", name, "y.npy")
    assert "expected channel axes from -2 to 1" in refused("stats", "x.npy", "--axis", 2)
    assert "names one dimension of `x` twice" in refused("stats", "x.npy", "--axis", "1,-1")


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("nothing",),
        ("stats",),
        ("stats", "x.npy", "--axis", "one"),
        ("stats", "x.npy", "--eps", "-1"),
        ("stats", "x.npy", "--threads", "0"),
        ("normalize", "x.npy", "y.npy", "--dtype", "int8"),
        ("normalize", "x.npy", "y.npy", "--stats", "s.npz", "--save-stats", "t.npz"),
        ("denormalize", "x.npy", "y.npy"),
        ("merge", "-o", "s.npz"),
        ("merge", "s.npz"),
        ("demo", "--size", "much"),
        ("warmup", "--dtype", "complex64"),
    ],
)
def test_wrong_usage_has_exit_code_2(x, args):
    result = numbabn(*args, code=2)
    assert result.stdout == ""
    assert "Usage:" in result.stderr
    assert files() == ["x.npy"]


# Processes -----------------------------------------------------------------------------------------


def run(*args, **options):
    command = [sys.executable, "-m", "numbabn.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_exit_codes_of_the_process(x):
    done = run("normalize", "x.npy", "y.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["output"]["path"] == "y.npy"
    again = run("normalize", "x.npy", "y.npy")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("Error: OUT 'y.npy' is there already")
    assert run("normalize", "x.npy").returncode == 2


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_one_sentence_where_the_extra_is_missing(missing):
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{missing}":
            raise ModuleNotFoundError("blocked", name=name)
sys.meta_path.insert(0, Blocker())
from numbabn.cli import main
main(["info"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "pip install 'numbabn[cli]'" in result.stderr


def test_help_loads_no_numba():
    code = """
import sys
from numbabn.cli import main
try:
    main(["--help"])
except SystemExit:
    assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_reader_that_goes_away_is_no_traceback(x):
    np.save("many.npy", np.ones((2, 5_000)))
    for as_json in ((), ("--json",)):
        command = [sys.executable, "-m", "numbabn.cli", "stats", "many.npy", "--all", *as_json]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_no_half_file(tmp_path, number, code):
    """A sparse file that takes seconds; the signal comes once the output has begun."""
    nbytes = 4 << 30
    with (tmp_path / "x.npy").open("wb") as file:
        write_header(file, (nbytes // 4 // 64, 64), np.dtype(np.float32), False)
        file.truncate(file.tell() + nbytes)
    BatchNorm(64, momentum=None).save(tmp_path / "s.npz")
    (tmp_path / "y.npy").write_bytes(b"old")
    command = [sys.executable, "-m", "numbabn.cli", "normalize", "x.npy", "y.npy", "--stats", "s.npz", "--force"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not any(p.stat().st_size > 1 << 20 for p in tmp_path.glob(".y.npy.*.part")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert "no half-written file is left" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.npz", "x.npy", "y.npy"]
    assert (tmp_path / "y.npy").read_bytes() == b"old"
