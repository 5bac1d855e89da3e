"""On a CUDA device: arrays that are there, arrays of the host by way of it, and what a training step costs the host.

Skipped where CUDA cannot run. Every timed body ends when the device has done its work.
"""

import numpy as np

import numbabn
from numbabn import devices
from numbabn.devices import DeviceArray, Place, probe
from numbabn.devices.driver import LEGACY, on

from . import Timed, array, check_trained

LAYOUTS = ("rows-3", "rows-64", "rows-1024", "nchw", "nchw-2048", "nhwc-2048")


def needs_a_device():
    """Skip where there is none; the simulator is no device to be timed."""
    if probe.simulated() or probe.why_not() is not None:
        raise NotImplementedError


def send(a):
    """A contiguous copy on the device."""
    return DeviceArray(devices.upload(np.ascontiguousarray(a), Place(0, LEGACY, "numbabn")))


def done():
    """Wait for the device."""
    with on(0) as driver:
        driver.synchronize(LEGACY)


class OnDevice(Timed):
    """A BatchNorm that lives on the device, and an array there."""

    params = (LAYOUTS,)
    param_names = ("layout",)

    def prepare(self, layout):
        needs_a_device()
        x, axis = array(layout)
        self.x, self.out = send(x), send(np.full_like(x, np.nan))
        self.bn = numbabn.BatchNorm(x.shape[axis], axis=axis).to("cuda")
        self.bn(self.x, training=True, out=self.out)
        check_trained(devices.download(devices.taken(self.out, "out")[0]), x, axis, 1, 0)

    def time_training(self, layout):
        self.bn(self.x, training=True, out=self.out)
        done()

    def time_inference(self, layout):
        self.bn(self.x, out=self.out)
        done()

    def time_backward(self, layout):
        self.bn.backward(self.out, self.x)
        done()


class Host(Timed):
    """What one training step costs the host, which does not wait: a hundred steps on a small array."""

    def prepare(self):
        needs_a_device()
        self.x = send(np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32))
        self.bn = numbabn.BatchNorm(64).to("cuda")
        self.bn(self.x, training=True)
        done()

    def time_hundred_steps(self):
        for _ in range(100):
            self.bn(self.x, training=True, out=self.x)

    def teardown(self):
        if hasattr(self, "bn"):  # also called where setup found no device
            done()


class Streamed(Timed):
    """Host arrays by way of the device."""

    params = (("rows-64", "nchw"),)
    param_names = ("layout",)

    def prepare(self, layout):
        needs_a_device()
        self.x, self.axis = array(layout)
        self.out = np.full_like(self.x, np.nan)
        self.time_batch_norm(layout)
        check_trained(self.out, self.x, self.axis, 1, 0)

    def time_batch_norm(self, layout):
        numbabn.batch_norm(self.x, axis=self.axis, out=self.out, backend="cuda")
