"""The arrays of versus.py: their shapes, their order in memory, and what is done with them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from benchmarks import scaled

BIG = (
    "moments",
    "inference",
    "denormalize",
    "train",
    "backward",
    "update",
    "masked",
    "positions",
    "weighted",
    "omitting",
)
LINES = ("samples", "lines")  # of what has more axes than samples and channels
MAIN = ("moments", "inference", "train", "backward")  # of the types beside float32
SMALL = ("moments", "inference", "train", "backward", "step", "layer", "update")
PICKED = (*BIG[6:], *LINES)  # moments of what counts
TASKS = (*BIG[:5], "step", "layer", BIG[5], *PICKED)
DTYPES = ("float32", "float64", "float16", "bfloat16")


def _itself(memory: np.ndarray) -> np.ndarray:
    return memory


@dataclass(frozen=True)
class Workload:
    """`view` makes x from its memory, an array of `shape` in C order whose channels lie along `memory_axis`."""

    name: str
    order: str
    shape: tuple[int, ...]
    axis: int
    view: Callable[[np.ndarray], np.ndarray] = _itself
    memory_axis: int | None = None
    tasks: tuple[str, ...] = BIG
    dtypes: tuple[str, ...] = field(default=("float32",))

    @property
    def small(self) -> bool:
        """Whether a call takes microseconds: measured by itself, at any scale the same."""
        return self.tasks is SMALL

    def tasks_in(self, dtype: str) -> tuple[str, ...]:
        """What is done with this array in this type."""
        return self.tasks if dtype == "float32" else MAIN

    def memory(self, factor: float) -> tuple[int, ...]:
        """The shape of the memory, smaller by the factor."""
        if self.small:
            return self.shape
        return scaled(self.shape, self.axis if self.memory_axis is None else self.memory_axis, factor)


def _rows(n: int, channels: int) -> Workload:
    return Workload(f"rows-{channels}", "rows", (n, channels), 1)


def _planes(n: int, channels: int, side: int) -> Workload:
    return Workload(f"nchw-{side}", "NCHW", (n, channels, side, side), 1, tasks=(*BIG, *LINES))


def _last(w: Workload) -> Workload:
    n, c, h, width = w.shape
    return replace(w, name=w.name.replace("nchw", "nhwc"), order="NHWC", shape=(n, h, width, c), axis=3)


def _small(*shape: int) -> Workload:
    order = "rows" if len(shape) == 2 else "NCHW"
    return Workload(f"small-{'x'.join(map(str, shape))}", order, shape, 1, tasks=SMALL)


_ROWS = (_rows(1_048_576, 64), _rows(65_536, 1024), _rows(4_194_304, 16), _rows(16_777_216, 3))
_PLANES = (_planes(64, 64, 112), _planes(32, 256, 56), _planes(256, 3, 224), _planes(32, 2048, 7))
WORKLOADS = (
    *(replace(w, dtypes=DTYPES) for w in _ROWS),
    _rows(4096, 16_384),
    *_PLANES,
    *map(_last, _PLANES),
    Workload("fortran", "Fortran", (64, 1_048_576), 1, lambda a: a.T, 0),
    Workload("columns", "columns", (1_048_576, 128), 1, lambda a: a[:, 32:96]),
    _small(32, 64),
    _small(256, 128),
    _small(8, 16, 28, 28),
    _small(1, 64),
)
