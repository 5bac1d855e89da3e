"""Memory layouts of x and of out: the values come out right, and no byte beside them is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    MEMORIES,
    MEMORY,
    Case,
    Memory,
    assert_moments,
    assert_output,
    bytes_of,
    draw,
    parameters,
)
from numbabn.kernels import reference

import numbabn
from numbabn import layout

CASES = (
    Case("rows", (43, 37), -1),
    Case("channels-first", (5, 601), 0),
    Case("planes", (3, 4, 300), 1),
    Case("nchw", (5, 3, 9, 7), 1),
    Case("nhwc", (4, 9, 7, 5), -1),
    Case("kept-ends", (5, 60, 7), (0, 2)),
    Case("none-kept", (11, 13), ()),
    Case("big-rows", (5_003, 33), -1),
    Case("big-planes", (3, 20, 3_001), 1),
    Case("big-alternating", (3, 5, 41, 3, 101), (1, 3)),
)
OUTS = ("c", "fortran", "crop", "all-reversed", "misaligned", "field-of-packed-record")


def check_verbs(x: np.ndarray, values: np.ndarray, case: Case, out_memory: Memory, out_dtype: np.dtype) -> None:
    """All verbs on x, into an out between guard bands and full of rubbish."""
    mean, var, gamma, beta = parameters(case)
    before = x.tobytes()
    fresh, m = numbabn.batch_norm(x, gamma, beta, axis=case.axis)
    exact, expected = reference.batch_norm(values, case.kept, gamma, beta)
    assert_output(fresh, exact, slack=1e-9)
    assert_moments(m, expected)
    assert m == numbabn.moments(x, axis=case.axis)
    for name in ("batch_norm", "normalize"):
        out, buffer = out_memory.empty(case.shape, out_dtype)
        outside, rubbish = ~bytes_of(out, buffer), buffer.copy()
        if name == "batch_norm":
            y, m_ = numbabn.batch_norm(x, gamma, beta, axis=case.axis, out=out)
            assert_output(out, exact, slack=1e-9)
            assert m == m_
        else:
            y = numbabn.normalize(x, mean, var, gamma, beta, axis=case.axis, out=out)
            assert_output(out, reference.normalize(values, case.kept, mean, var, gamma, beta))
        assert y is out
        assert np.array_equal(buffer[outside], rubbish[outside]), "bytes beside `out` were written"
    assert x.tobytes() == before, "x was written"


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_input(case: Case, memory: Memory) -> None:
    values = draw(case, np.float32)
    check_verbs(memory.of(values), values, case, MEMORY["c"], np.dtype(np.float32))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("out_memory", OUTS)
@pytest.mark.parametrize("memory", ["c", "fortran", "crop", "rows-reversed"])
@pytest.mark.parametrize("case", CASES[::2] + CASES[-2:-1], ids=str)
def test_output(case: Case, memory: str, out_memory: str) -> None:
    values = draw(case, np.float32)
    check_verbs(MEMORY[memory].of(values), values, case, MEMORY[out_memory], np.dtype(np.float32))


@pytest.mark.parametrize(
    "dtype", [np.float16, BFLOAT16, np.float64, np.int16, np.bool_], ids=lambda t: np.dtype(t).name
)
@pytest.mark.parametrize("memory", ["fortran", "crop", "all-reversed", "misaligned", "field-of-packed-record"])
@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_dtypes(case: Case, memory: str, dtype: np.dtype) -> None:
    values = draw(case, dtype)
    result = np.dtype(np.float32) if np.dtype(dtype).kind in "ib" else np.dtype(dtype)
    check_verbs(MEMORY[memory].of(values), values, case, MEMORY[memory], result)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_place(case: Case, memory: Memory) -> None:
    values = draw(case, np.float32)
    _, _, gamma, beta = parameters(case)
    x, buffer = memory.empty(case.shape, np.float32)
    x[...] = values
    outside, rubbish = ~bytes_of(x, buffer), buffer.copy()
    y, m = numbabn.batch_norm(x, gamma, beta, axis=case.axis, out=x)
    exact, expected = reference.batch_norm(values, case.kept, gamma, beta)
    assert y is x
    assert_output(x, exact, slack=1e-9)
    assert_moments(m, expected)
    assert np.array_equal(buffer[outside], rubbish[outside])
    x[...] = values
    numbabn.normalize(x, m.mean, m.var(), gamma, beta, axis=case.axis, out=x)
    assert_output(x, exact, slack=1e-9)
    numbabn.denormalize(x, m.mean, m.var(), gamma, beta, axis=case.axis, out=x)
    np.testing.assert_allclose(x, values, rtol=0, atol=4e-5)
    assert np.array_equal(buffer[outside], rubbish[outside])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("case", [CASES[2], CASES[5], Case("rows", (30, 4, 5), -1)], ids=str)
def test_broadcast(case: Case, axis: int) -> None:
    """Stride 0 along any axis: each value counts as often as it is there."""
    one = draw(case, np.float32)
    x = np.broadcast_to(one.take([0], axis), case.shape)
    assert x.strides[axis] == 0
    check_verbs(x, x.copy(), case, MEMORY["c"], np.dtype(np.float32))


def test_broadcast_scalar() -> None:
    x = np.broadcast_to(np.float32(3), (70_001, 3))
    m = numbabn.moments(x)
    assert m.count == 70_001
    assert m.mean.tolist() == [3, 3, 3]
    assert (numbabn.batch_norm(x)[0] == 0).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[7]], ids=str)
def test_byte_order(case: Case, order: str) -> None:
    values = draw(case, np.float32)
    x = values.astype(f"{order}f4")
    check_verbs(x, values, case, MEMORY["c"], np.dtype(f"{order}f4"))
    assert numbabn.batch_norm(x, axis=case.axis)[0].dtype.isnative
    y, _ = numbabn.batch_norm(x, axis=case.axis, out=x)
    assert y is x
    assert_output(x.astype(np.float32), reference.batch_norm(values, case.kept)[0], slack=1e-9)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[7], CASES[9]], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda t: t.__name__)
def test_read_only(case: Case, dtype: type) -> None:
    x = draw(case, dtype)
    x.flags.writeable = False
    check_verbs(x, x, case, MEMORY["c"], np.dtype(dtype))


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_memory_map(tmp_path: Path, mode: str) -> None:
    case, path = CASES[7], tmp_path / "x.npy"
    values = draw(case, np.float32)
    np.save(path, values)
    x = np.load(path, mmap_mode=mode)
    assert isinstance(x, np.memmap)
    check_verbs(x, values, case, MEMORY["c"], np.dtype(np.float32))
    y, _ = numbabn.batch_norm(x)
    assert type(y) is np.ndarray
    assert np.array_equal(np.load(path), values)


def test_memory_map_as_output(tmp_path: Path) -> None:
    x = draw(CASES[7], np.float32)
    out = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, x.shape)
    y, _ = numbabn.batch_norm(x, out=out)
    assert y is out
    out.flush()
    assert np.array_equal(np.load(tmp_path / "y.npy"), numbabn.batch_norm(x)[0])


def test_field_of_a_record_array() -> None:
    record = np.zeros((300, 40), dtype=[("flag", "u1"), ("value", "f8"), ("tail", "u2")])
    record["flag"], record["tail"] = 7, 9
    values = draw(Case("", (300, 40), -1), np.float64)
    record["value"] = values
    numbabn.batch_norm(record["value"], out=record["value"])
    assert_output(record["value"].copy(), reference.batch_norm(values, (1,))[0], slack=1e-9)
    assert (record["flag"] == 7).all()
    assert (record["tail"] == 9).all()


def test_interleaved_outputs_are_not_an_overlap() -> None:
    both = np.zeros((200, 20), np.float32)
    values = draw(Case("", (200, 10), -1), np.float32)
    both[:, ::2] = values
    numbabn.batch_norm(both[:, ::2], out=both[:, 1::2])
    assert np.array_equal(both[:, ::2], values)
    assert_output(both[:, 1::2], reference.batch_norm(values, (1,))[0], slack=1e-9)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_boxes_cover_each_element_once(case: Case, memory: Memory) -> None:
    x = memory.of(np.zeros(case.shape, np.int32))
    view = layout.canonical({"x": x}, case.kept)
    grid = view.grid()
    for box in map(grid.box, range(len(grid))):
        assert view.arrays["x"][box].size > 0
        view.arrays["x"][box] += 1
    assert (x == 1).all()
    numbers = np.arange(np.prod(case.channel_shape, dtype=int)).reshape(case.channel_shape).astype(float)
    assert np.array_equal(view.from_channels(view.to_channels(numbers)), numbers)


@pytest.mark.parametrize("dtype", [np.float64, np.float16], ids=lambda t: t.__name__)
@pytest.mark.parametrize(("shape", "axis"), [((300, 4), -1), ((4, 300), 0), ((2, 20, 400), 1)], ids=str)
def test_read_only_parameters_need_no_kernels_of_their_own(shape: tuple[int, ...], axis: int, dtype: type) -> None:
    """What is read-only is not part of a kernel's signature, or a warmed-up process would compile again."""
    from numbabn.backends import cuts

    bn = numbabn.BatchNorm(shape[axis], axis=axis, gamma=2, beta=1)
    assert not bn.gamma.flags.writeable
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    x.flags.writeable = False
    bn(x, training=True)
    bn(x)
    names = [("cpu_rows", "moments"), ("cpu_planes", "moments"), ("cpu_planes", "train"), ("written", "rows")]
    known = {name: set(cuts.kernel(*name).loaded) for name in names}
    writable = x.copy()
    bn(writable, training=True)
    bn(writable)
    assert {name: set(cuts.kernel(*name).loaded) for name in names} == known
    assert any(known.values())


def test_in_place_by_another_view_of_the_same_elements() -> None:
    """The stride of an axis of one element says nothing."""
    values = draw(Case("", (8, 1, 40), -1), np.float64)
    x = values.copy()
    twin = np.lib.stride_tricks.as_strided(x, x.shape, (x.strides[0], 999, x.strides[2]))
    assert numbabn.batch_norm(x, out=twin)[0] is twin
    assert_output(x, reference.batch_norm(values, (2,))[0], slack=1e-9)
