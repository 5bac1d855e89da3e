"""The door to numba's CUDA target for the kernels of this room.

A kernel is a function of flat arrays, numbers, tuples of them and None, which compiles for each combination of types it
is launched with. What it calls of this room is compiled for the device from the same source as for the CPU. With the
simulator (NUMBA_ENABLE_CUDASIM=1, and NUMBA_DISABLE_JIT=1 for what is called) it runs as plain Python.
"""

from collections.abc import Callable
from typing import Any

from numba import cuda


def kernel(function: Callable[..., Any]) -> Any:
    """A kernel, to be launched over a grid of blocks."""
    return cuda.jit(function)


def device(function: Callable[..., Any]) -> Any:
    """A function for kernels that uses the block it runs in: shared memory, barriers."""
    return cuda.jit(device=True)(function)
