"""A .npy file on disk: what its header says, and its data one contiguous chunk at a time."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import checks
from ..arrays import NDArray
from ..layout import boxes

Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class NpyFile:
    """What the header of a .npy file says.

    Everything here that speaks of memory order sees the array as its bytes lie: a Fortran-ordered
    array as the C-ordered one of the reversed shape.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of data, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """The shape in memory order."""
        return self.shape[::-1] if self.fortran else self.shape

    def memory_axes(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Axes of the array as axes of the memory shape, ascending."""
        return tuple(sorted(len(self.shape) - 1 - a for a in axes)) if self.fortran else axes

    def chunks(self, elements: int) -> Iterator[tuple[Box, NDArray]]:
        """The data in memory order, as (box of the memory shape, read-only array of the box's shape).

        Each chunk is a memory map of its own, of at most `elements` elements: once let go, its pages
        count no longer as memory of this process, however large the file is.
        """
        with self.path.open("rb") as file:
            at = self.offset
            for box in boxes(self.memory_shape, elements) if self.nbytes else ():
                mapped = np.memmap(file, self.dtype, "r", at, tuple(s.stop - s.start for s in box))
                at += mapped.nbytes
                yield box, mapped.view(np.ndarray)
                del mapped


def describe(path: str | os.PathLike[str]) -> NpyFile:
    """Read and check the header of a .npy file of real numbers.

    Parameters
    ----------
    path : path
        An array as `numpy.save` writes it, of format version 1, 2 or 3. Nothing is ever unpickled.

    Returns
    -------
    NpyFile

    Raises
    ------
    ValueError
        If it is another kind of file, cut off, 0-dimensional, or does not hold real numbers.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from numbabn import data
    >>> from numbabn.pipeline import npyfile
    >>> npyfile.describe(data.path("photographs.npy")).shape
    (2, 214, 320, 3)
    """
    path = Path(path)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{str(path)!r} is not a regular file, and chunks of it cannot be mapped; save it to one")
        shape, fortran, dtype = _header(file, path)
        found = NpyFile(path, shape, dtype, fortran, file.tell())
    _refuse(found)
    there = status.st_size - found.offset
    if there < found.nbytes:
        raise ValueError(
            f"{str(path)!r} is cut off: its header promises {found.nbytes:,} bytes of data, "
            f"and {there:,} are there; write or copy it again"
        )
    return found


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool) -> None:
    """Write a .npy header for data that follow."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # version 1 holds any shape of plain numbers


def _header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    magic = file.read(6)
    if magic[:4] == b"PK\x03\x04":
        raise ValueError(f"{str(path)!r} is a .npz archive, or another zip file; give one array, saved by numpy.save")
    if magic != np.lib.format.MAGIC_PREFIX:
        raise ValueError(f"{str(path)!r} is not a .npy file; give one array, saved by numpy.save")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        if version in ((2, 0), (3, 0)):  # 3 differs from 2 in the encoding of field names alone
            return np.lib.format.read_array_header_2_0(file)
    except (ValueError, TypeError, SyntaxError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{str(path)!r} has a .npy header that cannot be read ({reason}); write it again") from error
    raise ValueError(f"{str(path)!r} is of .npy version {version[0]}.{version[1]}; expected 1.0, 2.0 or 3.0")


def _refuse(found: NpyFile) -> None:
    name, dtype = repr(str(found.path)), found.dtype
    if dtype.hasobject:
        raise ValueError(
            f"{name} holds Python objects, which only unpickling could read and which might run anything; "
            "save real numbers, for example x.astype(np.float64)"
        )
    if not (dtype.kind in "iub" or checks.is_float(dtype)):
        raise ValueError(
            f"{name} has dtype {dtype}; expected real numbers: float16, float32, float64, integers or booleans"
        )
    if not found.shape:
        raise ValueError(f"{name} is 0-dimensional; expected at least one dimension: save np.atleast_1d(x)")
    if any(n < 0 for n in found.shape):
        raise ValueError(f"{name} has the impossible shape {found.shape}; write it again")
