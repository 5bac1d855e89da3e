"""The way back through a training call of a BatchNorm that lives on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import activations, backends, checks, devices, verbs
from .. import training as training_
from ..arrays import empty_like
from ..backward import gradient_of
from ..devices import Place, Shadow
from ..devices.driver import LEGACY
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


class WayBack:
    """What `OnDevice` does for the gradients of a training call."""

    _options: Options
    _home: Home
    _lock: Any
    _step: Any

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
        layout, verbs_ = canonical(arrays, axes, pick.views), device_state()
        if not (isinstance(array, Shadow) and verbs_.is_direct(forward) and verbs_.is_direct(layout)):
            return None
        if other is not None and dz is None:
            dz = verbs.converted(backends.select(None, gradient), gradient, dx.dtype)
        place, act = place_of(layout), activations.kernel_form(o.activation)
        with self._lock:
            gamma, beta = home.sent(step.gamma), home.sent(step.beta)
            with in_order(layout), home.turn(place.stream):
                ways = devices.flat_like(array, 4 * layout.channels)
                verbs_.gradients(forward, layout, step.stats, gamma, beta, o.eps, pick.omit, act, ways)
        given = (devices.part_of(ways, k * layout.channels, o.channels) for k in (2, 3))
        return (result(), *given, *(() if dz is None else (back(dz),)))

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
