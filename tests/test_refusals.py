"""Bad input of any kind: the right exception, a sentence that names the argument, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.exceptions import AxisError

import numbabn

X = np.arange(24.0).reshape(6, 4)
OUT = np.full((6, 4), 7.0)
ONES = np.ones(4)


class Opaque:
    """Something that is no array at all."""


def read_only() -> np.ndarray:
    out = np.zeros((6, 4))
    out.flags.writeable = False
    return out


def wide_broadcast() -> np.ndarray:
    return np.lib.stride_tricks.as_strided(np.zeros(4), (6, 4), (0, 8))


def overlapping_itself() -> np.ndarray:
    return np.lib.stride_tricks.as_strided(np.zeros(100), (6, 4), (16, 8))


BAD_X: dict[str, tuple[Any, type[Exception], str]] = {
    "object": (np.array([[1, None]], dtype=object), TypeError, "`x` has dtype object"),
    "complex": (np.ones((3, 4), complex), TypeError, "`x` has dtype complex128"),
    "complex-list": ([[1j, 2]], TypeError, "`x` has dtype complex128"),
    "string": (np.array([["a", "b"]]), TypeError, "`x` has dtype <U1"),
    "bytes": (np.array([[b"a"]]), TypeError, "`x` has dtype"),
    "datetime": (np.zeros((2, 2), "M8[s]"), TypeError, "`x` has dtype datetime64"),
    "timedelta": (np.zeros((2, 2), "m8[s]"), TypeError, "`x` has dtype timedelta64"),
    "structured": (np.zeros(4, [("a", float)]), TypeError, "`x` has dtype"),
    "longdouble": (np.ones((2, 2), np.longdouble), TypeError, "`x` has dtype"),
    "text": ("1 2 3", TypeError, "`x` is str"),
    "dict": ({"a": 1}, TypeError, "`x` is dict"),
    "none": (None, TypeError, "`x` is NoneType"),
    "set": ({1.0, 2.0}, TypeError, "`x` is set"),
    "generator": ((i for i in range(3)), TypeError, "`x` is generator"),
    "opaque": (Opaque(), TypeError, "`x` is Opaque"),
    "ragged": ([[1, 2], [3]], ValueError, "`x` is not a rectangular array"),
    "mixed-list": ([[1.0, "a"]], TypeError, "`x` has dtype"),
    "masked": (np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), TypeError, "`x` is a masked array"),
    "matrix": (np.ones((2, 2)).view(np.matrix), TypeError, r"`x` is an np\.matrix"),
    "0-d": (np.array(3.0), ValueError, "`x` is 0-dimensional"),
    "number": (3.0, ValueError, "`x` is 0-dimensional"),
}


@pytest.mark.parametrize("name", BAD_X)
def test_bad_x(name: str) -> None:
    x, error, sentence = BAD_X[name]
    out = np.full((2, 2), 7.0)
    bn = numbabn.BatchNorm(2)
    before = bn.copy()
    calls: list[Callable[[], Any]] = [
        lambda: numbabn.moments(x),
        lambda: numbabn.normalize(x, 0.0, 1.0, out=out),
        lambda: numbabn.batch_norm(x, out=out),
        lambda: bn(x, out=out),
        lambda: bn(x, training=True, out=out),
        lambda: bn.update(x),
    ]
    for call in calls:
        with pytest.raises(error, match=sentence):
            call()
    with pytest.raises(error, match=sentence.replace("`x`", "`y`")):
        numbabn.denormalize(x, 0.0, 1.0, out=out)
    assert (out == 7).all()
    assert bn == before


BAD_AXIS: dict[str, tuple[Any, type[Exception]]] = {
    "too-high": (2, AxisError),
    "too-low": (-3, AxisError),
    "in-a-tuple": ((0, 5), AxisError),
    "twice": ((0, -2), ValueError),
    "float": (1.0, TypeError),
    "text": ("channels_last", TypeError),
    "none": (None, TypeError),
    "bool": (True, TypeError),
    "numpy-bool": (np.True_, TypeError),
    "nested": (((0,),), TypeError),
}


@pytest.mark.parametrize("name", BAD_AXIS)
def test_bad_axis(name: str) -> None:
    axis, error = BAD_AXIS[name]
    out = OUT.copy()
    for call in (
        lambda: numbabn.moments(X, axis=axis),
        lambda: numbabn.normalize(X, 0.0, 1.0, axis=axis, out=out),
        lambda: numbabn.denormalize(X, 0.0, 1.0, axis=axis, out=out),
        lambda: numbabn.batch_norm(X, axis=axis, out=out),
    ):
        with pytest.raises(error, match="`axis` is"):
            call()
    assert (out == 7).all()


BAD_OUT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "list": (lambda: [[0.0] * 4] * 6, TypeError, "`out` is of type list"),
    "tuple": (lambda: ((0.0,) * 4,) * 6, TypeError, "`out`"),
    "number": (lambda: 3.0, (TypeError, ValueError), "`out`"),
    "text": (lambda: "out", TypeError, "`out` is of type str"),
    "opaque": (Opaque, TypeError, "`out` is of type Opaque"),
    "integer": (lambda: np.zeros((6, 4), int), TypeError, "`out` has dtype int64"),
    "bool": (lambda: np.zeros((6, 4), bool), TypeError, "`out` has dtype bool"),
    "complex": (lambda: np.zeros((6, 4), complex), TypeError, "`out` has dtype complex128"),
    "object": (lambda: np.zeros((6, 4), object), TypeError, "`out` has dtype object"),
    "longdouble": (lambda: np.zeros((6, 4), np.longdouble), TypeError, "`out` has dtype"),
    "structured": (lambda: np.zeros((6, 4), [("a", "f8")]), TypeError, "`out` has dtype"),
    "masked": (lambda: np.ma.zeros((6, 4)), TypeError, "`out` is a masked array"),
    "matrix": (lambda: np.zeros((6, 4)).view(np.matrix), TypeError, "`out` is an np.matrix"),
    "transposed": (lambda: np.zeros((4, 6)), ValueError, r"`out` has shape \(4, 6\) but `x` has shape \(6, 4\)"),
    "too-many-dims": (lambda: np.zeros((1, 6, 4)), ValueError, "`out` has shape"),
    "read-only": (read_only, ValueError, "`out` is read-only"),
    "broadcast": (wide_broadcast, ValueError, "`out` holds several elements at one place"),
    "overlaps-itself": (overlapping_itself, ValueError, "`out` holds several elements at one place"),
}


@pytest.mark.parametrize("name", BAD_OUT)
def test_bad_out(name: str) -> None:
    make, error, sentence = BAD_OUT[name]
    out, x = make(), X.copy()
    bn = numbabn.BatchNorm(4)
    before, bits = bn.copy(), out.tobytes() if isinstance(out, np.ndarray) else None
    for call in (
        lambda: numbabn.normalize(x, 0.0, 1.0, out=out),
        lambda: numbabn.batch_norm(x, out=out),
        lambda: bn(x, out=out),
        lambda: bn(x, training=True, out=out),
    ):
        with pytest.raises(error, match=sentence):
            call()
    with pytest.raises(error, match=sentence.replace("`x`", "`y`")):
        numbabn.denormalize(x, 0.0, 1.0, out=out)
    assert np.array_equal(x, X)
    assert bits is None or out.tobytes() == bits
    assert bn == before


OVERLAPS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "next-row": lambda b: (b[:-1], b[1:]),
    "row-before": lambda b: (b[1:], b[:-1]),
    "next-value": lambda b: (b.reshape(-1)[:-1], b.reshape(-1)[1:]),
    "reversed": lambda b: (b, b[::-1]),
    "transposed": lambda b: (b, b.T),
    "another-dtype": lambda b: (b, b.view(np.float32)[:, ::2]),
    "half-a-value-on": lambda b: (b.reshape(-1)[:-1], np.ndarray(63, float, b.data, 4)),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlapping_out(name: str) -> None:
    base = np.random.default_rng(0).normal(size=(8, 8))
    x, out = OVERLAPS[name](base)
    bn = numbabn.BatchNorm(x.shape[-1])
    before, bits = bn.copy(), base.tobytes()
    for call in (
        lambda: numbabn.normalize(x, 0.0, 1.0, out=out),
        lambda: numbabn.batch_norm(x, out=out),
        lambda: bn(x, out=out),
        lambda: bn(x, training=True, out=out),
    ):
        with pytest.raises(ValueError, match="`out` overlaps `x`"):
            call()
    with pytest.raises(ValueError, match="`out` overlaps `y`"):
        numbabn.denormalize(x, 0.0, 1.0, out=out)
    assert base.tobytes() == bits
    assert bn == before


def test_overlap_that_is_too_hard_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NumPy gives up on the question, the answer is the safe one."""

    def give_up(*args: Any, **how: Any) -> bool:
        raise np.exceptions.TooHardError("Exceeded max_work")

    base = np.zeros((6, 8))
    numbabn.batch_norm(base[:, ::2], out=base[:, 1::2])
    monkeypatch.setattr(np, "shares_memory", give_up)
    with pytest.raises(ValueError, match="`out` overlaps `x`"):
        numbabn.batch_norm(base[:, ::2], out=base[:, 1::2])
    numbabn.batch_norm(base, out=np.empty((6, 8)))


class Copies:
    """Gives a copy of its values: what is written into that would be lost."""

    def __init__(self) -> None:
        self.values = np.zeros((6, 4))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values.copy()


def test_out_that_only_gives_copies() -> None:
    """The result arrives in what was given, or the call says that it cannot."""
    out = Copies()
    with pytest.raises(TypeError, match="`out`"):
        numbabn.batch_norm(X, out=out)


BAD_PARAMETERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "too-few": ({"mean": [1.0, 2.0]}, ValueError, "`mean` has 2 channels but `x` has 4 along axis 1"),
    "too-many": ({"var": np.ones(5)}, ValueError, "`var` has 5 channels but `x` has 4 along axis 1"),
    "gamma": ({"gamma": np.ones(6)}, ValueError, "`gamma` has 6 channels"),
    "beta": ({"beta": np.ones((1, 4))}, ValueError, r"`beta` has shape \(1, 4\)"),
    "complex": ({"mean": np.ones(4, complex)}, TypeError, "`mean` has dtype complex128"),
    "text": ({"gamma": "one"}, TypeError, "`gamma` is str"),
    "texts": ({"beta": ["a"] * 4}, TypeError, "`beta` has dtype"),
    "ragged": ({"mean": [[1], [1, 2]]}, ValueError, "`mean` is not a rectangular"),
    "masked": ({"mean": np.ma.ones(4)}, TypeError, "`mean` is a masked array"),
    "none": ({"mean": None}, TypeError, "`mean` is NoneType"),
    "negative-var": ({"var": [1, 1, -1e-30, 1]}, ValueError, "`var` is negative in channel 2"),
    "two-negative": ({"var": [1, -1, -2, 1]}, ValueError, "`var` is negative in channels 1 and 2"),
    "negative-eps": ({"eps": -1e-5}, ValueError, "`eps` is -1e-05"),
    "nan-eps": ({"eps": np.nan}, ValueError, "`eps` is nan"),
    "inf-eps": ({"eps": np.inf}, ValueError, "`eps` is inf"),
    "text-eps": ({"eps": "1e-5"}, TypeError, "`eps` is '1e-5'"),
    "bool-eps": ({"eps": True}, TypeError, "`eps` is True"),
    "array-eps": ({"eps": ONES}, TypeError, "`eps` is"),
    "complex-eps": ({"eps": 1j}, TypeError, "`eps` is 1j"),
    "none-eps": ({"eps": None}, TypeError, "`eps` is None"),
    "backend-name": ({"backend": "gpu"}, ValueError, "`backend` is 'gpu'"),
    "backend-type": ({"backend": 1}, TypeError, "`backend` is 1"),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters(name: str) -> None:
    given, error, sentence = BAD_PARAMETERS[name]
    out, x = OUT.copy(), X.copy()
    for verb in (numbabn.normalize, numbabn.denormalize):
        match = sentence if verb is numbabn.normalize else sentence.replace("`x`", "`[xy]`")
        with pytest.raises(error, match=match):
            verb(x, **({"mean": 0.0, "var": 1.0, "out": out} | given))
    if not {"mean", "var"} & set(given):
        with pytest.raises(error, match=sentence):
            numbabn.batch_norm(x, out=out, **given)
    assert (out == 7).all()
    assert np.array_equal(x, X)


def test_two_kept_axes_are_named() -> None:
    with pytest.raises(ValueError, match=r"`mean` has shape \(4,\) but .* along axes \(0, 1\) have shape \(3, 4\)"):
        numbabn.normalize(np.zeros((3, 4, 5)), np.zeros(4), 1.0, axis=(0, 1))


def test_gamma_0_cannot_be_undone() -> None:
    out = OUT.copy()
    with pytest.raises(ValueError, match="`gamma` is 0 in channel 1"):
        numbabn.denormalize(X, 0.0, 1.0, [1, 0, 1, 1], out=out)
    assert (out == 7).all()


def test_integers_cannot_be_normalized_in_place() -> None:
    x = np.arange(24).reshape(6, 4)
    with pytest.raises(TypeError, match="`out` has dtype int64"):
        numbabn.batch_norm(x, out=x)
    assert np.array_equal(x, np.arange(24).reshape(6, 4))


def test_a_backend_that_is_not_here() -> None:
    with pytest.raises(numbabn.BackendUnavailableError, match="'cuda' cannot run here"):
        numbabn.moments(X, backend="cuda")
    with pytest.raises(numbabn.BackendUnavailableError):
        numbabn.set_backend("cuda")
    with pytest.raises(numbabn.BackendUnavailableError), numbabn.backend("cuda"):
        pass
    assert numbabn.get_backend() == "auto"
    with numbabn.backend("cpu"):
        assert numbabn.get_backend() == "cpu"
        assert numbabn.moments(X, backend="auto") == numbabn.moments(X)


def test_many_bad_channels_are_counted() -> None:
    with pytest.raises(ValueError, match=r"in 20 channels: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\."):
        numbabn.normalize(np.zeros((2, 20)), 0.0, np.full(20, -1.0))
