"""CUDA: copies between a contiguous array and one of any strides, element by element."""

from numba import cuda

from .cuda_jit import kernel
from .jit import helper


@helper
def place_of(e, start, shape, steps):
    """Where element e, in C order, of an array of a shape lies: start + the sum of index * step."""
    at = start
    for d in range(len(shape) - 1, -1, -1):
        at += e % shape[d] * steps[d]
        e //= shape[d]
    return at


@kernel
def gather(strided, start, contiguous, size, shape, steps):
    """contiguous = strided."""
    e = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while e < size:
        contiguous[e] = strided[place_of(e, start, shape, steps)]
        e += cuda.gridDim.x * cuda.blockDim.x


@kernel
def scatter(strided, start, contiguous, size, shape, steps):
    """strided = contiguous."""
    e = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while e < size:
        strided[place_of(e, start, shape, steps)] = contiguous[e]
        e += cuda.gridDim.x * cuda.blockDim.x
