"""Arrays like those of a call before: told from others at a glance, and made again; mostly without shadows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import probe
from .driver import LEGACY
from .libraries import (
    DeviceArray,
    device_of,
    empty_like,
    flat_like,
    is_numba_s,
    package_of,
    seen,
    stream_of_torch,
)
from .shadow import Shadow, pointer_of

ALIGNED = 16  # bytes
Glance = tuple[tuple[Any, ...], list[int], int]  # what its like has too, where the arrays begin, and the stream


def glanced(verb: str, device: int, *arrays: Any) -> Glance | None:
    """What calls have in common of which one can do as the other did, by the looks of their arrays; no shadow is made.

    None where the arrays (those that are not None) are not all on the device and on one stream, or take a closer look.
    """
    torch = sys.modules.get("torch")
    key: list[Any] = [verb]
    pointers: list[int] = []
    stream = current = 0
    for array in arrays:
        if array is None:
            key.append(None)
            continue
        kind: Any = type(array)
        library = package_of(kind)
        if library == "torch" and torch is not None:
            if array.requires_grad or array.layout is not torch.strided or array.is_neg() or not array.is_cuda:
                return None
            if array.get_device() != device:
                return None
            current = current or stream_of_torch(device)
            pointer, its = array.data_ptr(), current
            key += array.shape, array.stride(), array.dtype, pointer % ALIGNED
        else:
            told = array._glance if kind is DeviceArray else _by_interface(array, library)
            if told is None or told[1] != device:
                return None
            pointer, _, its, look = told
            key += look, pointer % ALIGNED
        if its != stream:
            if stream:
                return None
            stream = its
        pointers.append(pointer)
    if len(set(pointers)) < len(pointers):
        key += map(pointers.index, pointers)  # which of them are one
    return tuple(key), pointers, stream


def _by_interface(value: Any, library: str) -> tuple[int, int, int, tuple[Any, ...]] | None:
    """Pointer, device, stream, and what it looks like, where a glance is enough."""
    if is_numba_s(value) and probe.simulated():
        return None
    interface = None if library in ("jax", "jaxlib") else getattr(value, "__cuda_array_interface__", None)
    if interface is None or interface.get("mask") is not None:
        return None
    pointer, readonly = interface["data"]
    strides = interface.get("strides")
    look = (library, tuple(interface["shape"]), strides and tuple(strides), interface["typestr"], readonly)
    return pointer, device_of(value), interface.get("stream") or LEGACY, look


def made_again(new: Any) -> Callable[[Any], tuple[int, Any]]:
    """How to make once more what `empty_like` made, beside another array that looks like the one it was made for.

    It gives the address and what `given_back` takes.
    """
    dtype = new.dtype
    if new.place.library != "torch":
        return lambda x: _with_address(empty_like(seen(x), dtype))
    torch, kind = sys.modules["torch"], new.given.dtype

    def make(x: Any) -> tuple[int, Any]:
        tensor = torch.empty_like(x) if x.dtype is kind else torch.empty_like(x, dtype=kind)
        return tensor.data_ptr(), tensor

    return make


def flat_again(new: Any) -> Callable[[Any], tuple[int, Any]]:
    """As `made_again`, for what `flat_like` made; it gives the address and what `part_of` takes."""
    size = new.size
    if new.place.library != "torch":
        return lambda x: _with_address(flat_like(seen(x), size))
    torch = sys.modules["torch"]

    def make(x: Any) -> tuple[int, Any]:
        tensor = torch.empty(size, dtype=torch.float64, device=x.device)
        return tensor.data_ptr(), tensor

    return make


def _with_address(shadow: Shadow) -> tuple[int, Shadow]:
    return pointer_of(shadow), shadow
