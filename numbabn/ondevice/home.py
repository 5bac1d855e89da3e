"""Where the state of one BatchNorm lives on a device, and in which order streams may use it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..arrays import NDArray
from ..averages import Running
from ..devices import Place, Shadow, download, upload
from ..devices.driver import LEGACY, on

ROWS = ("count", "mean", "var")


class Home:
    """Running averages, gamma and beta on a device; their copies on the host are made when somebody asks.

    `running` is flat: rows of one number for each channel, those of `ROWS` first, then the one that the rule keeps
    besides; None where a rule keeps more, and the state stays on the host. `batches` is one int64.
    """

    def __init__(self, device: int, running: Running, gamma: Vector | None, beta: Vector | None) -> None:
        self.device = device
        self.place = Place(device, LEGACY, "numbabn")
        with on(device) as driver:
            self._mark = driver.new_event()
            driver.record(self._mark, LEGACY)
        self._last = LEGACY
        self.gamma, self.beta = gamma, beta
        self.known: Running | None = None
        self.put(running)

    def __del__(self) -> None:
        # The memory goes back in the order of the legacy stream, so that one waits for whatever used it last.
        with contextlib.suppress(Exception), on(self.device) as driver:
            driver.wait(LEGACY, self._mark)
            driver.free_event(self._mark)

    @contextlib.contextmanager
    def used_on(self, stream: int) -> Iterator[None]:
        """With the device current, and work on a stream in order with all that has used the state before."""
        with on(self.device) as driver:
            if stream != self._last:
                driver.wait(stream, self._mark)
            yield
            driver.record(self._mark, stream)
            self._last = stream

    def put(self, running: Running) -> None:
        """Send what was learned to the device."""
        kept = [name for name in running.arrays() if name not in ROWS]
        self.names = (*ROWS, *kept)
        self.direct = len(kept) <= 1 and all(getattr(running, name).shape == running.mean.shape for name in kept)
        self.scale: Shadow | None = None
        self.known, self.asked = running, running.batches
        if self.direct:
            rows = [np.asarray(getattr(running, name)).reshape(-1) for name in self.names]
            with self.used_on(LEGACY):
                self.running = upload(np.concatenate(rows), self.place)
                self.batches = upload(np.array([running.batches]), self.place)

    def learned(self) -> None:
        """The device has learned: what the host knew is of yesterday."""
        self.known = self.scale = None
        self.asked += 1

    def get(self, shape: tuple[int, ...]) -> Running:
        """What was learned, on the host; waits for the device if it has changed there."""
        known = self.known
        if known is None:
            with self.used_on(LEGACY):
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

    def on_device(self, place: Place) -> Shadow:
        """float64, (channels,)."""
        if self._device is None:
            assert self._host is not None
            self._device = upload(self._host, place).reshape(-1)  # type: ignore[assignment]
        return self._device.reshape(-1)  # type: ignore[union-attr, return-value]
