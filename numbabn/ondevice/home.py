"""Where the state of one BatchNorm lives on a device, and in which order streams may use it."""

from __future__ import annotations

import contextlib

import numpy as np

from ..arrays import NDArray
from ..averages import Running
from ..devices import Place, Shadow, download, empty, upload
from ..devices.driver import LEGACY, Driver, Mark
from .again import Note, Plans

ROWS = ("count", "mean", "var")


class Home:
    """Running averages, gamma and beta on a device; their copies on the host are made when somebody asks.

    `running` is flat: rows of one number for each channel, those of `ROWS` first, then the one that the rule keeps
    besides; None where a rule keeps more, and the state stays on the host. `batches` is one int64. `stats` are those of
    the last batch, and `scale` what inference multiplies by, where it is `folded`. Streams take turns with all of it.
    """

    def __init__(self, device: int, running: Running, gamma: Vector | None, beta: Vector | None) -> None:
        self.device = device
        self.mark = Mark(device)
        self.place = Place(device, LEGACY, "numbabn", mark=self.mark)
        self.gamma, self.beta = gamma, beta
        self.ones = Vector(np.ones(running.mean.shape))
        self.stats, self.scale = (empty((n * running.mean.size,), np.float64, self.place) for n in (3, 1))
        self.known: Running | None = None
        self.plans = Plans()
        self.put(running)

    def turn(self, stream: int) -> contextlib.AbstractContextManager[Driver]:
        """As `Mark.turn`."""
        return self.mark.turn(stream)

    def put(self, running: Running) -> None:
        """Send what was learned to the device."""
        kept = [name for name in running.arrays() if name not in ROWS]
        self.names = (*ROWS, *kept)
        self.direct = len(kept) <= 1 and all(getattr(running, name).shape == running.mean.shape for name in kept)
        self.changed()
        self.known, self.asked = running, running.batches
        if self.direct:
            rows = [np.asarray(getattr(running, name)).reshape(-1) for name in self.names]
            with self.turn(LEGACY):
                self.running = upload(np.concatenate(rows), self.place)
                self.batches = upload(np.array([running.batches]), self.place)

    def changed(self) -> None:
        """The parameters are others."""
        self.folded = False
        self.plans.clear()

    def scratch(self, place: Place, note: Note | None) -> Place:
        """A place for scratch: where a call is noted it is used again, by whatever stream takes its turn."""
        return place if note is None else Place(place.device, place.stream, place.library, mark=self.mark)

    def sent(self, vector: Vector | None) -> Shadow | None:
        """Gamma or beta there, for whoever takes his turn after this."""
        return None if vector is None else vector.on_device(self)

    def learned(self) -> None:
        """The device has learned: what the host knew is of yesterday."""
        self.known, self.folded = None, False
        self.asked += 1

    def get(self, shape: tuple[int, ...]) -> Running:
        """What was learned, on the host; waits for the device if it has changed there."""
        known = self.known
        if known is None:
            with self.turn(LEGACY):
                values, batches = download(self.running), download(self.batches)
            rows = values.reshape(len(self.names), *shape)
            named = {name: np.array(row) for name, row in zip(self.names, rows, strict=True)}
            known = self.known = Running(int(batches[0]), **named)
        return known


class Vector:
    """Gamma or beta on both sides: given on one, and copied to the other when somebody asks."""

    def __init__(self, host: NDArray | None = None, device: Shadow | None = None) -> None:
        self._host, self._device = host, device

    def on_host(self) -> NDArray:
        """float64, of the channels' shape, read-only."""
        if self._host is None:
            assert self._device is not None
            self._host = download(self._device)
            self._host.flags.writeable = False
        return self._host

    def on_device(self, home: Home) -> Shadow:
        """float64, (channels,)."""
        if self._device is None:
            assert self._host is not None
            with home.turn(LEGACY):
                self._device = upload(self._host, home.place)
        return self._device.reshape(-1)  # type: ignore[return-value]
