"""Arrays that the kernels cannot take whole: boxes of them, where they are or copied, by one call of machine code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import MEMORIES, MEMORY, Case, Memory, assert_output, draw
from hypothesis import given
from hypothesis import strategies as st
from numbabn.kernels import reference
from test_layout import check_verbs

import numbabn
from numbabn import layout
from numbabn.backends import desks, scratch
from numbabn.layout import Grid

CASES = (
    Case("rows", (43, 37), -1),
    Case("nchw", (5, 3, 9, 17), 1),
    Case("nhwc", (4, 9, 7, 5), -1),
    Case("kept-ends", (5, 60, 7), (0, 2)),
    Case("alternating", (3, 5, 4, 3, 11), (1, 3)),
    Case("none-kept", (31, 13), ()),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of a few values, so that there are many, with rests along several axes."""
    for name, size in (("PIECE", 64), ("WHOLE", 32), ("SIDE", 4)):
        monkeypatch.setattr(layout, name, size)
    monkeypatch.setattr(scratch, "FEW", 0)


@pytest.mark.usefixtures("small", "threads")
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_input(case: Case, memory: Memory) -> None:
    values = draw(case, np.float32)
    check_verbs(memory.of(values), values, case, MEMORY["c"], np.dtype(np.float32))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("out_memory", ["fortran", "last-axis-slowest", "all-reversed", "field-of-packed-record"])
@pytest.mark.parametrize("memory", ["c", "fortran", "every-second-value"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_in_another_order(case: Case, memory: str, out_memory: str) -> None:
    values = draw(case, np.float32)
    check_verbs(MEMORY[memory].of(values), values, case, MEMORY[out_memory], np.dtype(np.float32))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", ">i2", ">u4", ">i8", "i1", "?", "f2"])
@pytest.mark.parametrize("memory", ["crop", "all-reversed", "misaligned"])
def test_types_and_orders_of_bytes(memory: str, dtype: str) -> None:
    for case in CASES[:3]:
        values = draw(case, np.dtype(dtype).newbyteorder("="))
        x = MEMORY[memory].of(values.astype(dtype))
        m = numbabn.moments(x, axis=case.axis)
        _, mean, m2 = reference.moments(values, case.kept)
        np.testing.assert_allclose(m.mean, mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(m.m2, m2, rtol=1e-9)
        out = np.zeros(case.shape, ">f4")
        numbabn.normalize(x, m.mean, m.var(), axis=case.axis, out=out)
        assert_output(out.astype(np.float32), reference.normalize(values, case.kept, m.mean, m.var()))
        if x.dtype.kind == "f":
            numbabn.normalize(x, m.mean, m.var(), axis=case.axis, out=x)
            native = numbabn.normalize(values, m.mean, m.var(), axis=case.axis)
            assert np.array_equal(x.astype(values.dtype), native)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("memory", ["c", "fortran", "crop", "rows-reversed", "every-second-value"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_way_back(case: Case, memory: str) -> None:
    """Its sums and its results, with an activation, a residual and a mask beside them."""
    x, dy, residual = (draw(case, np.float64, seed) for seed in range(3))
    where = np.random.default_rng(0).random(case.shape) < 0.8
    options: dict[str, Any] = {"axis": case.axis, "activation": "relu", "gamma": 2.0, "beta": 0.5}
    y, m = numbabn.batch_norm(x, residual=residual, where=where, **options)
    expected = numbabn.batch_norm_backward(dy, x, m, residual=residual, where=where, **options)
    other = MEMORY[memory].of
    out, _ = MEMORY[memory].empty(case.shape, np.float64)
    got = numbabn.batch_norm_backward(dy, other(x), m, residual=other(residual), where=other(where), out=out, **options)
    assert got[0] is out
    again, _ = numbabn.batch_norm(other(x), residual=other(residual), where=other(where), **options)
    np.testing.assert_allclose(again, y, rtol=1e-12, atol=1e-12)
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_threads_give_the_same_bits(case: Case) -> None:
    x = MEMORY["every-second-value"].of(draw(case, np.float32))
    runs = []
    for threads in (1, 2, 5):
        with numbabn.num_threads(threads):
            y, m = numbabn.batch_norm(x, axis=case.axis)
            more = numbabn.moments(x, axis=case.axis, extra="all", weights=np.abs(x))
            runs.append((y.tobytes(), m.to_dict(), more.to_dict()))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.usefixtures("small")
def test_weights_that_begin_where_x_does() -> None:
    """A row of x, and all of it, as the weights of x: one address, other steps."""
    x = np.abs(draw(Case("", (6, 9, 50), 1), np.float64))[:, :, 3:43]
    for weights in (x[:1], x[:, :1], x[:1, :1], x):
        m = numbabn.moments(x, axis=1, weights=weights)
        count, mean, m2 = reference.moments(x, (1,), weights)
        np.testing.assert_allclose(m.count, np.broadcast_to(count, m.count.shape), rtol=1e-12)
        np.testing.assert_allclose(m.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(m.m2, m2, rtol=1e-10)


@pytest.mark.usefixtures("small")
def test_arrays_that_begin_in_one_place() -> None:
    """Every second sample of an array, and its first ones: x, residual and gradient do not take each other's steps."""
    big = draw(Case("", (12, 3, 5, 4, 90), (1, 3)), np.float64)
    x, other, options = big[::2], big[:6], {"axis": (1, 3), "activation": "relu"}
    y, m = numbabn.batch_norm(x, residual=other, **options)
    expected, n = numbabn.batch_norm(x.copy(), residual=other.copy(), **options)
    np.testing.assert_array_equal(y, expected)
    assert m == n
    for dy, of in ((other, x), (x, other)):
        m = numbabn.moments(of, axis=(1, 3))
        got = numbabn.batch_norm_backward(dy, of, m, residual=other, **options)
        expected = numbabn.batch_norm_backward(dy.copy(), of.copy(), m, residual=other.copy(), **options)
        for one, two in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


def test_a_turned_axis_is_no_reason_to_copy_much() -> None:
    """Where boxes are windows, a result, a mask or weights that are turned along what numbers them change nothing."""
    x = np.zeros((3, 4, 5, 3, 5000), np.float32)
    for out in (np.empty_like(x)[::-1], np.empty_like(x)[:, :, ::-1]):
        where = out == out
        shape = layout.canonical({"x": x, "out": out}, (1, 3), {"where": where[::-1][::-1]})
        grid = shape.grid(nested=True)
        desk = scratch.Desk(shape, grid, lambda piece: [])
        assert not desk._known, "boxes are copied"


@given(st.data())
def test_boxes_of_a_grid_are_of_the_kinds_there_are(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    grid = Grid(shape, tuple(data.draw(st.integers(1, n)) for n in shape))
    seen = np.zeros(shape, int)
    sizes = {tuple(s.stop - s.start for s in box) for box in desks.kinds_of(grid)}
    for number in range(len(grid)):
        box = grid.box(number)
        seen[box] += 1
        assert tuple(s.stop - s.start for s in box) in sizes
    assert (seen == 1).all()
    most = data.draw(st.integers(1, 50))
    for box in layout.boxes(shape, most):
        assert math.prod(s.stop - s.start for s in box) <= max(most, shape[-1] > 0)


@given(st.data())
def test_copies_there_and_back(data: st.DataObject) -> None:
    """Elements of any size, in any order of bytes, along steps of any sign, or none."""
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "<i2", ">u2", "<f4", ">f4", "<f8", ">i8"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3)))
    steps = [data.draw(st.sampled_from([1, -1, 2, -3])) for _ in shape]
    order = data.draw(st.permutations(range(len(shape))))
    room = np.zeros([abs(s) * shape[d] for s, d in zip(steps, order, strict=True)], dtype)
    room[...] = np.random.default_rng(0).integers(0, 100, room.shape)
    array = room[tuple(slice(None, None, s) for s in steps)].transpose(np.argsort(order))
    array = array[tuple(slice(0, n) for n in shape)]
    if data.draw(st.booleans()):  # the same along an axis
        array = array[:1] if data.draw(st.booleans()) else np.broadcast_to(array[:1], shape)
    grid = Grid(shape, tuple(data.draw(st.integers(1, n)) for n in shape))
    works, scratches = [], []
    for box in desks.kinds_of(grid):
        size = [s.stop - s.start for s in box]
        part = desks.part_of(array, box).shape
        order = data.draw(st.permutations(range(len(size))))
        scratch = np.empty([part[d] for d in order], dtype.newbyteorder("=")).transpose(np.argsort(order))
        scratches.append(scratch)
        works.append(desks.Work([desks.Move(array, scratch, True, False)], [], []))
    run = desks.running(grid, works)
    kinds = [tuple(s.stop - s.start for s in box) for box in desks.kinds_of(grid)]
    for number in range(len(grid)):
        run(number, number + 1)
        box = grid.box(number)
        scratch = scratches[kinds.index(tuple(s.stop - s.start for s in box))]
        assert np.array_equal(scratch, desks.part_of(array, box))
    if array.shape == shape and array.flags.writeable:
        before = array.copy()
        array[...] = 0
        for work, box in zip(works, desks.kinds_of(grid), strict=True):
            work.moves[:] = [desks.Move(array, work.moves[0].scratch, False, True)]
            work.moves[0].scratch[...] = before[box]
        desks.running(grid, works)(0, len(grid))
        for box in desks.kinds_of(grid):
            assert np.array_equal(array[box], before[box])
