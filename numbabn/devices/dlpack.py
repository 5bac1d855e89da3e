"""DLPack capsules of device arrays, read and written field by field: NumPy itself takes those of the host alone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from .shadow import NDArray, Shadow

CPU, CUDA, MANAGED = 1, 2, 13  # DLDeviceType
BFLOAT = 4  # DLDataTypeCode
READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
_LETTERS = {0: "i", 1: "u", 2: "f", 6: "b"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)


@dataclass(frozen=True, slots=True)
class Described:
    """What a capsule says of an array; strides in bytes, None where it is C-contiguous."""

    pointer: int
    device: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    readonly: bool


def described(capsule: Any) -> Described:
    """What a capsule says. It is not taken over: it must be kept, and frees the array when it goes."""
    tensor, readonly = _tensor_of(capsule)
    if tensor.lanes != 1:
        raise TypeError(f"its elements are vectors of {tensor.lanes} numbers; expected single numbers")
    dtype = dtype_of(tensor.code, tensor.bits)
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    strides = tuple(tensor.strides[k] * dtype.itemsize for k in range(tensor.ndim)) if tensor.strides else None
    return Described((tensor.data or 0) + tensor.byte_offset, tensor.device_id, shape, strides, dtype, readonly)


def capsule_of(shadow: Shadow) -> Any:
    """A capsule for an array on a device, which keeps it alive."""
    array: NDArray = shadow.view(np.ndarray)
    bfloat = array.dtype.type.__name__ == "bfloat16"
    capsule = (array.view(np.int16) if bfloat else array).__dlpack__()
    tensor, _ = _tensor_of(capsule)
    tensor.device_type, tensor.device_id = CUDA, shadow.place.device
    if bfloat:
        tensor.code = BFLOAT
    return capsule


def dtype_of(code: int, bits: int) -> np.dtype[Any]:
    """NumPy's name for a DLPack type."""
    if code == BFLOAT and bits == 16:
        return bfloat16()
    if code not in _LETTERS:
        raise TypeError(f"its elements have the DLPack type code {code}, which has no name in NumPy")
    named: np.dtype[Any] = np.dtype(f"{_LETTERS[code]}{bits // 8}")
    return named


def bfloat16() -> np.dtype[Any]:
    """The bfloat16 of ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _tensor_of(capsule: Any) -> tuple[_Tensor, bool]:
    """The tensor in a capsule, and whether it may only be read."""
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        return versioned.tensor, bool(versioned.flags & READ_ONLY)
    if _is_valid(capsule, b"dltensor"):
        return _Tensor.from_address(_pointer(capsule, b"dltensor")), False
    raise TypeError("it gave a DLPack capsule that has been used before, or none")
