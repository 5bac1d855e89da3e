"""What a BatchNorm does otherwise when its state lives on a device."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import activations, backends, checks, devices, verbs
from .. import training as training_
from ..arrays import NDArray, empty_like, take
from ..averages import Running
from ..backward import gradient_of
from ..devices import Place, Shadow, probe
from ..devices.driver import LEGACY
from ..lanes import Parameters
from ..layout import Layout, canonical
from ..options import Options
from ..picks import picked
from ..statistics import Moments
from .home import Home, Vector


@dataclass(frozen=True, slots=True)
class Step:
    """What the way back needs of a training call on the device."""

    stats: Shadow
    gamma: Vector | None
    beta: Vector | None
    overwritten: bool
    arrays: dict[str, Any]


class OnDevice:
    """What a BatchNorm does otherwise when its state lives on a device; mixed into the class that was moved."""

    _options: Options
    _home: Home
    _lock: Any
    _step: Any
    _adjustment: Any

    # The state, as the rest of the class knows it: on the host -----------------------------------------

    @property
    def _running(self) -> Running:
        with self._lock:
            return self._home.get(self._options.channels)

    @_running.setter
    def _running(self, running: Running) -> None:
        with self._lock:
            if running is not self._home.known:
                self._home.put(running)

    @property
    def _gamma(self) -> NDArray | None:
        return None if self._home.gamma is None else self._home.gamma.on_host()

    @_gamma.setter
    def _gamma(self, value: NDArray | Vector | None) -> None:
        self._home.gamma, self._home.folded = _vector(value), False

    @property
    def _beta(self) -> NDArray | None:
        return None if self._home.beta is None else self._home.beta.on_host()

    @_beta.setter
    def _beta(self, value: NDArray | Vector | None) -> None:
        self._home.beta = _vector(value)

    def _parameter(self, value: Any, name: str) -> Any:
        """A parameter that is given on the device stays there."""
        if value is not None and devices.is_on_device(value):
            array, _ = take(value, name)
            fits = array.shape == self._options.channels and checks.is_float(array.dtype)
            if fits and isinstance(array, Shadow) and array.place.device == self._home.device:
                double = devices.empty(array.shape, np.float64, self._home.place)
                verbs.put(backends.select(None, array), double, array)
                with self._lock, self._home.turn(LEGACY):  # which waits for the copy
                    return Vector(device=double)
        return super()._parameter(value, name)  # type: ignore[misc]

    # What it does ----------------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        training: Any = False,
        *,
        where: Any = None,
        weights: Any = None,
        residual: Any = None,
        out: Any = None,
    ) -> Any:
        """As `BatchNorm.__call__`."""
        given = {"where": where, "weights": weights, "residual": residual}
        array, back = checks.data(x)
        trains = checks.flag(training, "training")
        if not isinstance(array, Shadow) or not self._can(trains, where is weights is None):
            return super().__call__(x, trains, out=out, **given)  # type: ignore[misc]
        axes = self._options.axes_of(array)
        self._must_be_here(array)
        backends.select(self._options.backend, array)
        pick = picked(array, axes, where, weights, self._options.nan_policy)
        other = verbs.residual_of(residual, array)
        y, result = verbs.destination(out, array, back, others={"residual": other, **pick.views})
        layout = verbs.layout_of(array, y, axes, other, pick)
        if not (array.size and _device_state().is_direct(layout)):
            return super().__call__(x, trains, out=out, **given)  # type: ignore[misc]
        act = activations.kernel_form(self._options.activation)
        if not trains:
            self._infer(layout.unpicked(), act)
            return result()
        stats = self._train(layout, pick.omit, act)
        same = checks.same_memory(array, y)
        gamma, beta = self._home.gamma, self._home.beta
        self._step = Step(stats, gamma, beta, same, training_.remembered(x=x, **given))
        return result()

    def backward(self, dy: Any, x: Any = None, **how: Any) -> tuple[Any, ...]:
        """As `BatchNorm.backward`; after a training call on the device, dgamma and dbeta are arrays there."""
        step = self._step
        if not checks.flag(how.get("training", True), "training") or not isinstance(step, Step):
            return super().backward(dy, x, **how)  # type: ignore[misc, no-any-return]
        general = training_.Step([], 1.0, 0.0, None, None, step.overwritten, step.arrays)
        given = {name: general.array(name, how.get(name)) for name in ("where", "weights", "residual")}
        x = general.array("x", x)
        found = self._way_back(step, dy, x, how.get("out"), **given)
        if found is not None:
            return found
        self._step = self._on_host(step)
        try:
            return super().backward(dy, x, **how | given)  # type: ignore[misc, no-any-return]
        finally:
            self._step = step

    def to(self, device: str) -> Any:
        """As `BatchNorm.to`."""
        number = number_of(device)
        if number == self._home.device:
            return self
        host = self.on_host()
        return host if number is None else host.to(device)

    def on_host(self) -> Any:
        """An independent BatchNorm of the same options and state, on the host."""
        host: Any = object.__new__(type(self).__mro__[2])
        kept = {k: v for k, v in self.__dict__.items() if k not in ("_home", "_lock", "_step", "_parameters")}
        host.__setstate__(kept | {"_running": self._running, "_gamma": self._gamma, "_beta": self._beta})
        return host

    def copy(self, *, eps: float | None = None) -> Any:
        """As `BatchNorm.copy`, on the same device."""
        return moved(self.on_host().copy(eps=eps), self._home.device)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """On the host: another process may have no device."""
        return _brought, (self.on_host(),)

    def __repr__(self) -> str:
        text: str = super().__repr__()
        return text.replace(": ", f" on cuda:{self._home.device}: ", 1)

    # How -------------------------------------------------------------------------------------------

    def _can(self, trains: bool, everything: bool) -> bool:
        """Whether the device can do all of it without the host."""
        o = self._options
        if not self._home.direct:
            return False
        if not trains:
            return True
        without_nan = o.nan_policy == "omit" and replace(o, nan_policy="propagate").plain
        scheduled = callable(o.momentum) or isinstance(o.momentum, tuple)
        # A schedule needs the number of batches learned from, which only the device knows where it may skip some.
        counted = not scheduled or (o.plain and everything and o.nonfinite == "propagate")
        return (o.plain or without_nan) and self._adjustment is None and counted

    def _must_be_here(self, x: Shadow) -> None:
        if x.place.device != self._home.device:
            raise ValueError(
                f"`x` lies on {x.place!r} but this BatchNorm on cuda:{self._home.device}; move one of them, for "
                f"example with bn.to('{x.place!r}')"
            )

    def _infer(self, layout: Layout, act: Any) -> None:
        home, o, verbs_ = self._home, self._options, _device_state()
        place = _place(layout)
        with self._lock:
            gamma, beta = home.sent(home.gamma), home.sent(home.beta)
            with _in_order(layout), home.turn(place.stream):
                channels = layout.channels
                if not home.folded:
                    center = o.constant == "center"
                    verbs_.fold(home.running, channels, gamma, o.eps, center, home.scale, place)
                    home.folded = True
                verbs_.transform(layout, home.running[channels : 2 * channels], home.scale, beta, act, place)

    def _train(self, layout: Layout, omit: bool, act: Any) -> Shadow:
        home, o, verbs_ = self._home, self._options, _device_state()
        place = _place(layout)
        with self._lock:
            factor = o.factor(home.asked)
            gamma, beta = home.sent(home.gamma or home.ones), home.sent(home.beta)
            with _in_order(layout), home.turn(place.stream):
                into = home.stats, home.scale
                verbs_.train(layout, gamma, beta, o.eps, omit, act, place, into)
                skip = o.nonfinite == "skip"
                verbs_.learn(home.stats, home.running, home.batches, o.average, factor, o.ddof, skip, place)
                home.learned()
        return home.stats

    def _way_back(
        self, step: Step, dy: Any, x: Any, out: Any, where: Any, weights: Any, residual: Any
    ) -> tuple[Any, ...] | None:
        o, home = self._options, self._home
        array, back = checks.data(x)
        axes = o.axes_of(array)
        gradient = gradient_of(dy, array)
        pick = picked(array, axes, where, weights, "omit" if o.nan_policy == "omit" else None)
        other = verbs.residual_of(residual, array)
        dx, result = verbs.destination(out, array, back, others={"dy": gradient, "residual": other, **pick.views})
        arrays = {"x": array, "dy": gradient}
        if other is not None and o.activation is not None:
            arrays["residual"] = other
        forward, dz = canonical(arrays, axes, pick.views), None
        if "residual" in arrays:
            dz = arrays["dz"] = empty_like(dx, dx.dtype)
        if not checks.same_memory(dx, gradient):
            arrays["dx"] = dx
        layout, verbs_ = canonical(arrays, axes, pick.views), _device_state()
        if not (isinstance(array, Shadow) and verbs_.is_direct(forward) and verbs_.is_direct(layout)):
            return None
        if other is not None and dz is None:
            dz = verbs.converted(backends.select(None, gradient), gradient, dx.dtype)
        place, act = _place(layout), activations.kernel_form(o.activation)
        with self._lock:
            gamma, beta = home.sent(step.gamma), home.sent(step.beta)
            with _in_order(layout), home.turn(place.stream):
                sums = verbs_.gradients(forward, layout, step.stats, gamma, beta, o.eps, pick.omit, act)
        given = (devices.exported(s.reshape(o.channels), array) for s in sums)
        return (result(), *given, *(() if dz is None else (back(dz),)))

    def _on_host(self, step: Step) -> training_.Step:
        """A step as the general way back takes it."""
        with self._lock, self._home.turn(LEGACY):
            stats = devices.download(step.stats).reshape(3, -1)
        count, mean, m2 = (row.reshape(self._options.channels) for row in stats)
        gamma, beta = (None if p is None else p.on_host() for p in (step.gamma, step.beta))
        return training_.Step([(None, Moments(count, mean, m2))], 1.0, 0.0, gamma, beta, step.overwritten, step.arrays)


def moved(bn: Any, number: int) -> Any:
    """A copy of a BatchNorm of the host, on a device."""
    twin = object.__new__(_kind(type(bn)))
    own = ("_running", "_gamma", "_beta", "_lock", "_step", "_parameters")
    twin.__dict__.update({name: value for name, value in bn.__dict__.items() if name not in own})
    twin._lock, twin._step, twin._parameters = threading.RLock(), None, Parameters()
    twin._home = Home(number, bn._running, _vector(bn._gamma), _vector(bn._beta))
    return twin


def _brought(bn: Any) -> Any:
    """What a pickle of a moved BatchNorm becomes: the one of the host in it."""
    return bn


_kinds: dict[type, Any] = {}


def _kind(base: type) -> Any:
    """The class of what has been moved: `base`, with what `OnDevice` does otherwise."""
    if base not in _kinds:
        _kinds[base] = type(base.__name__, (OnDevice, base), {"__doc__": base.__doc__, "__module__": base.__module__})
    return _kinds[base]


def number_of(device: Any) -> int | None:
    """The number of a device; None for the host."""
    if not isinstance(device, str):
        raise TypeError(f"`device` is {device!r}; expected 'cpu', 'cuda', or 'cuda:1' and so on")
    kind, _, number = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise ValueError(f"`device` is {device!r}; expected 'cpu', 'cuda', or 'cuda:1' and so on")
    return int(number or 0)


def refuse(number: int, o: Options) -> None:
    """BackendUnavailableError where there is no such device, ValueError where the options do not go with one."""
    reason = probe.why_not()
    if reason is None and number >= len(probe.devices()):
        reason = f"there is no device {number}: the last one is {len(probe.devices()) - 1}"
    if reason is not None:
        raise backends.BackendUnavailableError(f"this BatchNorm cannot move to cuda:{number}: {reason}")
    if o.backend == "cpu":
        raise ValueError("this BatchNorm has backend='cpu'; make one with backend='auto', which may move to a device")


def _vector(value: NDArray | Vector | None) -> Vector | None:
    return value if value is None or isinstance(value, Vector) else Vector(value)


def _place(layout: Layout) -> Place:
    place: Place = layout.arrays["x"].place  # type: ignore[attr-defined]
    return place


def _device_state() -> Any:
    from ..backends import device_state

    return device_state


def _in_order(layout: Layout) -> Any:
    from ..backends import device

    return device.in_order(layout)
