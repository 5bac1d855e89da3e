"""Arrays of other libraries, and everything else that can be read as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import numbabn

X = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
TORCH = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class WithArray:
    """Only __array__, as old array-likes have."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


class WithInterface:
    """Only __array_interface__."""

    __array_interface__ = X.__array_interface__


class WithDlpack:
    """Only DLPack."""

    def __dlpack__(self, **how: Any) -> Any:
        return X.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return X.__dlpack_device__()


class OldTensor:
    """A tensor whose DLPack is too old to say that it can be written."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values

    def __setitem__(self, at: Any, value: Any) -> None:
        self.values[at] = value

    def numpy(self) -> np.ndarray:
        return self.values


class Masked:
    """Hides a masked array behind __array__."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.ma.array(X, mask=X > 3)


class Elsewhere:
    """An array on a GPU."""

    device = "cuda:0"

    def __dlpack__(self, **how: Any) -> Any:
        raise AssertionError("never asked for")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class Child(np.ndarray):
    """A subclass whose arithmetic must not be used."""

    def __mul__(self, other: Any) -> Any:
        raise AssertionError("never used")


@pytest.mark.parametrize(
    "make", [WithArray, WithInterface, WithDlpack, lambda: X.view(Child)], ids=lambda m: m.__name__
)
def test_array_likes_give_numpy_arrays(make: Any) -> None:
    x = make()
    y, m = numbabn.batch_norm(x)
    assert type(y) is np.ndarray
    assert y.tobytes() == numbabn.batch_norm(X)[0].tobytes()
    assert m == numbabn.moments(X) == numbabn.moments(x)


@pytest.mark.parametrize("x", [[[1, 2], [3, 5]], ([1.0, 2.0], (3.0, 5.0)), [np.array([1, 2]), np.array([3, 5])]])
def test_lists_and_tuples(x: Any) -> None:
    y, m = numbabn.batch_norm(x, eps=0)
    assert y.tolist() == [[-1, -1], [1, 1]]
    assert y.dtype == np.float64
    assert m.mean.tolist() == [2, 3.5]
    assert numbabn.moments([True, False], axis=()).mean == 0.5
    assert numbabn.batch_norm([[True], [False]], eps=0)[0].dtype == np.float32


def test_numpy_scalars_and_python_numbers_as_parameters() -> None:
    for one in (1, 1.0, np.float16(1), np.int8(1), np.array(1), torch.tensor(1.0), ml_dtypes.bfloat16(1)):
        assert numbabn.normalize(X, one, one, one, one, eps=np.float32(0)).tobytes() == X.tobytes()


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch_in_torch_out(dtype: torch.dtype) -> None:
    t = torch.from_numpy(X.copy()).to(dtype)
    before = t.clone()
    y, m = numbabn.batch_norm(t)
    assert isinstance(y, torch.Tensor)
    assert y.dtype == dtype
    assert y.shape == t.shape
    assert torch.equal(t, before)
    exact = (X - X.mean(0, dtype=float)) / np.sqrt(X.var(0, dtype=float) + 1e-5)
    unit = torch.finfo(dtype).eps
    np.testing.assert_allclose(y.double().numpy(), exact, atol=8 * unit + 1e-5)
    assert m == numbabn.moments(t)
    assert type(m.mean) is np.ndarray
    y += 1  # the result can be written


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch_out_and_in_place(dtype: torch.dtype) -> None:
    t = torch.from_numpy(X.copy()).to(dtype)
    y, _ = numbabn.batch_norm(t)
    out = torch.full_like(t, 7)
    assert numbabn.batch_norm(t, out=out)[0] is out
    assert torch.equal(out, y)
    assert numbabn.batch_norm(t, out=t)[0] is t
    assert torch.equal(t, y)


def test_torch_strides_are_honoured() -> None:
    base = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 8, 10)))
    view = base.permute(2, 0, 1)[::2, :, 1:5]
    y, m = numbabn.batch_norm(view, axis=1)
    assert m == numbabn.moments(view.numpy(), axis=1)
    np.testing.assert_array_equal(y.numpy(), numbabn.batch_norm(view.numpy(), axis=1)[0])
    numbabn.batch_norm(view, axis=1, out=view)
    assert torch.equal(view, y)


def test_torch_integers_and_booleans() -> None:
    for values, dtype in ((torch.arange(12), torch.float64), (torch.arange(12) > 3, torch.float32)):
        y, _ = numbabn.batch_norm(values.reshape(6, 2))
        assert isinstance(y, torch.Tensor)
        assert y.dtype == dtype


def test_torch_parameters_and_batchnorm() -> None:
    t = torch.from_numpy(X.copy())
    bn = numbabn.BatchNorm(4, gamma=torch.full((4,), 2.0), beta=torch.zeros(4, dtype=torch.bfloat16))
    assert isinstance(bn(t, training=True), torch.Tensor)
    assert isinstance(bn(t), torch.Tensor)
    assert type(bn.running_mean) is type(bn.gamma) is np.ndarray
    y = numbabn.normalize(X, t.mean(0), t.var(0))
    assert type(y) is np.ndarray


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch_tensor_that_requires_grad(dtype: torch.dtype) -> None:
    t = torch.from_numpy(X.copy()).to(dtype).requires_grad_()
    for call in (numbabn.moments, numbabn.batch_norm, numbabn.BatchNorm(4)):
        with pytest.raises(TypeError, match=r"`x`.*detach"):
            call(t)
    with pytest.raises(TypeError, match=r"`out`.*detach"):
        numbabn.normalize(t.detach(), 0.0, 1.0, out=t)
    assert torch.equal(t.detach(), torch.from_numpy(X).to(dtype))


def test_torch_kinds_that_are_not_taken() -> None:
    for t in (torch.ones(3, 4, dtype=torch.complex64), torch.eye(3).to_sparse(), torch.ones(2, 2, device="meta")):
        with pytest.raises(TypeError, match="`x`"):
            numbabn.moments(t)


def test_an_array_on_a_gpu_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"on device cuda:0.*`x\.cpu\(\)`"):
        numbabn.moments(Elsewhere())


def test_masked_array_behind_array_protocol() -> None:
    with pytest.raises(TypeError, match="`x` is a masked array"):
        numbabn.moments(Masked())


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.int4], ids=lambda t: t.__name__)
def test_other_small_types_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match=f"`x` has dtype {np.dtype(dtype).name}"):
        numbabn.moments(np.zeros((3, 2), dtype))


def test_memory_map_of_one_file_normalized_in_place(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r+")
    assert numbabn.batch_norm(x, out=x)[0] is x
    x.flush()
    assert np.load(tmp_path / "x.npy").tobytes() == numbabn.batch_norm(X)[0].tobytes()


def test_bfloat16_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ml_dtypes is missing, a bfloat16 tensor is refused with a sentence."""
    import sys

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match="`x` cannot be read without a copy"):
        numbabn.moments(torch.ones(3, 2, dtype=torch.bfloat16))


def test_a_namespace_that_is_unknown_gives_numpy_arrays() -> None:
    assert type(numbabn.normalize(WithDlpack(), 0.0, 1.0)) is np.ndarray


def test_older_dlpack_can_be_written_to() -> None:
    assert not np.from_dlpack(OldTensor(X.copy())).flags.writeable
    out = OldTensor(np.zeros_like(X))
    assert numbabn.batch_norm(X, out=out)[0] is out
    assert out.values.tobytes() == numbabn.batch_norm(X)[0].tobytes()
    x = OldTensor(X.copy())
    numbabn.batch_norm(x, out=x)
    assert x.values.tobytes() == out.values.tobytes()
