"""State files: what is written comes back to the bit; whatever else is refused and never executed."""

import io
import json
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbabn
from numbabn import BatchNorm, StateError, state


def trained(channels=3, **options) -> BatchNorm:
    bn = BatchNorm(channels, **options)
    shape = (7, *channels) if isinstance(channels, tuple) else (7, channels)
    bn.update(np.random.default_rng(0).normal(5, 2, shape))
    return bn


BOXES = {
    "plain": {},
    "decay": {"decay": 0.99, "ddof": 1},
    "cumulative": {"momentum": None, "nonfinite": "raise", "backend": "cpu"},
    "parameters": {"gamma": [1.0, np.nan, 1e-300], "beta": -2, "eps": 0},
    "axes": {"channels": (2, 3), "axis": (1, -1)},
    "none": {"channels": 0},
}


@pytest.mark.parametrize("options", BOXES.values(), ids=BOXES)
def test_comes_back_to_the_bit(tmp_path, options):
    bn = trained(**options)
    bn.save(tmp_path / "a.npz")
    again = BatchNorm.load(str(tmp_path / "a.npz"))
    assert again == bn
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    x = np.random.default_rng(1).normal(size=(4, 2, 3) if bn.channels == (2, 3) else (4, *bn.channels))
    assert np.array_equal(again(x), bn(x), equal_nan=True)


def test_plain_numpy_reads_it_without_pickle(tmp_path):
    bn = trained()
    bn.save(tmp_path / "bn.npz")
    with np.load(tmp_path / "bn.npz", allow_pickle=False) as file:
        assert np.array_equal(file["running_mean"], bn.running_mean)
        assert json.loads(str(file["schema"]))["version"] == 1


def test_nan_and_infinity_in_the_averages_survive(tmp_path):
    bn = BatchNorm(2, nonfinite="propagate")
    bn.update([[np.nan, np.inf], [1.0, 2.0]])
    bn.save(tmp_path / "bn.npz")
    assert BatchNorm.load(tmp_path / "bn.npz") == bn


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array, allow_pickle: bool = False) -> bytes:
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=allow_pickle)
        return file.getvalue()


@pytest.fixture
def saved(tmp_path) -> Path:
    trained().save(tmp_path / "bn.npz")
    return tmp_path / "bn.npz"


def schema_with(saved: Path, **changes) -> dict[str, bytes]:
    members = members_of(saved)
    schema = json.loads(str(np.load(io.BytesIO(members["schema.npy"]))))
    schema |= changes
    return members | {"schema.npy": npy(np.array(json.dumps(schema)))}


class Bomb:
    """Leaves a file behind if anything unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_every_truncation_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    cut = tmp_path / "cut.npz"
    for n in {0, 1, 10, *range(0, len(content), 37), len(content) - 1}:
        cut.write_bytes(content[:n])
        with pytest.raises(StateError, match=r"cut\.npz"):
            BatchNorm.load(cut)


def test_no_flipped_bit_gives_another_state(saved, tmp_path):
    content, want = saved.read_bytes(), BatchNorm.load(saved)
    flipped = tmp_path / "flipped.npz"
    refused = 0
    for at in range(len(content)):
        for bit in (0, 3, 7):
            flipped.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            try:
                assert BatchNorm.load(flipped) == want  # a time stamp of the archive, say
            except StateError:
                refused += 1
    assert refused > len(content)  # of three flips at each place


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "x.npz"
    path.write_bytes(content)
    with pytest.raises(StateError):
        BatchNorm.load(path)


def test_pickles_are_refused_and_not_executed(saved, tmp_path):
    exploded = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(exploded))
    (tmp_path / "bomb.npz").write_bytes(bomb)
    boxed = npy(np.array(Bomb(exploded), dtype=object), allow_pickle=True)
    write(tmp_path / "member.npz", members_of(saved) | {"running_mean.npy": boxed})
    write(tmp_path / "schema.npz", members_of(saved) | {"schema.npy": boxed})
    write(tmp_path / "extra.npz", members_of(saved) | {"extra.npy": boxed})
    write(tmp_path / "raw.npz", members_of(saved) | {"running_mean.npy": bomb})
    for name in ("bomb", "member", "schema", "extra", "raw"):
        with pytest.raises(StateError):
            BatchNorm.load(tmp_path / f"{name}.npz")
    assert not exploded.exists()
    with pytest.raises(FileExistsError):  # the bomb is a real one
        pickle.loads(bomb), pickle.loads(bomb)


WRONG = {
    "other format": ({"format": "torch"}, "format is 'torch'"),
    "future version": ({"version": 2}, "newer numbabn"),
    "past version": ({"version": 0}, "version 0"),
    "version as text": ({"version": "1"}, "expected int"),
    "version as bool": ({"version": True}, "expected int"),
    "other kind": ({"kind": "scaler"}, "holds a 'scaler'"),
    "arrays as list": ({"arrays": []}, "expected dict"),
    "missing array": ({"arrays": {"running_mean": [3]}}, "members"),
    "no config": ({"config": {}}, "makes no sense"),
    "unknown field": ({"more": 1}, "exactly the fields"),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_schema_is_refused(saved, tmp_path, changes, says):
    with pytest.raises(StateError, match=says):
        BatchNorm.load(write(tmp_path / "wrong.npz", schema_with(saved, **changes)))


CONFIG = {
    "axis": "x",
    "channels": [4],
    "momentum": 2.0,
    "eps": -1.0,
    "ddof": 5,
    "nonfinite": "explode",
    "backend": "tpu",
    "num_batches": -1,
    "unknown": 1,
}


@pytest.mark.parametrize(("name", "value"), CONFIG.items(), ids=CONFIG)
def test_a_wrong_option_is_refused(saved, tmp_path, name, value):
    members = members_of(saved)
    config = json.loads(str(np.load(io.BytesIO(members["schema.npy"]))))["config"] | {name: value}
    with pytest.raises(StateError, match="makes no sense"):
        BatchNorm.load(write(tmp_path / "wrong.npz", schema_with(saved, config=config)))


ARRAYS = {
    "shape": np.zeros(4),
    "dtype": np.zeros(3, dtype=np.float32),
    "text": np.array(["a", "b", "c"]),
    "objects": np.array([1, None, 2], dtype=object),
    "negative": np.array([1.0, -1.0, 1.0]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_wrong_array_is_refused(saved, tmp_path, array):
    members = members_of(saved) | {"running_var.npy": npy(array, allow_pickle=array.dtype == object)}
    with pytest.raises(StateError):
        BatchNorm.load(write(tmp_path / "wrong.npz", members))


def test_other_files_are_refused(saved, tmp_path):
    members = members_of(saved)
    write(tmp_path / "deflated.npz", members, zipfile.ZIP_DEFLATED)
    write(tmp_path / "missing.npz", {k: v for k, v in members.items() if k != "count.npy"})
    write(tmp_path / "longer.npz", members | {"count.npy": members["count.npy"] + b"x"})
    write(tmp_path / "empty.npz", {})
    np.savez(tmp_path / "plain.npz", running_mean=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.txt").write_text("hello")
    for name in ("deflated.npz", "missing.npz", "longer.npz", "empty.npz", "plain.npz", "array.npy", "text.txt"):
        with pytest.raises(StateError, match=name):
            BatchNorm.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        BatchNorm.load(tmp_path / "nowhere.npz")
    with pytest.raises(IsADirectoryError):
        BatchNorm.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def broken(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        trained(4).save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_an_interrupted_block_leaves_nothing(tmp_path):
    def interrupted():
        with state.atomic(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_save_replaces_and_follows_the_umask(saved):
    before = os.umask(0o027)
    try:
        trained(5).save(saved)
    finally:
        os.umask(before)
    assert BatchNorm.load(saved).channels == (5,)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640


def test_pickle_of_the_object_works():
    bn = trained(momentum=None, gamma=2.0)
    again = pickle.loads(pickle.dumps(bn))
    assert again == bn
    again.update(np.ones((2, 3)))
    assert again.num_batches == 2
    assert bn.num_batches == 1


def test_load_gives_an_object_that_learns_on(tmp_path):
    x = np.random.default_rng(3).normal(size=(10, 3))
    whole, first = BatchNorm(3, momentum=None), BatchNorm(3, momentum=None)
    whole.update(x[:4])
    first.update(x[:4])
    first.save(tmp_path / "s.npz")
    second = BatchNorm.load(tmp_path / "s.npz")
    whole.update(x[4:])
    second.update(x[4:])
    assert second == whole
    np.testing.assert_allclose(second.running_mean, numbabn.moments(x).mean, rtol=1e-13, atol=1e-15)
