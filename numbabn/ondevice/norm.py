"""What a BatchNorm does otherwise when its state lives on a device."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from .. import activations, backends, checks, devices, verbs
from .. import training as training_
from ..arrays import NDArray, take
from ..averages import Running
from ..devices import Shadow, probe
from ..devices.alike import glanced
from ..devices.driver import LEGACY
from ..layout import Layout
from ..options import Options
from ..picks import picked
from .again import Note
from .back import Step, WayBack, device_state, in_order, place_of
from .home import Home, Vector

VERBS = {False: "infer", True: "train"}


class OnDevice(WayBack):
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
        self._home.gamma = _vector(value)
        self._home.changed()

    @property
    def _beta(self) -> NDArray | None:
        return None if self._home.beta is None else self._home.beta.on_host()

    @_beta.setter
    def _beta(self, value: NDArray | Vector | None) -> None:
        self._home.beta = _vector(value)
        self._home.changed()

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
        plain = where is weights is None
        if plain and self._home.plans and isinstance(training, bool):
            done = self._as_before(training, x, residual, out)
            if done is not None:
                return done
        given = {"where": where, "weights": weights, "residual": residual}
        array, back = checks.data(x)
        trains = checks.flag(training, "training")
        if not isinstance(array, Shadow) or not self._can(trains, where is weights is None):
            return super().__call__(x, trains, out=out, **given)  # type: ignore[misc]
        backends.select(self._options.backend, array)
        axes = self._options.axes_of(array)
        self._must_be_here(array)
        pick = picked(array, axes, where, weights, self._options.nan_policy)
        other = verbs.residual_of(residual, array)
        y, result = verbs.destination(out, array, back, others={"residual": other, **pick.views})
        layout = verbs.layout_of(array, y, axes, other, pick)
        if not (array.size and device_state().is_direct(layout)):
            return super().__call__(x, trains, out=out, **given)  # type: ignore[misc]
        act = activations.kernel_form(self._options.activation)
        note = None
        if plain and not (trains and self._scheduled):
            seen = array, other, None if out is None else y
            fresh = [(y, devices.made_again(y))] if out is None else []
            note = self._note(VERBS[trains], (x, residual, out), seen, fresh)
        if not trains:
            self._infer(layout.unpicked(), act, note)
            return result()
        stats = self._train(layout, pick.omit, act, note)
        same = checks.same_memory(array, y)
        gamma, beta = self._home.gamma, self._home.beta
        self._step = Step(stats, gamma, beta, same, training_.remembered(x=x, **given))
        return result()

    def to(self, device: str) -> Any:
        """As `BatchNorm.to`."""
        number = number_of(device)
        if number == self._home.device:
            return self
        host = self.on_host()
        return host if number is None else host.to(device)

    def on_host(self) -> Any:
        """An independent BatchNorm of the same options and state, on the host."""
        host: Any = object.__new__(type(self).__bases__[1])
        kept = {k: v for k, v in self.__dict__.items() if k not in ("_home", "_lock", "_step", "_inference")}
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
        # A schedule needs the number of batches learned from, which only the device knows where it may skip some.
        counted = not self._scheduled or (o.plain and everything and o.nonfinite == "propagate")
        return (o.plain or without_nan) and self._adjustment is None and counted

    @property
    def _scheduled(self) -> bool:
        momentum = self._options.momentum
        return callable(momentum) or isinstance(momentum, tuple)

    def _as_before(self, trains: bool, x: Any, residual: Any, out: Any) -> Any:
        """The result of a call that is as one before; None where it is not."""
        home, o = self._home, self._options
        here = (o.backend or backends.current()) != "cpu"
        kind = glanced(VERBS[trains], home.device, x, residual, out) if here else None
        if kind is None:
            return None
        _, pointers, stream = kind
        with self._lock:
            plan = home.plans.made(kind, o)
            fold = None if trains or home.folded else home.plans.fold(o)
            if plan is None or not (trains or home.folded or fold):
                return None
            new = plan.fresh(x, pointers)
            if new is None:
                return None
            pushed = home.mark.begin(stream)
            try:
                if fold is not None:
                    fold((), stream)
                    home.folded = True
                plan.launch(pointers, stream)
            finally:
                home.mark.end(stream, pushed)
            if trains:
                home.learned()
                given = {"x": training_.reference(x)}
                if residual is not None:
                    given["residual"] = training_.reference(residual)
                same = out is not None and pointers[0] == pointers[-1]
                self._step = Step(home.stats, home.gamma, home.beta, same, given)
        return devices.given_back(new[0]) if new else out

    def _infer(self, layout: Layout, act: Any, note: Note | None) -> None:
        home, o, verbs_ = self._home, self._options, device_state()
        place = place_of(layout)
        with self._lock:
            gamma, beta = home.sent(home.gamma), home.sent(home.beta)
            channels = layout.channels
            with in_order(layout):
                if not home.folded:
                    with home.plans.noted_fold(o), home.turn(place.stream):
                        center = o.constant == "center"
                        verbs_.fold(home.running, channels, gamma, o.eps, center, home.scale, place)
                    home.folded = True
                with home.plans.noted(note, o), home.turn(place.stream):
                    verbs_.transform(layout, home.running[channels : 2 * channels], home.scale, beta, act, place)

    def _train(self, layout: Layout, omit: bool, act: Any, note: Note | None) -> Shadow:
        home, o, verbs_ = self._home, self._options, device_state()
        place = place_of(layout)
        with self._lock:
            factor = o.factor(home.asked)
            gamma, beta = home.sent(home.gamma or home.ones), home.sent(home.beta)
            with in_order(layout), home.plans.noted(note, o), home.turn(place.stream):
                into = home.stats, home.scale
                verbs_.train(layout, gamma, beta, o.eps, omit, act, home.scratch(place, note), into)
                skip = o.nonfinite == "skip"
                verbs_.learn(home.stats, home.running, home.batches, o.average, factor, o.ddof, skip, place)
                home.learned()
        return home.stats


def moved(bn: Any, number: int) -> Any:
    """A copy of a BatchNorm of the host, on a device."""
    twin = object.__new__(_kind(type(bn)))
    own = ("_running", "_gamma", "_beta", "_lock", "_step", "_inference")
    twin.__dict__.update({name: value for name, value in bn.__dict__.items() if name not in own})
    twin._lock, twin._step, twin._inference = threading.RLock(), None, None
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
