"""Whether array objects are such that a call can take them as they are: by their headers, as `job.py` has them.

Nothing is read of an object but its type, unless that says that it is an array.
"""

from .jit import helper
from .job import (
    ALIGNED,
    ARRAY,
    CONTIGUOUS,
    DATA,
    DIMENSIONS,
    DOUBLE,
    DTYPE,
    FLAGS,
    HALF,
    IN_PLACE,
    LENGTHS,
    NDIM,
    SHAPE,
    SINGLE,
    STEPS,
    STRIDES,
    TYPE,
    WRITABLE,
)
from .memory import at
from .objects import words_at


@helper
def header(job, array, k):
    """A word of the header of an array object."""
    return words_at(array)[job[DATA] + k]


@helper
def is_array(job, array, flags):
    """Whether an object is a NumPy array, of no class of its own, that has some flags."""
    return header(job, array, TYPE) == job[ARRAY] and header(job, array, FLAGS) & flags == flags


@helper
def is_single(job, array):
    """Whether an array is float32."""
    return header(job, array, DTYPE) == job[SINGLE]


@helper
def is_double(job, array):
    """Whether an object is an array of the channels, float64 and contiguous."""
    return _of_channels(job, array) and header(job, array, DTYPE) == job[DOUBLE]


@helper
def is_parameter(job, array):
    """The same of float32 too, and of what is absent, 0."""
    if array == 0:
        return True
    return _of_channels(job, array) and (is_single(job, array) or header(job, array, DTYPE) == job[DOUBLE])


@helper
def is_result(job, array, x):
    """Whether an object is an array that a result can be written to, which is like x, or may be x."""
    if array == x and job[IN_PLACE] == 0:
        return False
    return _is_like(job, array, x, WRITABLE) and (job[STRIDES] == 0 or _lies(job, array, at(job, job[STRIDES])))


@helper
def is_other(job, array, x):
    """Whether an object is an array that is like x, and lies as x does."""
    if not _is_like(job, array, x, ALIGNED):
        return False
    return job[STRIDES] == 0 or _lies(job, array, words_at(header(job, x, STEPS)))


@helper
def _of_channels(job, array):
    if not is_array(job, array, ALIGNED | CONTIGUOUS) or _ndim(job, array) != job[DIMENSIONS]:
        return False
    return _same(words_at(header(job, array, SHAPE)), at(job, job[LENGTHS]), job[DIMENSIONS])


@helper
def _is_like(job, array, x, flags):
    flags |= ALIGNED if job[STRIDES] != 0 else ALIGNED | CONTIGUOUS
    if not is_array(job, array, flags) or header(job, array, DTYPE) != header(job, x, DTYPE):
        return False
    n = _ndim(job, x)
    if _ndim(job, array) != n:
        return False
    return _same(words_at(header(job, array, SHAPE)), words_at(header(job, x, SHAPE)), n)


@helper
def _lies(job, array, strides):
    return _same(words_at(header(job, array, STEPS)), strides, _ndim(job, array))


@helper
def _ndim(job, array):
    return header(job, array, NDIM) & HALF


@helper
def _same(a, b, n):
    same = True
    for d in range(n):
        same = same and a[d] == b[d]
    return same
