"""The dispatcher: the one door from everything polite to the kernels.

A backend is a module with the verbs of `Backend`, over a `Layout`; `TABLE` names them all.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol, cast

from ..arrays import NDArray
from ..checks import choice
from ..devices import Shadow, probe
from ..layout import Layout

CHOICES = ("auto", "cpu", "cuda")
# "device" is for arrays on a device, "cuda" for host arrays that are sent to one.
TABLE = {name: f"numbabn.backends.{name}" for name in ("cpu", "device")} | {"cuda": "numbabn.backends.streamed"}


# (count, mean, M2) of each channel, (M3, M4) and (min, max, non-finite) or None.
Parts = tuple[NDArray, NDArray, NDArray, NDArray | None, NDArray | None]


class Backend(Protocol):
    """What every backend does. Channel values are (channels,) float64 in memory order.

    A layout names its arrays: "x" first. Its picks say which values count; `omit` leaves NaN out besides. An activation
    is None, or (kind, numbers) as in `activations.kernel_form`.
    """

    def moments(self, layout: Layout, omit: bool = False, higher: bool = False, extremes: bool = False) -> Parts:
        """The statistics of "x" in one pass, with the groups that are asked for."""

    def transform(
        self, layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None
    ) -> None:
        """Write activation((x - mean) * scale + shift + residual) into "out", or into "x" where there is no "out"."""

    def train(
        self,
        layout: Layout,
        gamma: NDArray,
        beta: NDArray | None,
        eps: float,
        omit: bool = False,
        activation: Any = None,
    ) -> Parts:
        """Statistics of "x", and the transform by them."""

    def grad_sums(self, layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
        """Sums of g and of g * (x - mean), (2, channels), where g is "dy" behind the activation.

        act: None, or (activation, scale, shift) of the forward pass, whose "residual" is among the arrays.
        """

    def grad_inputs(
        self,
        layout: Layout,
        mean: NDArray,
        a: NDArray,
        b: NDArray | None,
        k: NDArray | None,
        omit: bool = False,
        act: Any = None,
    ) -> None:
        """Write a * g - p * (b + (x - mean) * k) into "dx" (else into "dy"), and g into "dz" where that is there."""


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why, and the way out."""


_block_choice: contextvars.ContextVar[str | None] = contextvars.ContextVar("numbabn_backend", default=None)
_process_choice: str | None = None


@cache
def _loaded(name: str) -> Backend:
    return cast(Backend, importlib.import_module(TABLE[name]))


def why_not(name: str) -> str | None:
    """The reason that a backend cannot run here, with its cure, or None where it can."""
    return probe.why_not() if name == "cuda" else None


def cache_folders() -> list[str]:
    """Where compiled kernels are kept, the best place first."""
    return [str(folder) for folder in importlib.import_module("numbabn.kernels.kept").folders()]


def select(name: str | None = None, x: NDArray | None = None, x_name: str = "x") -> Backend:
    """The backend for one call: its own choice, else the block's, the process's, the environment's.

    An array on a device takes that device, and one of the host the CPU, unless the choice says "cuda". Without an array
    it is that of a NumPy array.
    """
    wanted = current() if name is None else choice(name, "backend", CHOICES)
    if isinstance(x, Shadow):
        if wanted == "cpu":
            raise TypeError(
                f"`{x_name}` is a {x.place.library} array on device {x.place!r}, and the CPU backend computes on host "
                f"memory; move it first, for example with `{x_name}.cpu()`, or choose backend='auto'"
            )
        return _loaded("device")
    if wanted != "cuda":
        return _loaded("cpu")
    reason = why_not(wanted)
    if reason is not None:
        raise BackendUnavailableError(f"backend 'cuda' cannot run here: {reason}; or choose 'cpu' or 'auto'")
    return _loaded("cuda")


def current() -> str:
    """The choice in force: "auto", "cpu" or "cuda"."""
    return _block_choice.get() or _process_choice or _choice_at_start()


@cache
def _choice_at_start() -> str:
    value = os.environ.get("NUMBABN_BACKEND")
    return "auto" if value is None else choice(value, "NUMBABN_BACKEND", CHOICES)


def get_backend() -> str:
    """The choice of backend in force here: "auto", "cpu" or "cuda".

    Examples
    --------
    >>> import numbabn
    >>> with numbabn.backend("cpu"):
    ...     numbabn.get_backend()
    'cpu'
    """
    return current()


def set_backend(name: str) -> None:
    """Choose the backend of later calls, for the whole process.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        A backend chosen by name fails loudly where it cannot run; "auto" takes what there is. The
        environment variable ``NUMBABN_BACKEND`` sets the choice that a process starts with.

    Raises
    ------
    BackendUnavailableError
        If it cannot run here. The choice stays as it was.

    Examples
    --------
    >>> import numbabn
    >>> numbabn.set_backend("auto")
    """
    global _process_choice
    select(name)
    _process_choice = name


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the backend of the calls made in a block, by this thread or task alone.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        As for `set_backend`.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> with numbabn.backend("cpu"):
    ...     m = numbabn.moments(np.ones((4, 2)))
    """
    select(name)
    token = _block_choice.set(name)
    try:
        yield
    finally:
        _block_choice.reset(token)
