"""The file format: .npz without pickle, with a version and a schema inside, written atomically.

A file holds one member ``schema.npy``, a JSON text ``{"format": "numbabn", "version": 1, "kind": ...,
"config": {...}, "arrays": {name: shape}}``, and one float64 array for each name; all uncompressed.
`numpy.load` reads it anywhere. Loading executes nothing and believes nothing: whatever is not exactly
this is refused with a `StateError`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import NDArray

VERSION = 1
_SCHEMA_LIMIT = 1 << 20
_FIELDS = {"format": str, "version": int, "kind": str, "config": dict, "arrays": dict}


class StateError(ValueError):
    """A file is not a state that this version can read; the message says why."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends well and removed when it does not.

    The rename replaces what was there; readers see the old file or the new one, whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: str | os.PathLike[str], kind: str, config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write a state to `path`, replacing what was there."""
    schema = {
        "format": "numbabn",
        "version": VERSION,
        "kind": kind,
        "config": dict(config),
        "arrays": {name: list(a.shape) for name, a in arrays.items()},
    }
    members: dict[str, NDArray] = {"schema": np.array(json.dumps(schema))}
    members |= {name: np.ascontiguousarray(a, dtype=np.float64).reshape(a.shape) for name, a in arrays.items()}
    with atomic(path) as temporary, temporary.open("xb") as file:
        np.savez(file, allow_pickle=False, **members)


def load(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """(config, arrays) of the state of this kind in `path`."""
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read(archive, kind)
    except StateError as error:
        raise StateError(f"{os.fspath(path)!r} is not a numbabn state that can be read: {error}") from None
    except Exception as error:  # zipfile and numpy raise many kinds over damaged bytes
        raise StateError(f"{os.fspath(path)!r} is not a numbabn state, or is damaged: {error}") from error


def _read(archive: zipfile.ZipFile, kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    sizes: dict[str, int] = {}
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 0x1:
            raise StateError(f"member {member.filename!r} is compressed or encrypted")
        if member.filename in sizes:
            raise StateError(f"member {member.filename!r} is there twice")
        sizes[member.filename] = member.file_size
    if sizes.get("schema.npy", _SCHEMA_LIMIT + 1) > _SCHEMA_LIMIT:
        raise StateError("it has no member 'schema.npy', or too long a one")
    schema = _schema(_array(archive, "schema"))
    if schema["format"] != "numbabn":
        raise StateError(f"its format is {schema['format']!r}, expected 'numbabn'")
    if schema["version"] != VERSION:
        way_out = "install a newer numbabn" if schema["version"] > VERSION else "save it again"
        raise StateError(f"it has version {schema['version']}, and this numbabn reads version {VERSION}: {way_out}")
    if schema["kind"] != kind:
        raise StateError(f"it holds a {schema['kind']!r}, expected a {kind!r}")
    expected = {f"{name}.npy" for name in schema["arrays"]} | {"schema.npy"}
    if set(sizes) != expected:
        raise StateError(f"its members are {sorted(sizes)}, expected {sorted(expected)}")
    arrays = {}
    for name, shape in schema["arrays"].items():
        array = _array(archive, name)
        if array.dtype != np.float64 or list(array.shape) != shape:
            raise StateError(f"{name!r} is {array.dtype} of shape {array.shape}, expected float64 of shape {shape}")
        arrays[name] = array
    return schema["config"], arrays


def _array(archive: zipfile.ZipFile, name: str) -> NDArray:
    with io.BytesIO(archive.read(f"{name}.npy")) as member:  # read() checks the CRC
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise StateError(f"{name!r} is longer than its header says")
    return np.asarray(array)


def _schema(text: NDArray) -> dict[str, Any]:
    if text.dtype.kind != "U" or text.ndim != 0:
        raise StateError("'schema.npy' is not a text")
    schema = json.loads(str(text))
    if not isinstance(schema, dict) or set(schema) != set(_FIELDS):
        raise StateError(f"its schema has not exactly the fields {', '.join(_FIELDS)}")
    for field, of_type in _FIELDS.items():
        if type(schema[field]) is not of_type:
            raise StateError(f"{field!r} in its schema is {schema[field]!r}, expected {of_type.__name__}")
    return schema
