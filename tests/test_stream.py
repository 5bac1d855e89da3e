"""Streams of .npy files: against NumPy, in chunks small enough to cut channels apart."""

import io
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from numbabn import BatchNorm, Moments, data, denormalize, normalize
from numbabn.pipeline import npyfile, stream

CHUNK = 1000  # bytes: several chunks for each array, and channels apart in some
EPS = 1e-5


def make(shape, dtype, order, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        x = rng.random(shape) < 0.3
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        x = rng.integers(max(info.min, -(10**6)), min(info.max, 10**6), shape, endpoint=True)
    else:
        x = rng.normal(3, 2, shape) + np.arange(shape[-1]) / 10
    return np.asarray(x, dtype=dtype, order=order)


def expected(x, axis):
    """Mean and variance in the order of the ascending channel axes, and as they broadcast."""
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    wide = x.astype(np.float64)
    return wide.mean(rest), wide.var(rest), wide.mean(rest, keepdims=True), wide.var(rest, keepdims=True)


CASES = [
    ((5000,), ()),
    ((500,), -1),
    ((3000, 7), -1),
    ((40, 900), -1),
    ((40, 900), 0),
    ((6, 5, 400), 1),
    ((6, 50, 40), (0, 2)),
    ((6, 50, 40), (-1, 0)),
    ((3, 4, 20, 30), 1),
    ((3, 20, 30, 4), -1),
    ((3, 20, 30, 4), (0, 1)),
    ((2, 3, 4, 50), (0, 1, 2, 3)),
    ((1, 1, 700), 0),
]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_statistics_and_output_are_those_of_numpy(tmp_path, shape, axis, order):
    x = make(shape, np.float32, order)
    np.save(tmp_path / "x.npy", x)
    bn = stream.learn(tmp_path / "x.npy", axis=axis, eps=EPS, chunk=CHUNK)
    mean, var, wide_mean, wide_var = expected(x, axis)
    assert bn.running_mean.shape == mean.shape
    np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bn.running_var, var, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(bn.count, x.size / max(1, mean.size))
    assert bn.num_batches == 1
    assert bn.momentum is None

    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, chunk=CHUNK)
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == np.float32
    assert y.flags.f_contiguous == x.flags.f_contiguous
    assert y.flags.c_contiguous == x.flags.c_contiguous
    np.testing.assert_allclose(y, (x - wide_mean) / np.sqrt(wide_var + EPS), rtol=2e-6, atol=2e-6)

    stream.denormalize(tmp_path / "y.npy", tmp_path / "back.npy", bn, chunk=CHUNK)
    np.testing.assert_allclose(np.load(tmp_path / "back.npy"), x, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "gives"),
    [
        ("<f2", "float16"),
        ("<f4", "float32"),
        ("<f8", "float64"),
        (">f2", "float16"),
        (">f4", "float32"),
        (">f8", "float64"),
        ("u1", "float32"),
        ("i1", "float32"),
        ("?", "float32"),
        (">i2", "float32"),
        ("<u2", "float32"),
        ("<i4", "float64"),
        (">i8", "float64"),
    ],
)
def test_every_dtype(tmp_path, dtype, gives, order):
    x = make((70, 9, 11), dtype, order)
    np.save(tmp_path / "x.npy", x)
    bn = stream.learn(tmp_path / "x.npy", axis=1, chunk=CHUNK)
    mean, var, wide_mean, wide_var = expected(x, 1)
    np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, var, rtol=1e-11)
    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, chunk=CHUNK)
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == gives
    assert y.dtype.isnative
    close = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-11}[gives]
    wanted = (x.astype(np.float64) - wide_mean) / np.sqrt(wide_var + EPS)
    np.testing.assert_allclose(y.astype(np.float64), wanted, rtol=close, atol=close)


@pytest.mark.parametrize("dtype", stream.DTYPES)
def test_output_dtype_can_be_chosen(tmp_path, dtype):
    np.save(tmp_path / "x.npy", make((300, 5), "u1", "C"))
    bn = stream.learn(tmp_path / "x.npy")
    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, dtype=dtype, chunk=CHUNK)
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(float).std(0), 1, rtol=1e-3)
    with pytest.raises(ValueError, match="`dtype` is 'int8'"):
        stream.normalize(tmp_path / "x.npy", tmp_path / "z.npy", bn, dtype="int8")
    assert not (tmp_path / "z.npy").exists()


def test_chunks_cover_the_file_once_in_memory_order(tmp_path):
    x = np.asfortranarray(np.arange(2 * 30 * 7).reshape(2, 30, 7))
    np.save(tmp_path / "x.npy", x)
    found = npyfile.describe(tmp_path / "x.npy")
    assert found.fortran
    assert found.memory_shape == (7, 30, 2)
    again = np.full(found.memory_shape, -1)
    parts = [(box, part.copy()) for box, part in found.chunks(16)]
    assert len(parts) > 20
    for box, part in parts:
        assert part.size <= 16
        assert (again[box] == -1).all()
        again[box] = part
    np.testing.assert_array_equal(again.T, x)


def test_gamma_and_beta_and_exponential_averages_take_part(tmp_path):
    x = make((60, 5, 40), np.float64, "F")
    np.save(tmp_path / "x.npy", x)
    bn = BatchNorm(5, axis=1, momentum=0.3, gamma=np.arange(1.0, 6), beta=np.arange(5.0))
    bn.update(x)
    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, chunk=CHUNK)
    y = np.load(tmp_path / "y.npy")
    parameters = (bn.running_mean, bn.running_var, bn.gamma, bn.beta)
    np.testing.assert_allclose(y, normalize(x, *parameters, eps=bn.eps, axis=1), rtol=1e-13)
    stream.denormalize(tmp_path / "y.npy", tmp_path / "z.npy", bn, chunk=CHUNK)
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), denormalize(y, *parameters, eps=bn.eps, axis=1), rtol=1e-13)


def test_merge_is_the_statistics_of_the_concatenation(tmp_path):
    x = make((900, 6), np.float64, "C")
    for name, part in (("a", x[:100]), ("b", x[100:]), ("all", x)):
        np.save(tmp_path / f"{name}.npy", part)
    a, b, whole = (stream.learn(tmp_path / f"{name}.npy", chunk=CHUNK) for name in ("a", "b", "all"))
    a.merge(b)
    np.testing.assert_allclose(a.running_mean, whole.running_mean, rtol=1e-13)
    np.testing.assert_allclose(a.running_var, whole.running_var, rtol=1e-12)
    np.testing.assert_array_equal(a.count, whole.count)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0,), (2, 0, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_empty_arrays(tmp_path, shape, order):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32, order=order))
    bn = stream.learn(tmp_path / "x.npy")
    assert bn.num_batches == 0
    assert (bn.count == 0).all()
    assert (bn.running_var == 1).all()
    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn)
    y = np.load(tmp_path / "y.npy")
    assert y.shape == shape
    assert y.dtype == np.float32


def test_nonfinite_values_stay_in_their_channels(tmp_path):
    x = make((400, 4), np.float32, "C")
    x[50, 1], x[300, 3] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    m = stream.moments(tmp_path / "x.npy", chunk=CHUNK)
    assert np.isnan(m.mean[1])
    assert not np.isfinite(m.mean[3])
    assert np.isnan(m.var()[[1, 3]]).all()
    np.testing.assert_allclose(m.mean[[0, 2]], x[:, [0, 2]].mean(0, dtype=float), rtol=1e-12)


def test_progress_counts_every_byte(tmp_path):
    np.save(tmp_path / "x.npy", make((500, 3), np.float64, "C"))
    seen = []
    bn = stream.learn(tmp_path / "x.npy", chunk=CHUNK, progress=seen.append)
    assert len(seen) > 5
    assert sum(seen) == 500 * 3 * 8
    seen.clear()
    stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, chunk=CHUNK, progress=seen.append)
    assert sum(seen) == 500 * 3 * 8


def test_a_failure_midway_leaves_the_old_file_and_no_other(tmp_path):
    np.save(tmp_path / "x.npy", make((500, 3), np.float64, "C"))
    (tmp_path / "y.npy").write_bytes(b"old")
    bn = stream.learn(tmp_path / "x.npy")

    def fail(done):
        assert list(tmp_path.glob(".y.npy.*.part"))
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn, chunk=CHUNK, progress=fail)
    assert (tmp_path / "y.npy").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_format_version(tmp_path, version):
    x = make((100, 3), np.float32, "C")
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, x, version=version)
    np.testing.assert_allclose(stream.moments(tmp_path / "x.npy").mean, x.mean(0, dtype=float), rtol=1e-13)


def test_data_need_not_be_aligned(tmp_path):
    x = make((100, 3), np.float64, "C")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100, 3) }\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + x.tobytes())
    assert npyfile.describe(tmp_path / "x.npy").offset % 8
    np.testing.assert_allclose(stream.moments(tmp_path / "x.npy", chunk=CHUNK).mean, x.mean(0), rtol=1e-13)


def _bytes(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return os._exit, (66,)


HEADER = b"\x93NUMPY\x01\x00"
REFUSED = {
    "empty": (b"", "is not a .npy file"),
    "text": (b"1.0,2.0\n3.0,4.0\n", "is not a .npy file"),
    "zip": (b"PK\x03\x04rest", "is a .npz archive"),
    "magic alone": (b"\x93NUMPY", "cannot be read"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(50), "version 9.0"),
    "header cut": (HEADER + b"\x76\x00{'descr'", "cannot be read"),
    "no literal": (HEADER + b"\x0b\x00__import__\n", "cannot be read"),
    "objects": (_bytes(np.array([1, Bomb()], dtype=object), allow_pickle=True), "holds Python objects"),
    "complex": (_bytes(np.zeros(3, complex)), "has dtype complex128"),
    "text array": (_bytes(np.array(["a", "b"])), "has dtype <U1"),
    "structured": (_bytes(np.zeros(3, [("a", "f4")])), "expected real numbers"),
    "dates": (_bytes(np.zeros(3, "M8[s]")), "expected real numbers"),
    "long double": (_bytes(np.zeros(3, np.longdouble)), "expected real numbers"),
    "0-d": (_bytes(np.float32(3)), "is 0-dimensional"),
    "cut off": (_bytes(np.zeros((100, 3)))[:-1], "is cut off: its header promises 2,400 bytes of data, and 2,399"),
    "negative": (
        HEADER + b"\x3e\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 4), }".ljust(61) + b"\n",
        "impossible shape",
    ),
    "too much": (
        HEADER
        + b"\x4e\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9999999), }".ljust(77)
        + b"\n",
        "is cut off",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_sentence(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        npyfile.describe(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a regular file"):
        npyfile.describe("/dev/zero")
    with pytest.raises(FileNotFoundError):
        npyfile.describe(tmp_path / "nothing.npy")
    with pytest.raises(IsADirectoryError):
        npyfile.describe(tmp_path)


@pytest.mark.parametrize("bn", [BatchNorm(4), BatchNorm((100, 3), axis=(0, 1)), BatchNorm((), axis=())])
def test_other_channels_are_refused(tmp_path, bn):
    np.save(tmp_path / "x.npy", np.zeros((100, 3)))
    if bn.channels == (4,):
        with pytest.raises(ValueError, match=r"of 4 channels, but .* of shape .100, 3. has 3 along axis -1"):
            stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn)
        assert not (tmp_path / "y.npy").exists()
    else:
        stream.normalize(tmp_path / "x.npy", tmp_path / "y.npy", bn)
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), 0)


def test_shipped_data_are_what_their_readme_says():
    spectra, photographs = (npyfile.describe(data.path(name)) for name in data.NAMES)
    assert (spectra.shape, spectra.dtype) == ((250, 1047), np.float32)
    assert (photographs.shape, photographs.dtype) == ((2, 214, 320, 3), np.uint8)
    assert isinstance(stream.moments(spectra.path), Moments)
    assert (data.path("spectra.npy").parent / "README.md").is_file()
    with pytest.raises(ValueError, match="no data set"):
        data.path("other.npy")


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="the peak of a process's own memory is read from /proc"
)
def test_memory_does_not_grow_with_the_file(tmp_path):
    """The peak above the bare interpreter; VmHWM, since ru_maxrss starts at that of the parent."""
    shape = (600 * 2**20 // (4 * 64), 64)
    with (tmp_path / "x.npy").open("wb") as file:
        npyfile.write_header(file, shape, np.dtype(np.float32), False)
        file.truncate(file.tell() + 600 * 2**20)
    script = """
        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
        before = peak()
        import sys
        from numbabn.cli import main
        try:
            main(["normalize", "x.npy", "y.npy", "--quiet"])
        except SystemExit as end:
            assert not end.code, end.code
        print(peak() - before)
    """
    for _ in range(2):  # the first process may have to compile, which takes more than it is about
        (tmp_path / "y.npy").unlink(missing_ok=True)
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    assert (tmp_path / "y.npy").stat().st_size == (tmp_path / "x.npy").stat().st_size
    assert float(result.stdout) < 250
