"""Moments: count, mean and M2 of each channel, in float64, mergeable in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .arrays import NDArray
from .checks import in_channels

PAIR = {"mean": 0, "m2": 1}
MORE = ("m3", "m4", "min", "max", "nonfinite")
_set = object.__setattr__  # the one way into a frozen object


@dataclass(frozen=True, eq=False)  # without slots: a small batch is done in the time that it takes to fill them
class Moments:
    """The first two moments of each channel: an immutable float64 value.

    Parameters
    ----------
    count : float or array, shape of `mean`
        How many values each channel has; one number where all have the same.
    mean : array
        Mean of each channel, in the shape of the channel axes. 0 where count is 0.
    m2 : array, shape of `mean`
        Sum of squared deviations from the mean.
    m3, m4 : array, shape of `mean`, optional
        Sums of third and fourth powers of the deviations.
    min, max : array, shape of `mean`, optional
        Least and greatest value; infinity and minus infinity where count is 0.
    nonfinite : array, shape of `mean`, optional
        How many values are NaN or infinite; NaN that were left out of the count are among them.

    Notes
    -----
    ``a + b`` is the moments of both data sets together, by the formula of Chan, Golub and LeVeque
    (1979): ``d = mean_b - mean_a``, ``mean = mean_a + d * n_b / n``,
    ``m2 = m2_a + m2_b + d**2 * n_a * n_b / n``, and for `m3` and `m4` by that of Pebay (2008). The order of
    merging changes no more than rounding. What only one of the two has, the sum has not.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> x = np.array([[1.0, 10.0], [2.0, 10.0], [6.0, 40.0]])
    >>> m = numbabn.moments(x)
    >>> m.count, m.mean, m.var()
    (3.0, array([ 3., 20.]), array([  4.66666667, 200.        ]))
    >>> numbabn.moments(x[:1]) + numbabn.moments(x[1:]) == m
    True
    """

    count: Any
    mean: NDArray
    m2: NDArray
    m3: NDArray | None = None
    m4: NDArray | None = None
    min: NDArray | None = None
    max: NDArray | None = None
    nonfinite: NDArray | None = None

    def __post_init__(self) -> None:
        mean, m2 = _frozen(self.mean, "mean"), _frozen(self.m2, "m2")
        count = _frozen(self.count, "count")
        if m2.shape != mean.shape or count.shape not in ((), mean.shape):
            raise ValueError(
                f"`count`, `mean` and `m2` have shapes {count.shape}, {mean.shape} and {m2.shape}; "
                "expected one shape, or a single count"
            )
        if (count < 0).any() or not np.isfinite(count).all():
            raise ValueError("`count` is negative or not finite; expected a number of values, 0 or more")
        if (m2 < 0).any():
            raise ValueError(f"`m2` is negative {in_channels(m2 < 0)}; a sum of squares is at least 0")
        object.__setattr__(self, "count", count if count.ndim else float(count))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "m2", m2)
        if (self.m3 is None) != (self.m4 is None):
            raise ValueError("`m3` and `m4` go together; give both or none")
        for name in MORE:
            if getattr(self, name) is not None:
                more = _frozen(getattr(self, name), name)
                if more.shape != mean.shape:
                    raise ValueError(
                        f"`{name}` has shape {more.shape} but `mean` has shape {mean.shape}; give one shape"
                    )
                object.__setattr__(self, name, more)

    @classmethod
    def trusted(cls, count: NDArray | float, mean: NDArray, m2: NDArray, **more: NDArray) -> Moments:
        """Moments of fresh float64 arrays that a kernel has just written: taken as they are, without a check."""
        new = object.__new__(cls)
        if isinstance(count, np.ndarray):
            count.flags.writeable = False
        mean.flags.writeable = m2.flags.writeable = False
        _set(new, "count", count)
        _set(new, "mean", mean)
        _set(new, "m2", m2)
        for name, value in more.items():
            value.flags.writeable = False
            _set(new, name, value)
        return new

    @classmethod
    def pair(cls, count: float, box: NDArray) -> Moments:
        """Moments of an array with mean and M2 that a kernel has just written; nobody else may keep it to write to it.

        It becomes read-only when one of the two is asked for.
        """
        new = object.__new__(cls)
        known = new.__dict__
        known["count"], known["_box"] = count, box
        return new

    if not TYPE_CHECKING:  # to which any name would be an attribute

        def __getattr__(self, name: str) -> NDArray:
            """Mean and M2 of `pair`, made when they are asked for: few ask for those of each batch."""
            if name not in PAIR:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._box.setflags(write=False)
            return self.__dict__.setdefault(name, self._box[PAIR[name]])

    def var(self, ddof: float = 0) -> NDArray:
        """Variance of each channel.

        Parameters
        ----------
        ddof : float, default 0
            The divisor is ``count - ddof``: 0 for the population's variance, 1 for the unbiased one.

        Returns
        -------
        array
            float64, shape of `mean`; NaN where ``count <= ddof``, for lack of values.
        """
        free = np.asarray(self.count, dtype=np.float64) - ddof
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(free > 0, self.m2 / free, np.nan)

    def std(self, ddof: float = 0) -> NDArray:
        """Standard deviation of each channel: the square root of ``var(ddof)``."""
        return np.sqrt(self.var(ddof))

    def skewness(self, bias: bool = True) -> NDArray:
        """Skewness of each channel: ``m3 / count`` over the third power of the standard deviation.

        Parameters
        ----------
        bias : bool, default True
            False: corrected as in SciPy and R's type 2, by ``sqrt(n (n - 1)) / (n - 2)``.

        Returns
        -------
        array
            float64, shape of `mean`; NaN for a constant channel, and where the count is too small.

        Raises
        ------
        ValueError
            If there is no `m3`: gather it with ``moments(x, extra="skewness")``.
        """
        n = np.asarray(self.count, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            g1 = np.asarray(self._higher("m3", "skewness") / n / self.var() ** 1.5)
            return g1 if bias else np.where(n > 2, g1 * np.sqrt(n * (n - 1)) / (n - 2), np.nan)

    def kurtosis(self, bias: bool = True) -> NDArray:
        """Excess kurtosis of each channel: ``m4 / count`` over the squared variance, less 3.

        Parameters
        ----------
        bias : bool, default True
            False: corrected as in SciPy and R's type 2.

        Returns
        -------
        array
            float64, shape of `mean`; NaN for a constant channel, and where the count is too small.

        Raises
        ------
        ValueError
            If there is no `m4`: gather it with ``moments(x, extra="kurtosis")``.
        """
        n = np.asarray(self.count, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            g2 = np.asarray(self._higher("m4", "kurtosis") / n / self.var() ** 2 - 3)
            if bias:
                return g2
            return np.where(n > 3, (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * g2 + 6), np.nan)

    def _higher(self, name: str, what: str) -> NDArray:
        value: NDArray | None = getattr(self, name)
        if value is None:
            raise ValueError(f"these moments have no `{name}`; gather it with moments(x, extra={what!r})")
        return value

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"moments of channel shapes {self.mean.shape} and {other.mean.shape} cannot be merged; "
                "merge moments of the same channels"
            )
        a, b = (self.count, self.mean, self.m2), (other.count, other.mean, other.m2)
        more: dict[str, NDArray] = {}
        if self.m3 is not None and self.m4 is not None and other.m3 is not None and other.m4 is not None:
            more["m3"], more["m4"] = merged_higher((*a, self.m3, self.m4), (*b, other.m3, other.m4))
        for name, join in (("min", np.minimum), ("max", np.maximum), ("nonfinite", np.add)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None:
                more[name] = join(mine, theirs)
        return Moments(*merged(a, b), **more)

    def __radd__(self, other: object) -> Moments:
        return self if other == 0 else NotImplemented  # so that sum() works

    @classmethod
    def merge_all(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all parts together, merged in pairs so that rounding stays small.

        Parameters
        ----------
        parts : iterable of Moments
            At least one.

        Returns
        -------
        Moments

        Examples
        --------
        >>> import numpy as np, numbabn
        >>> parts = [numbabn.moments(np.full((2, 1), v)) for v in (1.0, 2.0, 6.0)]
        >>> numbabn.Moments.merge_all(parts).mean
        array([3.])
        """
        level = list(parts)
        for part in level:
            if not isinstance(part, Moments):
                raise TypeError(f"a part is {type(part).__name__}; expected Moments")
        if not level:
            raise ValueError("there are no parts; expected at least one Moments")
        while len(level) > 1:
            pairs = [a + b for a, b in zip(level[::2], level[1::2], strict=False)]
            level = pairs + level[len(level) - len(level) % 2 :]
        return level[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON; `from_dict` gives the same bits back."""
        count = self.count.tolist() if isinstance(self.count, np.ndarray) else self.count
        d = {"count": count, "mean": self.mean.tolist(), "m2": self.m2.tolist()}
        return d | {name: getattr(self, name).tolist() for name in MORE if getattr(self, name) is not None}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Moments:
        """The moments that `to_dict` described."""
        missing = {"count", "mean", "m2"} - set(d)
        if missing:
            raise ValueError(f"the dict lacks {', '.join(sorted(missing))}; expected what Moments.to_dict() gives")
        more = {name: np.asarray(d[name]) for name in MORE if name in d}
        return cls(d["count"], np.asarray(d["mean"]), np.asarray(d["m2"]), **more)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        return (
            self.mean.shape == other.mean.shape
            and bool(np.all(self.count == other.count))
            and np.array_equal(self.mean, other.mean, equal_nan=True)
            and np.array_equal(self.m2, other.m2, equal_nan=True)
            and all(_same(getattr(self, name), getattr(other, name)) for name in MORE)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Moments, tuple(getattr(self, f.name) for f in fields(self))  # so that a copy is read-only too

    def __repr__(self) -> str:
        count = np.unique(self.count)
        values = f"{count[0]:g}" if count.size == 1 else f"{count[0]:g} to {count[-1]:g}" if count.size else "0"
        return f"Moments(count={values}, channels={self.mean.shape}, mean={brief(self.mean)}, std={brief(self.std())})"


def merged(a: tuple[Any, NDArray, NDArray], b: tuple[Any, NDArray, NDArray]) -> tuple[Any, NDArray, NDArray]:
    """(count, mean, M2) of two parts together, element by element; counts may be scalars or arrays."""
    (na, ma, sa), (nb, mb, sb) = a, b
    n = np.asarray(na) + np.asarray(nb)
    with np.errstate(all="ignore"):
        share = np.where(n > 0, nb / n, 0.0)
        d = mb - ma
        mean = np.where(np.isfinite(d), ma + d * share, ma * (1 - share) + mb * share)
        m2 = sa + sb + d * d * (na * share)
    empty_a, empty_b = np.equal(na, 0), np.equal(nb, 0)
    mean = np.where(empty_b, ma, np.where(empty_a, mb, mean))
    return n, mean, np.where(empty_b, sa, np.where(empty_a, sb, m2))


def merged_higher(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[NDArray, NDArray]:
    """(M3, M4) of two parts (count, mean, M2, M3, M4) together (Pebay 2008, eq. 2.1)."""
    (na, ma, sa, ta, ua), (nb, mb, sb, tb, ub) = a, b
    na, nb = np.asarray(na), np.asarray(nb)
    n, d = na + nb, mb - ma
    with np.errstate(all="ignore"):
        e = np.where(n > 0, d / n, 0.0)
        m3 = ta + tb + d * e * e * na * nb * (na - nb) + 3 * e * (na * sb - nb * sa)
        m4 = ua + ub + d * e * e * e * na * nb * (na * na - na * nb + nb * nb)
        m4 = m4 + 6 * e * e * (na * na * sb + nb * nb * sa) + 4 * e * (na * tb - nb * ta)
    return (
        np.where(nb == 0, ta, np.where(na == 0, tb, m3)),
        np.where(nb == 0, ua, np.where(na == 0, ub, m4)),
    )


def _same(a: NDArray | None, b: NDArray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)


def brief(values: npt.NDArray[np.float64]) -> str:
    """Up to three values, or their range: for a repr."""
    if values.size == 0:
        return "[]"
    if values.size <= 3:
        return "[" + ", ".join(f"{v:.4g}" for v in values.reshape(-1)) + "]"
    return f"{values.min():.4g}..{values.max():.4g}"


def _frozen(value: Any, name: str) -> NDArray:
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "iubf":
            raise TypeError(f"dtype {given.dtype}")
        array = np.array(given, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` is {value!r} ({error}); expected real numbers") from None
    array.flags.writeable = False
    return array
