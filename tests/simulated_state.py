"""A BatchNorm on a device beside one on the host, with the kernels that will run there, under numba's simulator:
``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python -m pytest tests/simulated_state.py``.

Few values and small blocks: every thread is a thread of Python.
"""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any

import devicelike
import numpy as np
import pytest
from devicelike import WithDlpack, WithInterface, values_of

import numbabn
from numbabn.backends import cuda_cuts, device_state
from numbabn.devices import DeviceArray, driver
from numbabn.ondevice import OnDevice
from numbabn.ondevice.back import WayBack

RULES = ("exponential", "mixture", "debiased", "debiased-mixture", "equal", "cumulative")
RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(3, 2, (n, 3)).astype(np.float32) for n in (7, 4, 1)]


@pytest.fixture(autouse=True, params=["whole channels", "parts of them"])
def small_blocks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    sizes = {"COLS": 4, "SUMS": 8, "WRITES": 8, "MANY": 5, "JOIN": 8, "BLOCKS": 12, "EACH": 4, "STEPS": 5}
    if request.param == "parts of them":
        sizes |= {"HELD": 0, "FEW": 0}
    for name, value in sizes.items():
        monkeypatch.setattr(cuda_cuts, name, value)
    for name in ("THREADS", "LEARNERS"):
        monkeypatch.setattr(device_state, name, 2)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every wait of the host for the device."""
    told: list[int] = []
    monkeypatch.setattr(driver.Simulated, "synchronize", lambda self, stream: told.append(stream))
    return told


def assert_same(device: Any, host: Any) -> None:
    """The same state, but for the rounding of another order."""
    mine, its = device.state_dict(), host.state_dict()
    assert mine.keys() == its.keys()
    for name, value in its.items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-12, atol=1e-13, err_msg=name)


def close(got: Any, wanted: Any, ulps: int = 4) -> None:
    got = values_of(got) if isinstance(got, DeviceArray) else got
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=ulps * np.finfo(wanted.dtype).eps, atol=1e-6 * ulps)


@pytest.mark.parametrize("average", RULES)
@pytest.mark.parametrize("ddof", [0, 1])
def test_learning_on_the_device_is_that_of_the_host(average: str, ddof: int, waits: list[int]) -> None:
    how: dict[str, Any] = {"average": average, "ddof": ddof, "gamma": [1.0, 2.0, 0.5], "beta": 0.5}
    if average not in ("equal", "cumulative"):
        how["momentum"] = 0.3
    host = numbabn.BatchNorm(3, **how)
    device = numbabn.BatchNorm(3, **how).to("cuda")
    for x in BATCHES:
        close_y = device(WithInterface(x), training=True), host(x, training=True)
        assert waits == []
        close(*close_y)
        waits.clear()
    assert_same(device, host)
    assert waits
    waits.clear()
    y = device(WithInterface(BATCHES[0]))
    assert waits == []
    close(y, host(BATCHES[0]))
    assert device.num_batches == 3


def test_the_first_reading_waits_and_the_next_does_not(waits: list[int]) -> None:
    bn = numbabn.BatchNorm(3).to("cuda")
    bn(WithInterface(BATCHES[0]), training=True)
    assert waits == []
    mean = bn.running_mean
    assert len(waits) == 2  # the averages, and the number of batches
    assert bn.running_mean is mean
    assert (bn.num_batches, len(waits)) == (1, 2)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # compiled kernels never warn; NumPy's scalars do
@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_what_is_not_finite(nonfinite: str) -> None:
    host, device = numbabn.BatchNorm(3, nonfinite=nonfinite), numbabn.BatchNorm(3, nonfinite=nonfinite).to("cuda")
    one, every = BATCHES[0].copy(), np.full((4, 3), np.nan, np.float32)
    one[2, 1] = np.inf
    for x in (BATCHES[1], one, every, BATCHES[0]):
        device(WithInterface(x), training=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            host(x, training=True)
    assert_same(device, host)
    assert device.num_batches == (3 if nonfinite == "skip" else 4)


def test_picks_and_omitted_values() -> None:
    x = BATCHES[0].copy()
    x[1, 1] = np.nan
    where, weights = np.array([1, 0, 1, 1, 1, 0, 1], bool), RNG.integers(0, 3, 7)
    for how in ({"where": where}, {"weights": weights}, {"where": np.zeros(7, bool)}):
        host, device = (numbabn.BatchNorm(3, nan_policy="omit") for _ in range(2))
        device = device.to("cuda")
        y = device(WithInterface(x), training=True, **{name: WithInterface(a) for name, a in how.items()})
        close(y, host(x, training=True, **how))
        assert_same(device, host)
    assert device.num_batches == 0


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_way_back(activation: Any, residual: bool, waits: list[int]) -> None:
    x, dy, z = BATCHES[0], *(RNG.normal(size=(7, 3)).astype(np.float32) for _ in range(2))
    how: dict[str, Any] = {"gamma": [1.0, 2.0, 0.5], "beta": [0.5, 0, 1], "activation": activation}
    host, device = numbabn.BatchNorm(3, **how), numbabn.BatchNorm(3, **how).to("cuda")
    given = WithInterface(x), WithInterface(z), WithInterface(dy)
    device(given[0], training=True, residual=given[1] if residual else None)
    host(x, training=True, residual=z if residual else None)
    got, wanted = device.backward(given[2]), host.backward(dy)
    assert len(got) == len(wanted) == 3 + residual
    assert waits == []
    for a, b in zip(got, wanted, strict=True):
        assert isinstance(a, DeviceArray)
        close(a, b, 64)


def test_the_way_back_needs_the_input() -> None:
    bn = numbabn.BatchNorm(3).to("cuda")
    with pytest.raises(ValueError, match="no training call"):
        bn.backward(WithInterface(BATCHES[0]))
    x = WithInterface(BATCHES[0].copy())
    bn(x, training=True, out=x)
    with pytest.raises(ValueError, match="overwritten"):
        bn.backward(WithInterface(BATCHES[0]))
    dx, dgamma, dbeta = bn.backward(WithInterface(BATCHES[0]), WithInterface(BATCHES[0]))
    assert values_of(dgamma).shape == values_of(dbeta).shape == (3,)
    strided = np.asfortranarray(BATCHES[0])  # dy lies otherwise than x: the general way
    np.testing.assert_allclose(
        values_of(bn.backward(WithInterface(strided), WithInterface(BATCHES[0]))[0]), values_of(dx), rtol=1e-5
    )
    assert bn.backward(BATCHES[0], BATCHES[0])[0].shape == (7, 3)  # on the host
    dx, _, _ = bn.backward(WithInterface(BATCHES[0]), WithInterface(BATCHES[0]), training=False)
    assert isinstance(dx, DeviceArray)


OTHER_WAYS: dict[str, dict[str, Any]] = {
    "window": {"average": "window", "window": 2},
    "renorm": {"renorm": True},
    "ghost": {"ghost": 2},
    "raise": {"nonfinite": "raise"},
    "running": {"normalize_by": "running"},
    "center": {"constant": "center"},
    "schedule": {"momentum": (0.5, 0.25)},
    "callable": {"momentum": lambda n: 1 / (n + 1), "nonfinite": "propagate"},
    "sequence": {"momentum": (0.5, 0.25), "nonfinite": "propagate"},
    "adjustment": {"adjustment": lambda shape: (2.0, 1.0)},
}


@pytest.mark.parametrize("case", OTHER_WAYS)
def test_every_option_works_some_with_the_host_in_between(case: str) -> None:
    host, device = numbabn.BatchNorm(3, **OTHER_WAYS[case]), numbabn.BatchNorm(3, **OTHER_WAYS[case]).to("cuda")
    for x in BATCHES[:2]:
        close(device(WithInterface(x), training=True), host(x, training=True), 16)
    assert_same(device, host)
    close(device(WithInterface(BATCHES[2])), host(BATCHES[2]), 16)


def test_host_arrays_work_too_and_the_state_goes_over() -> None:
    host, device = numbabn.BatchNorm(3), numbabn.BatchNorm(3).to("cuda")
    for bn in (host, device):
        bn(BATCHES[0], training=True)
        bn.update(BATCHES[1])
    assert device == host
    close(device(WithInterface(BATCHES[2])), host(BATCHES[2]))
    assert type(device(BATCHES[2])) is np.ndarray
    device.reset()
    host.reset()
    assert device == host


def test_there_and_back_saved_loaded_merged_copied_and_pickled(tmp_path: Path) -> None:
    host = numbabn.BatchNorm(3, gamma=[1.0, 2, 3], average="cumulative")
    host(BATCHES[0], training=True)
    device = host.to("cuda")
    assert isinstance(device, OnDevice)
    assert isinstance(device, numbabn.BatchNorm)
    assert device == host
    assert device.to("cuda") is device.to("cuda:0") is device
    assert type(device.to("cpu")) is numbabn.BatchNorm
    device(WithInterface(BATCHES[1]), training=True)
    assert device != host  # it is independent
    host.update(BATCHES[1])
    assert_same(device, host)
    device.save(tmp_path / "device.npz")
    assert numbabn.BatchNorm.load(tmp_path / "device.npz") == device == device.to("cpu")
    assert pickle.loads(pickle.dumps(device)) == device
    for twin in (device.copy(), copy.copy(device), copy.deepcopy(device)):
        assert isinstance(twin, OnDevice)
        assert twin == device
        twin(WithInterface(BATCHES[2]), training=True)
        assert twin != device
    assert device.copy(eps=0.5).eps == 0.5
    other = numbabn.BatchNorm(3, average="cumulative")
    other(BATCHES[2], training=True)
    assert device.merge(other) is device
    host.merge(other)
    assert_same(device, host)
    np.testing.assert_allclose(
        numbabn.BatchNorm(3, average="cumulative").merge(device).running_var, host.running_var, rtol=1e-12
    )
    device.load_state_dict(other.state_dict())
    assert device == other
    assert " on cuda:0: 1 batch" in repr(device)


def test_parameters_given_on_the_device_stay_there(waits: list[int]) -> None:
    device = numbabn.BatchNorm(3).to("cuda")
    gamma, beta = np.array([1, 2, 3], np.float32), np.array([0.5, 0, 1])
    device.gamma, device.beta = WithInterface(gamma), WithDlpack(beta)
    assert waits == []
    y = device(WithInterface(BATCHES[0]), training=True)
    assert waits == []
    close(y, numbabn.BatchNorm(3, gamma=gamma, beta=beta)(BATCHES[0], training=True))
    assert device.gamma.tolist() == [1, 2, 3]
    device.gamma = None
    device.beta = 2
    close(device(WithInterface(BATCHES[0]), training=True), numbabn.BatchNorm(3, beta=2)(BATCHES[0], training=True))
    with pytest.raises(ValueError, match="`gamma` has shape"):
        device.gamma = WithInterface(np.ones(4))


def test_several_channel_axes_and_turned_arrays() -> None:
    x = RNG.normal(size=(2, 3, 4))
    for view in (x, x.transpose(0, 2, 1).copy().transpose(0, 2, 1), x[:, ::-1]):
        host, device = (numbabn.BatchNorm((3, 4), axis=(1, 2)) for _ in range(2))
        device = device.to("cuda")
        close(device(WithInterface(view), training=True), host(view, training=True))
        assert_same(device, host)


def test_streams_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    bn = numbabn.BatchNorm(3).to("cuda")
    bn(WithInterface(BATCHES[1], stream=7), training=True)
    monkeypatch.setattr(driver.Simulated, "wait", lambda self, stream, event: told.append(("wait", stream)))
    bn(WithInterface(BATCHES[1], stream=7), training=True)
    assert told == []
    bn(WithInterface(BATCHES[1], stream=9))
    assert told == [("wait", 9)]


REFUSALS: dict[str, tuple[type[Exception], Any, str]] = {
    "no such device": (numbabn.BackendUnavailableError, lambda bn: bn.to("cuda:7"), "no device 7: the last one is 0"),
    "not a device": (ValueError, lambda bn: bn.to("gpu"), "expected 'cpu', 'cuda', or 'cuda:1'"),
    "a number": (TypeError, lambda bn: bn.to(0), "`device` is 0; expected"),
    "elsewhere": (
        ValueError,
        lambda bn: bn.to("cuda")(WithDlpack(BATCHES[0], device=1), training=True),
        r"`x` lies on cuda:1 but this BatchNorm on cuda:0; .*bn\.to\('cuda:1'\)",
    ),
    "channels": (ValueError, lambda bn: bn.to("cuda")(WithInterface(BATCHES[0].T)), "3 channels but `x` has 7"),
    "the CPU by name": (ValueError, lambda bn: numbabn.BatchNorm(3, backend="cpu").to("cuda"), "backend='cpu'"),
    "residual": (
        TypeError,
        lambda bn: bn.to("cuda")(WithInterface(BATCHES[0]), residual=BATCHES[0]),
        "`residual` lies on the host",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    kind, call, message = REFUSALS[case]
    bn = numbabn.BatchNorm(3)
    before = bn.copy()
    with pytest.raises(kind, match=message):
        call(bn)
    assert bn == before


assert devicelike  # its import comes before numba's


@pytest.mark.parametrize("how", ["new", "out", "in place", "residual"])
def test_a_call_like_one_before_does_as_that(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other arrays, after the parameters have changed, and on arrays that are not alike."""
    from numbabn.ondevice import again

    found: list[bool] = []
    made = again.Plans.made
    monkeypatch.setattr(again.Plans, "made", lambda *a: (lambda f: found.append(f is not None) or f)(made(*a)))
    options: dict[str, Any] = {
        "gamma": [1.0, 2.0, 0.5],
        "beta": 0.5,
        "activation": "relu" if how == "residual" else None,
    }
    host = numbabn.BatchNorm(3, **options)
    device = numbabn.BatchNorm(3, **options).to("cuda")

    def step(rows: int, training: bool, order: str = "C") -> None:
        x, z = (np.asarray(RNG.normal(3, 2, (rows, 3)), np.float32, order=order) for _ in range(2))
        more = {"residual": z} if how == "residual" else {}
        there = {"residual": WithInterface(z)} if how == "residual" else {}
        wanted, given = host(x, training=training, **more), WithInterface(x.copy(order))
        if how in ("out", "in place"):
            there["out"] = given if how == "in place" else WithInterface(np.full_like(x, np.nan))
        y = device(given, training=training, **there)
        close(y if how in ("new", "residual") else y.values, wanted)
        if training and how != "in place":
            g = RNG.normal(size=x.shape).astype(np.float32)
            so_far = len(found)
            for a, b in zip(device.backward(WithInterface(g)), host.backward(g, x, **more), strict=True):
                close(a, b, 64)
            back.extend(found[so_far:])
            del found[so_far:]

    back: list[bool] = []
    for _ in range(3):
        step(7, True)
    assert found == [True, True]
    assert back == ([] if how == "in place" else [False, True, True])
    found.clear()
    step(7, False), step(7, False), step(7, False)
    assert found == [False, True, True]
    device.gamma = host.gamma = [2.0, 1.0, 1.0]
    step(7, True), step(7, False)
    found.clear()
    with monkeypatch.context() as forbidden:  # the averages are folded as before, too
        forbidden.delattr(OnDevice, "_infer")
        step(7, True), step(7, False)
    assert found == [True, True]
    step(5, True), step(7, True, "F"), step(5, True)
    assert_same(device, host)


def test_what_is_remembered_keeps_no_array_alive_and_is_not_taken_for_another() -> None:
    bn = numbabn.BatchNorm(3).to("cuda")
    memory = np.zeros((9, 3), np.float32)
    gone = []
    for _ in range(2):
        x, out = WithInterface(BATCHES[0].copy()), WithInterface(np.empty_like(BATCHES[0]))
        bn(x, training=True, out=out)
        gone += [weakref.ref(x.values), weakref.ref(out.values)]
        del x, out
    gc.collect()
    assert [g() for g in gone] == [None] * 4
    with pytest.raises(ValueError, match="`out` overlaps `x`"):
        bn(WithInterface(memory[:7]), training=True, out=WithInterface(memory[2:]))
    with pytest.raises(TypeError, match="`out` lies on the host"):
        bn(WithInterface(BATCHES[0]), training=True, out=BATCHES[0].copy())
    with pytest.raises(ValueError, match="read-only"):
        bn(WithInterface(BATCHES[0]), training=True, out=WithInterface(BATCHES[0].copy(), readonly=True))
    with pytest.raises(TypeError, match="cuda:1"):
        bn(WithInterface(BATCHES[0]), training=True, out=WithDlpack(BATCHES[0].copy(), device=1))
    with numbabn.backend("cpu"), pytest.raises(TypeError, match="CPU backend"):
        bn(WithInterface(BATCHES[0]), training=True)
    assert bn.num_batches == 2


def halves(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that share no element, but whose rows lie in turn."""
    return of[:, :3], of[:, 3:]


@pytest.mark.parametrize("with_what", ["out", "residual", "dy"])
def test_what_was_done_with_halves_of_an_array_is_not_done_with_others(with_what: str) -> None:
    host, device = numbabn.BatchNorm(3), numbabn.BatchNorm(3).to("cuda")
    one, other, third = (RNG.normal(size=(5, 6)).astype(np.float32) for _ in range(3))
    untouched = other[:, 3:].copy()
    for x, z in (halves(one), (other[:, :3], third[:, 3:])):
        before = [a.copy() for a in (x, z)]
        if with_what == "out":
            device(WithInterface(x), training=True, out=WithInterface(z))
            close(z, host(before[0], training=True))
            np.testing.assert_array_equal(x, before[0])
            continue
        residual = {"residual": z} if with_what == "residual" else {}
        there = WithInterface(x)
        y = device(there, training=True, **{name: WithInterface(a) for name, a in residual.items()})
        close(y, host(x, training=True, **residual))
        if with_what == "dy":
            for a, b in zip(device.backward(WithInterface(z), there), host.backward(z, x), strict=True):
                close(a, b, 64)
    np.testing.assert_array_equal(other[:, 3:], untouched)


@pytest.mark.parametrize("into", ["new", "out", "dy", "x"])
@pytest.mark.parametrize("residual", [False, True])
def test_a_way_back_like_one_before_does_as_that(into: str, residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"gamma": [1.0, 2.0, 0.5], "beta": 0.5, "activation": "relu" if residual else None}
    host = numbabn.BatchNorm(3, **options)
    device = numbabn.BatchNorm(3, **options).to("cuda")
    kept: list[Any] = []

    def train() -> Any:
        x, z = RNG.normal(3, 2, (2, 7, 3)).astype(np.float32)
        kept[:] = WithInterface(x.copy()), WithInterface(z)
        host(x, training=True, residual=z if residual else None)
        device(kept[0], training=True, residual=kept[1] if residual else None)
        return x, z

    def back(x: Any, z: Any, stream: int = 7) -> None:
        g = RNG.normal(size=x.shape).astype(np.float32)
        wanted = host.backward(g, x, residual=z if residual else None)
        x_, dy = WithInterface(x.copy(), stream), WithInterface(g.copy(), stream)
        out = {"new": None, "out": WithInterface(np.full_like(x, np.nan), stream), "dy": dy, "x": x_}[into]
        z_ = WithInterface(z, stream) if residual else None
        dx, *others = device.backward(dy, x_, residual=z_, out=out)
        if out is not None:
            assert dx is out
            dx = dx.values
        for a, b in zip((dx, *others), wanted, strict=True):
            close(a, b, 64)

    batch = train()
    back(*batch), back(*batch)
    with monkeypatch.context() as forbidden:
        forbidden.delattr(WayBack, "_way_back")
        back(*batch)
        back(*batch, stream=9)
        batch = train()
        back(*batch)
    device.gamma = host.gamma = [2.0, 1.0, 1.0]
    back(*batch)  # through the call before, by its own gamma
    batch = train()
    back(*batch), back(*batch)  # by the new one, though the arrays are alike


def test_a_way_back_like_one_before_is_refused_as_the_first() -> None:
    bn = numbabn.BatchNorm(3).to("cuda")
    x, dy = WithInterface(BATCHES[0].copy()), WithInterface(BATCHES[0].copy())
    bn(x, training=True)
    for _ in range(2):
        bn.backward(dy)
        bn.backward(dy, x, out=WithInterface(BATCHES[0].copy()))
    memory = np.zeros((9, 3), np.float32)
    with pytest.raises(ValueError, match="`out` overlaps `dy`"):
        bn.backward(WithInterface(memory[:7]), x, out=WithInterface(memory[2:]))
    with pytest.raises(TypeError, match="`out` lies on the host"):
        bn.backward(dy, x, out=BATCHES[0].copy())
    with pytest.raises(ValueError, match="`dy` has shape"):
        bn.backward(WithInterface(BATCHES[1]), x)
    with pytest.raises(ValueError, match=r"`x` lies on cuda:1 but this BatchNorm on cuda:0"):
        bn.backward(WithDlpack(BATCHES[0], device=1), WithDlpack(BATCHES[0], device=1))
    with numbabn.backend("cpu"), pytest.raises(TypeError, match="CPU backend"):
        bn.backward(dy, x)
    del x
    gc.collect()
    with pytest.raises(ValueError, match="no longer exists"):
        bn.backward(dy)
    x = WithInterface(BATCHES[0].copy())
    bn(x, training=True, out=x)
    with pytest.raises(ValueError, match="overwritten"):
        bn.backward(dy)


def test_many_kinds_of_calls() -> None:
    host, device = numbabn.BatchNorm(3), numbabn.BatchNorm(3).to("cuda")
    for n in (*range(1, 11), 1, 10):
        x = RNG.normal(size=(n, 3)).astype(np.float32)
        close(device(WithInterface(x), training=True), host(x, training=True), 64)
    assert_same(device, host)
