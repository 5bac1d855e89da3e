"""Device arrays of any library go in, and come out as the same kind: without a device, as `devicelike` tells."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import devicelike
import ml_dtypes
import numpy as np
import pytest
import torch
from devicelike import WithDlpack, WithInterface, values_of

import numbabn
from numbabn import arrays, devices
from numbabn.devices import DeviceArray, Shadow, alike, dlpack, driver, libraries
from numbabn.devices.shadow import Place

X = np.random.default_rng(0).normal(3, 2, (40, 6)).astype(np.float32)
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint32, np.bool_)
KINDS = (WithInterface, WithDlpack)
engine = devicelike.engine
pytestmark = pytest.mark.usefixtures("engine")


def bits(a: Any) -> bytes:
    return np.ascontiguousarray(a).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_goes_in_and_comes_out_on_the_device(kind: Any, dtype: Any) -> None:
    x = X.astype(dtype)
    y, m = numbabn.batch_norm(kind(x))
    expected, m_ = numbabn.batch_norm(x)
    assert isinstance(y, DeviceArray)
    assert values_of(y).dtype == expected.dtype
    assert bits(values_of(y)) == bits(expected)
    assert m == m_
    assert numbabn.moments(kind(x), extra="all") == numbabn.moments(x, extra="all")


VIEWS = {
    "rows": lambda a: a[::2],
    "columns": lambda a: a[:, 1:4],
    "turned": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "broadcast": lambda a: np.broadcast_to(a[:1], (5, 6)),
    "empty": lambda a: a[:0],
    "one": lambda a: a[:1],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_strides_are_honoured(kind: Any, view: str) -> None:
    x = VIEWS[view](X)
    axis = 0 if view == "transposed" else -1
    shadow = arrays.take(kind(x), "x")[0]
    assert isinstance(shadow, Shadow)
    assert (shadow.shape, shadow.dtype) == (x.shape, x.dtype)
    if x.size:
        assert shadow.strides == x.strides
        assert shadow.ctypes.data == x.ctypes.data
    y, m = numbabn.batch_norm(kind(x), axis=axis)
    expected, m_ = numbabn.batch_norm(x, axis=axis)
    assert bits(values_of(y)) == bits(expected)
    assert m == m_
    if view == "transposed":
        assert values_of(y).shape == expected.shape
        assert y.__cuda_array_interface__["strides"] == expected.strides  # the order of x is kept


@pytest.mark.parametrize("kind", KINDS)
def test_out_in_place_and_the_way_back(kind: Any) -> None:
    x = X.copy()
    expected, m = numbabn.batch_norm(x)
    out = np.full_like(X, np.nan)
    given = kind(out)
    assert numbabn.batch_norm(kind(x), out=given)[0] is given
    assert bits(out) == bits(expected)
    z = numbabn.denormalize(kind(out), m.mean, m.var())
    np.testing.assert_allclose(values_of(z), x, rtol=1e-5)
    dy = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    dx, dgamma, dbeta = numbabn.batch_norm_backward(kind(dy), kind(x), m)
    for got, wanted in zip((values_of(dx), dgamma, dbeta), numbabn.batch_norm_backward(dy, x, m), strict=True):
        assert bits(got) == bits(wanted)
    alias = kind(x)
    assert numbabn.batch_norm(alias, out=alias)[0] is alias
    assert bits(x) == bits(expected)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_residuals_and_their_gradients(activation: Any) -> None:
    z, dy = (np.random.default_rng(k).normal(size=X.shape).astype(np.float32) for k in (1, 2))
    how: dict[str, Any] = {"activation": activation}
    y, m = numbabn.batch_norm(WithInterface(X), residual=WithInterface(z), **how)
    expected, _ = numbabn.batch_norm(X, residual=z, **how)
    assert bits(values_of(y)) == bits(expected)
    got = numbabn.batch_norm_backward(
        WithInterface(dy.astype(np.float64)), WithInterface(X), m, residual=WithInterface(z), **how
    )
    wanted = numbabn.batch_norm_backward(dy.astype(np.float64), X, m, residual=z, **how)
    for a, b in zip(got, wanted, strict=True):
        assert bits(values_of(a) if isinstance(a, DeviceArray) else a) == bits(b)


def test_picks_on_the_device() -> None:
    where, weights = X > 2, np.random.default_rng(1).integers(0, 3, 40)
    m = numbabn.moments(WithDlpack(X), where=WithInterface(where), weights=WithDlpack(weights))
    assert m == numbabn.moments(X, where=where, weights=weights)
    x = X.copy()
    x[3, 2] = np.nan
    assert numbabn.moments(WithDlpack(x), nan_policy="omit") == numbabn.moments(x, nan_policy="omit")
    with pytest.raises(ValueError, match="`x` has NaN in channel 2"):
        numbabn.moments(WithDlpack(x), nan_policy="raise")
    infinite = x.copy()
    infinite[3:5, 2] = np.inf, -np.inf
    numbabn.moments(WithDlpack(infinite), nan_policy="raise")
    with pytest.raises(ValueError, match="`x` has NaN in channel 2"):
        numbabn.moments(WithDlpack(x), where=WithDlpack(np.ones(X.shape, bool)), nan_policy="raise")
    numbabn.moments(WithDlpack(x), where=WithDlpack(np.arange(40) != 3), nan_policy="raise")


def test_parameters_are_moved_from_wherever_they_are() -> None:
    mean, var = X.mean(0), X.var(0)
    expected = bits(numbabn.normalize(X, mean, var))
    for move in (np.asarray, WithInterface, WithDlpack):
        assert bits(values_of(numbabn.normalize(WithDlpack(X), move(mean), move(var)))) == expected
    assert bits(numbabn.normalize(X, WithDlpack(mean), WithInterface(var))) == expected


def test_the_callers_stream_is_used(engine: Any) -> None:
    numbabn.moments(WithInterface(X, stream=7))
    numbabn.moments(WithInterface(X, stream=None))
    jax_like = WithDlpack(X)
    numbabn.moments(jax_like)
    assert engine.places == [("moments", 7), ("moments", driver.LEGACY), ("moments", driver.LEGACY)]
    assert jax_like.streams == [driver.LEGACY]


def test_streams_of_several_libraries_wait_for_each_other(
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(driver.Simulated, "record", lambda self, event, stream: told.append(("record", stream)))
    monkeypatch.setattr(driver.Simulated, "wait", lambda self, stream, event: told.append(("wait", stream)))
    numbabn.normalize(WithInterface(X, stream=7), 0, 1, out=WithInterface(X.copy(), stream=7))
    assert told == []
    numbabn.normalize(WithInterface(X, stream=7), 0, 1, out=WithInterface(X.copy(), stream=9))
    assert told == [("record", 9), ("wait", 7), ("record", 7), ("wait", 9)]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_torch_tensors_by_their_own_means(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("Stream", (), {"cuda_stream": 0})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    t = torch.from_numpy(X.copy()).to(getattr(torch, name)).T[1:]
    shadow = libraries.seen(t)
    assert (shadow.place.library, shadow.place.stream, shadow.dtype.name) == ("torch", driver.LEGACY, name)
    assert shadow.ctypes.data == t.data_ptr()
    assert shadow.shape == t.shape
    assert [s // shadow.itemsize for s in shadow.strides] == list(t.stride())
    y = libraries.empty_like(shadow, np.dtype(np.float32))
    given = libraries.given_back(y)
    assert isinstance(given, torch.Tensor)
    assert (given.dtype, given.shape, given.data_ptr()) == (torch.float32, t.shape, y.ctypes.data)
    with pytest.raises(TypeError, match="detach"):
        libraries.seen(torch.ones(3, requires_grad=True))
    with pytest.raises(TypeError, match="to_dense"):
        libraries.seen(torch.eye(3).to_sparse())


def test_gradients_are_of_the_callers_library(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("Stream", (), {"cuda_stream": 5})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    for given, kind in ((torch.zeros(4, 2), torch.Tensor), (WithInterface(X), DeviceArray)):
        x = libraries.seen(given)
        ways = libraries.flat_like(x, 24)
        assert (ways.shape, ways.dtype, ways.place.stream) == ((24,), np.float64, x.place.stream)
        ways.view(np.ndarray)[:] = np.arange(24)
        part = libraries.part_of(ways, 12, (2, 3))
        assert isinstance(part, kind)
        got = part.numpy() if kind is torch.Tensor else values_of(part)
        np.testing.assert_array_equal(got, np.arange(12, 18.0).reshape(2, 3))


def test_a_glance_tells_what_a_shadow_would(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("Stream", (), {"cuda_stream": 5})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.Tensor, "get_device", lambda self: 0)
    ours = DeviceArray(devices.upload(X, Place(0, 5, "numbabn")))
    other = torch.zeros(4, 2)
    for given in (torch.zeros(4, 2).T, WithInterface(X), ours):
        key, pointers, on = alike.glanced("verb", 0, given, None)
        x = libraries.seen(given)
        assert (pointers, on) == ([x.ctypes.data], x.place.stream)
        assert key == alike.glanced("verb", 0, given, None)[0] != alike.glanced("other", 0, given, None)[0]
        assert key != alike.glanced("verb", 0, other, None)[0]
        assert alike.glanced("verb", 1, given) is None
    assert alike.glanced("verb", 0, WithInterface(X, 5), ours)[2] == 5
    assert alike.glanced("verb", 0, WithInterface(X, 7), ours) is None  # on two streams
    negated = torch.zeros(3, dtype=torch.complex64).conj().imag  # memory that means its opposite
    assert negated.is_neg()
    for other in (torch.zeros(3, requires_grad=True), torch.eye(3).to_sparse(), negated, WithDlpack(X), X, 1.0):
        assert alike.glanced("verb", 0, other) is None
    assert alike.glanced("verb", 0, WithInterface(X, mask=WithInterface(X > 0))) is None
    one, its = (WithInterface(np.zeros((5, 4), np.float32)) for _ in range(2))
    twice, two = (alike.glanced("verb", 0, one, a)[0] for a in (one, its))
    assert twice != two  # one array twice is another kind of call than two that look the same
    shifted = np.zeros(21, np.float32)[1:].reshape(5, 4)
    assert alike.glanced("verb", 0, WithInterface(shifted))[0] != alike.glanced("verb", 0, one)[0]


@pytest.mark.parametrize("given", [torch.zeros(4, 2).T, WithInterface(X)], ids=["torch", "interface"])
def test_what_was_made_is_made_again(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("Stream", (), {"cuda_stream": 5}))
    x = libraries.seen(given)
    for dtype in (np.float32, np.float64):
        new = libraries.empty_like(x, dtype)
        pointer, made = alike.made_again(new)(given)
        again = libraries.seen(libraries.given_back(made))
        assert (again.ctypes.data, again.shape, again.strides, again.dtype) == (pointer, x.shape, new.strides, dtype)
    ways = libraries.flat_like(x, 24)
    pointer, made = alike.flat_again(ways)(given)
    for vector in (ways, made):
        part = libraries.seen(libraries.part_of(vector, 12, (2, 3)))
        assert (part.shape, part.dtype) == ((2, 3), np.float64)
    assert part.ctypes.data == pointer + 12 * 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_freed_and_does_not_keep_what_came_in(kind: Any) -> None:
    simulated = driver._simulated()
    gc.collect()
    before = len(simulated._kept)
    x = kind(X.copy())
    y, _ = numbabn.batch_norm(x)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None
    assert len(simulated._kept) == before + 1
    del y
    gc.collect()
    assert len(simulated._kept) == before


def test_cupy_arrays_make_their_own_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    class ndarray(WithInterface):
        """As in CuPy."""

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    ndarray.__module__ = "cupy"

    def empty_like(a: Any, dtype: Any, order: str) -> Any:
        return ndarray(np.empty_like(a.values, dtype, order))

    cupy: Any = type("cupy", (), {"cuda": type("cuda", (), {"Device": Device}), "empty_like": staticmethod(empty_like)})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    y, _ = numbabn.batch_norm(ndarray(X.T), axis=0)
    assert isinstance(y, ndarray)
    assert bits(y.values) == bits(numbabn.batch_norm(X.T, axis=0)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_a_device_array_is_exported_as_it_was_imported(dtype: Any) -> None:
    a = X.astype(dtype).T
    shadow = devices.upload(a, Place(0, 1, "numbabn"))
    ours = DeviceArray(shadow)
    assert ours.__dlpack_device__() == (2, 0)
    read = dlpack.described(ours.__dlpack__(stream=1))
    assert (read.shape, read.dtype, read.device, read.readonly) == (a.shape, a.dtype, 0, False)
    assert read.pointer == shadow.ctypes.data
    assert repr(ours) == f"DeviceArray(shape=(6, 40), dtype={a.dtype}, device='cuda:0')"
    assert bits(values_of(ours)) == bits(a)


def test_an_output_outlives_its_input() -> None:
    y = numbabn.normalize(WithInterface(X.copy()), 0, 1, eps=0)
    gc.collect()
    assert bits(values_of(y)) == bits(X)


def test_a_shadow_is_never_computed_with() -> None:
    shadow = arrays.take(WithInterface(X), "x")[0]
    for read in (
        lambda: shadow + 1,
        lambda: np.isnan(shadow),
        lambda: shadow.sum(),
        lambda: shadow.copy(),
        lambda: shadow.astype(int),
        lambda: shadow.tolist(),
        lambda: np.minimum(1, shadow.T[::2]),
    ):
        with pytest.raises(TypeError):
            read()
    assert repr(shadow[:2].T) == "<float32 array of shape (6, 2) on cuda:0>"


REFUSALS: dict[str, tuple[Any, str]] = {
    "residual on the host": (
        lambda: numbabn.normalize(WithInterface(X), 0, 1, residual=X),
        "`residual` lies on the host but `x` on cuda:0; move one",
    ),
    "out on the host": (lambda: numbabn.normalize(WithInterface(X), 0, 1, out=X), "`out` lies on the host but `x`"),
    "out on the device": (lambda: numbabn.normalize(X, 0, 1, out=WithInterface(X)), "`out` lies on cuda:0 but `x` on"),
    "where on the host": (lambda: numbabn.moments(WithInterface(X), where=X > 0), "`where` lies on the host"),
    "weights on the device": (lambda: numbabn.moments(X, weights=WithInterface(X)), "`weights` lies on cuda:0"),
    "dy on the host": (
        lambda: numbabn.batch_norm_backward(X, WithInterface(X), (0, 1)),
        "`dy` lies on the host but `x` on cuda:0",
    ),
    "another device": (
        lambda: numbabn.normalize(WithDlpack(X), 0, 1, residual=WithDlpack(X, device=1)),
        "`residual` lies on cuda:1 but `x` on cuda:0",
    ),
    "the CPU by name": (
        lambda: numbabn.moments(WithDlpack(X), backend="cpu"),
        r"`x` is a devicelike array on device cuda:0.*`x\.cpu\(\)`, or choose backend='auto'",
    ),
    "a mask": (lambda: numbabn.moments(WithInterface(X, mask=WithInterface(X > 0))), "has a mask"),
    "complex": (lambda: numbabn.moments(WithInterface(X.astype(complex))), "dtype complex128; expected real"),
    "complex DLPack": (lambda: numbabn.moments(WithDlpack(X.astype(complex))), "DLPack type code 5"),
    "a dtype for where": (lambda: numbabn.moments(WithDlpack(X), where=WithDlpack(X)), "`where` has dtype float32"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_argument_and_the_way_out(case: str) -> None:
    call, message = REFUSALS[case]
    with pytest.raises(TypeError, match=message):
        call()


def test_a_read_only_out_is_refused() -> None:
    with pytest.raises(ValueError, match="`out` is read-only"):
        numbabn.normalize(WithInterface(X), 0, 1, out=WithInterface(X.copy(), readonly=True))


def test_an_older_dlpack_and_a_used_capsule() -> None:
    assert numbabn.moments(WithDlpack(X, versions=False)) == numbabn.moments(X)
    with pytest.raises(TypeError, match="used before"):
        dlpack.described(None)


def test_ghost_batches_of_a_device_array() -> None:
    z = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    for activation in (None, "relu"):
        host, device = (numbabn.BatchNorm(6, ghost=8, activation=activation) for _ in range(2))
        expected = host(X, training=True, residual=z)
        given = WithInterface(X), WithInterface(z)
        y = device(given[0], training=True, residual=given[1])
        assert bits(values_of(y)) == bits(expected)
        assert host == device
        got, wanted = device.backward(WithInterface(z)), host.backward(z, X, residual=z)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(values_of(a) if isinstance(a, DeviceArray) else a, b)
