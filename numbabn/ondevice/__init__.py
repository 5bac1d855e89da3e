"""A BatchNorm whose state lives on a device: `BatchNorm.to` makes one.

The running averages, gamma and beta are float64 vectors there. A training call on an array of that device changes them
behind the work on its stream, and inference reads them there, without waiting. Whatever else looks at the state sees it
through the host: it is brought over, which waits for the device, and sent back where it was changed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Self

from .. import checks
from ..options import Options
from .norm import OnDevice, moved, number_of, refuse

__all__ = ["Movable", "OnDevice"]


class Movable:
    """Something that can be copied, and brought to a device and back."""

    _options: Options

    def to(self, device: str) -> Self:
        """This BatchNorm on a device, or on the host.

        Parameters
        ----------
        device : str
            "cpu", "cuda" (the first device), or "cuda:1" and so on.

        Returns
        -------
        BatchNorm
            An independent one of the same options and state; itself where it is there already.

        Raises
        ------
        BackendUnavailableError
            If there is no such device, with the reason.

        Notes
        -----
        On a device, training and inference on arrays of that device wait for nothing. Reading the state
        (`running_mean`, `num_batches`, `save`, `merge`, ``==``, `repr` and so on) waits for it.

        Examples
        --------
        >>> import numbabn
        >>> bn = numbabn.BatchNorm(3)
        >>> bn.to("cpu") is bn
        True
        """
        number = number_of(device)
        if number is None:
            return self
        refuse(number, self._options)
        twin: Self = moved(self, number)
        return twin

    def copy(self, *, eps: float | None = None) -> Self:
        """An independent BatchNorm of the same state, with another eps where one is given."""
        twin = copy.copy(self)
        if eps is not None:
            twin._options = replace(twin._options, eps=checks.epsilon(eps))
        return twin
