"""The way back through a training call of a BatchNorm that lives on a device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import activations, backends, checks, devices, verbs
from .. import training as training_
from ..arrays import NDArray, empty_like
from ..backward import gradient_of
from ..devices import Place, Shadow
from ..devices.alike import glanced
from ..devices.driver import LEGACY
from ..layout import Layout, canonical
from ..options import Options
from ..picks import picked
from ..statistics import Moments
from .again import Note
from .home import Home, Vector


@dataclass(slots=True)
class Step:
    """What the way back needs of a training call on the device."""

    stats: Shadow
    gamma: Vector | None
    beta: Vector | None
    overwritten: bool
    arrays: dict[str, Any]


class WayBack:
    """What `OnDevice` does for the gradients of a training call."""

    _options: Options
    _home: Home
    _lock: Any
    _step: Any

    def backward(
        self,
        dy: Any,
        x: Any = None,
        *,
        training: Any = True,
        where: Any = None,
        weights: Any = None,
        residual: Any = None,
        out: Any = None,
    ) -> tuple[Any, ...]:
        """As `BatchNorm.backward`; after a training call on the device, dgamma and dbeta are arrays there."""
        step = self._step
        if training is True and where is weights is None and isinstance(step, Step):
            done = self._back_as_before(step, dy, x, residual, out)
            if done is not None:
                return done
        given = {"where": where, "weights": weights, "residual": residual}
        if not checks.flag(training, "training") or not isinstance(step, Step):
            return super().backward(dy, x, training=training, out=out, **given)  # type: ignore[misc, no-any-return]
        general = training_.Step([], 1.0, 0.0, None, None, step.overwritten, step.arrays)
        given = {name: general.array(name, value) for name, value in given.items()}
        x = general.array("x", x)
        found = self._way_back(step, dy, x, out, **given)
        if found is not None:
            return found
        self._step = self._on_host(step)
        try:
            return super().backward(dy, x, out=out, **given)  # type: ignore[misc, no-any-return]
        finally:
            self._step = step

    def _way_back(
        self, step: Step, dy: Any, x: Any, out: Any, where: Any, weights: Any, residual: Any
    ) -> tuple[Any, ...] | None:
        o, home = self._options, self._home
        array, back = checks.data(x)
        if isinstance(array, Shadow):
            backends.select(o.backend, array)
            self._must_be_here(array)
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
        layout, verbs_ = canonical(arrays, axes, pick.views), device_state()
        if not (isinstance(array, Shadow) and array.size and verbs_.is_direct(forward) and verbs_.is_direct(layout)):
            return None
        place, act = place_of(layout), activations.kernel_form(o.activation)
        ways = devices.flat_like(array, 4 * layout.channels)
        note = None
        if where is weights is None and (other is None or dz is not None):
            fresh = [(a, devices.made_again(a)) for a in (dx if out is None else None, dz) if a is not None]
            fresh.append((ways, devices.flat_again(ways)))
            seen = array, gradient, other, None if out is None else dx
            note = self._note("back", (x, dy, residual, out), seen, fresh)
        if other is not None and dz is None:
            dz = verbs.converted(backends.select(None, gradient), gradient, dx.dtype)
        with self._lock:
            gamma, beta = home.sent(step.gamma), home.sent(step.beta)
            with in_order(layout), home.plans.noted(note, o, step.gamma, step.beta), home.turn(place.stream):
                scratch = home.scratch(place, note)
                verbs_.gradients(forward, layout, step.stats, gamma, beta, o.eps, pick.omit, act, ways, scratch)
        return result(), *self._of_parameters(ways), *(() if dz is None else (back(dz),))

    def _back_as_before(self, step: Step, dy: Any, x: Any, residual: Any, out: Any) -> tuple[Any, ...] | None:
        """What a way back gives that is as one before; None where it is not."""
        kept = step.arrays
        if "where" in kept or "weights" in kept:
            return None
        if x is None:
            x = None if step.overwritten else kept["x"]()
        if residual is None and "residual" in kept:
            residual = kept["residual"]()
        if x is None or (residual is None and "residual" in kept):
            return None  # the general way says why
        home, o = self._home, self._options
        here = (o.backend or backends.current()) != "cpu"
        kind = glanced("back", home.device, x, dy, residual, out) if here else None
        if kind is None:
            return None
        _, pointers, stream = kind
        with self._lock:
            plan = home.plans.made(kind, o, step.gamma, step.beta)
            new = None if plan is None else plan.fresh(x, pointers)
            if plan is None or new is None:
                return None
            pushed = home.mark.begin(stream)
            try:
                plan.launch(pointers, stream)
            finally:
                home.mark.end(stream, pushed)
        *made, ways = new
        arrays = [devices.given_back(a) for a in made]
        dx = arrays.pop(0) if out is None else out
        return (dx, *self._of_parameters(ways), *arrays)

    def _of_parameters(self, ways: Any) -> tuple[Any, Any]:
        """The gradients of gamma and beta, out of the four rows of `device_state.gradients`."""
        shape = self._options.channels
        size = math.prod(shape)
        return devices.part_of(ways, 2 * size, shape), devices.part_of(ways, 3 * size, shape)

    def _note(self, verb: str, arrays: tuple[Any, ...], seen: tuple[NDArray | None, ...], fresh: list[Any]) -> Any:
        """What to remember of a call without picks: the arrays of its caller, as they were seen, and the new ones."""
        kind = glanced(verb, self._home.device, *arrays)
        return None if kind is None else Note(kind, tuple(a for a in seen if a is not None), fresh)

    def _must_be_here(self, x: Shadow) -> None:
        if x.place.device != self._home.device:
            raise ValueError(
                f"`x` lies on {x.place!r} but this BatchNorm on cuda:{self._home.device}; move one of them, for "
                f"example with bn.to('{x.place!r}')"
            )

    def _on_host(self, step: Step) -> training_.Step:
        """A step as the general way back takes it."""
        with self._lock, self._home.turn(LEGACY):
            stats = devices.download(step.stats).reshape(3, -1)
        count, mean, m2 = (row.reshape(self._options.channels) for row in stats)
        gamma, beta = (None if p is None else p.on_host() for p in (step.gamma, step.beta))
        return training_.Step([(None, Moments(count, mean, m2))], 1.0, 0.0, gamma, beta, step.overwritten, step.arrays)


def place_of(layout: Layout) -> Place:
    """The place of x."""
    place: Place = layout.arrays["x"].place  # type: ignore[attr-defined]
    return place


def device_state() -> Any:
    """The verbs of a state on a device, which load numba."""
    from ..backends import device_state

    return device_state


def in_order(layout: Layout) -> Any:
    """As `device.in_order`."""
    from ..backends import device

    return device.in_order(layout)
