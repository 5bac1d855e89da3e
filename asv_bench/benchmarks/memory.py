"""Memory: the peak of a whole process, and what a call takes beyond x and out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import numbabn

from . import array, check_trained, scale, touched

PROBE = Path(__file__).with_name("probe.py")


def extra(case, mib, *verbs):
    """{verb: bytes of extra peak memory}, measured in a process of its own (see probe.py)."""
    # -P: this folder is no place to import from, its modules have common names.
    command = [sys.executable, "-P", os.fspath(PROBE), case, str(mib), *verbs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the probe failed on {case}: {done.stderr}")
    return json.loads(done.stdout)


class Extra:
    """Growth of the resident set's peak, beyond x and out, during one call on 64 MiB of float32: the worst verb.

    The peak resident set of a process and not tracemalloc, which sees NumPy's allocations and none that a
    compiled kernel makes.
    """

    params = (("rows", "fortran", "columns", "nchw", "big-endian", "uint8", "strided"),)
    param_names = ("case",)

    def setup(self, case):
        self.extra = max(extra(case, max(1, round(64 * scale())), "moments", "normalize", "batch_norm").values())

    def track_extra(self, case):
        return self.extra

    track_extra.unit = "bytes"


class ExtraOfOthers:
    """The same of the way back, and of moments without what is NaN."""

    params = (("rows", "columns", "nchw"), ("backward", "omit"))
    param_names = ("case", "verb")

    def setup(self, case, verb):
        self.extra = extra(case, max(1, round(64 * scale())), verb)[verb]

    def track_extra(self, case, verb):
        return self.extra

    track_extra.unit = "bytes"


class Peak:
    """The peak of a process with Python, numba, x and out in it: 32 MiB each."""

    params = (("rows-64", "nchw"),)
    param_names = ("layout",)

    def setup(self, layout):
        self.x, self.axis = array(layout)
        self.out = touched(self.x)
        # A few values alone: checked in float64, the whole of x would be the peak.
        few = np.ascontiguousarray(self.x[:20, :, :20]) if self.x.ndim > 2 else self.x[:20].copy()
        y, _ = numbabn.batch_norm(few, axis=self.axis)
        check_trained(y, few, self.axis)

    def peakmem_moments(self, layout):
        numbabn.moments(self.x, axis=self.axis)

    def peakmem_batch_norm(self, layout):
        numbabn.batch_norm(self.x, axis=self.axis, out=self.out)
