"""Ghost batches: the groups of samples that are normalized apart (Hoffer, Hubara and Soudry 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import checks
from .arrays import NDArray
from .picks import Pick
from .statistics import Moments

ORDERS = ("consecutive", "interleaved")


def checked(value: Any) -> tuple[int, str] | None:
    """(size, order) of the ghost batches that a caller asked for."""
    if value is None:
        return None
    size, order = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, ORDERS[0])
    (size,) = checks.integers(size, "ghost")
    if size < 1:
        raise ValueError(f"`ghost` is {value!r}; expected a number of samples, 1 or more")
    return size, checks.choice(order, "ghost", ORDERS)


@dataclass(frozen=True, slots=True)
class Groups:
    """`groups` groups of `size` samples each, as one more channel axis: no copy.

    The samples lie along `axis` of the arrays, from `first` on; those of a group are `step` apart and the groups
    `between`.
    """

    axis: int
    first: int
    groups: int
    size: int
    step: int
    between: int

    def of(self, a: NDArray) -> NDArray:
        """A view of an array with the groups along `axis`, and their samples along the one after it."""
        stride = a.strides[self.axis]
        part = a[(slice(None),) * self.axis + (slice(self.first, None),)]
        shape = (*a.shape[: self.axis], self.groups, self.size, *a.shape[self.axis + 1 :])
        strides = (
            *a.strides[: self.axis], self.between * stride, self.step * stride, *a.strides[self.axis + 1 :]
        )  # fmt: skip
        return as_strided(part, shape, strides, subok=True, writeable=a.flags.writeable)

    def axes(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """The channel axes of such a view, the groups among them."""
        return tuple(sorted([self.axis, *(a + (a > self.axis) for a in axes)]))

    def parameter(self, p: NDArray, axes: tuple[int, ...]) -> NDArray:
        """A channel parameter for each group."""
        at = self.axes(axes).index(self.axis)
        return np.repeat(np.expand_dims(p, at), self.groups, axis=at)

    def pick(self, pick: Pick) -> Pick:
        """A pick over such a view."""
        return replace(pick, views={name: self.of(view) for name, view in pick.views.items()})

    def each(self, p: NDArray, axes: tuple[int, ...]) -> NDArray:
        """What a view has for each channel, with the groups first."""
        return np.moveaxis(p, self.axes(axes).index(self.axis), 0)


def split(n: int, axis: int, ghost: tuple[int, str]) -> list[Groups]:
    """The groups that n samples along `axis` go into; sizes differ where the size does not divide n."""
    size, order = ghost
    size = min(size, n)
    if order == "consecutive":
        whole, rest = divmod(n, size)
        groups = [Groups(axis, 0, whole, size, 1, size)]
        return groups + ([Groups(axis, whole * size, 1, rest, 1, 1)] if rest else [])
    number = -(-n // size)
    least, more = divmod(n, number)
    groups = [Groups(axis, 0, more, least + 1, number, 1)] if more else []
    return [*groups, Groups(axis, more, number - more, least, number, 1)]


def together(parts: list[Moments], between: bool) -> Moments:
    """One batch for the running averages: of all values, or with the mean of the groups' variances.

    parts: one for each group, of the channels' shape. Groups weigh by their values; without `between`, the variance
    between the groups is not in it, as in TensorFlow.
    """
    if between:
        return Moments.merge_all(parts)
    counts = np.stack([np.broadcast_to(p.count, p.mean.shape) for p in parts])
    count = counts.sum(axis=0)
    mean = (counts * np.stack([p.mean for p in parts])).sum(axis=0) / np.where(count > 0, count, 1.0)
    return Moments(count, mean, np.stack([p.m2 for p in parts]).sum(axis=0))
