"""What memory allows: the fastest plain copy of x and the fastest plain read of it, on as many threads as all have."""

import importlib.util

import numba
import numpy as np

from numbabn.backends.threads import parallel_for

from .contender import Contender

PARTS = 32  # pieces that the threads share


def references(p):
    """Copies of x into out, and reads of x; the fastest of each is a unit."""
    return [*_copies(p), *_reads(p)]


def check_reference(p, reference, result):
    """AssertionError unless a copy is one, and a read has seen every value."""
    if reference.library == "copy":
        if not all((p.out[s] == p.x[s]).all() for s in p.slabs()):
            raise AssertionError(f"{reference.name} did not copy {p.x.shape}")
        return
    memory, columns = _words(p.x)
    if reference.form == "numba":  # of bits, exactly
        true, bound = memory[:, columns].sum(dtype=np.uint64), 0
    else:
        true, bound = float(_floats(p.x).sum(dtype=np.float64)), 1e-2
    if not abs(float(result) - float(true)) <= bound * abs(float(true)):
        raise AssertionError(f"{reference.name} of {p.x.shape} gave {result}, not {true}")


def _copies(p):
    x, out = (_flat(a) for a in (p.x, p.out))
    if x is None or out is None:
        x, out = p.x, p.out
    at = _parts(len(x))

    def part(lo, hi):
        for s in at[lo:hi]:
            np.copyto(out[s], x[s])

    found = [Contender("copy", "np.copyto", lambda: parallel_for(part, PARTS))]
    if importlib.util.find_spec("torch") is not None:
        from .with_torch import tensor

        source, target = tensor(x), tensor(out)
        found.append(Contender("copy", "torch", lambda: target.copy_(source)))
    return found


def _reads(p):
    found = [Contender("read", "numba", _bits(*_words(p.x)))]
    floats = _floats(p.x)
    if floats.flags.c_contiguous:
        at = _parts(floats.size)

        def numpy_sum():
            sums = np.zeros(PARTS)

            def part(lo, hi):
                for k in range(lo, hi):
                    sums[k] = floats[at[k]].sum()

            parallel_for(part, PARTS)
            return sums.sum()

        found.append(Contender("read", "np.sum", numpy_sum))
    if importlib.util.find_spec("torch") is not None:
        import torch

        found.append(Contender("read", "torch.sum", torch.from_numpy(floats).sum))
    return found


def _parts(length):
    return [slice(length * k // PARTS, length * (k + 1) // PARTS) for k in range(PARTS)]


def _flat(a):
    """All values of a contiguous array in the order of memory; None for another."""
    return a.reshape(-1) if a.flags.c_contiguous else a.T.reshape(-1) if a.flags.f_contiguous else None


def _floats(x):
    """x, or its memory as float32 where it holds 16-bit floats: converting them would take longer than reading."""
    flat = x if _flat(x) is None else _flat(x)
    return flat[: flat.size // 2 * 2].view(np.float32) if x.itemsize == 2 else flat


def _words(x):
    """(unsigned integers in C order with two axes, the columns of them that are x)."""
    flat = _flat(x)
    if flat is not None:
        memory, first, last = flat[None], 0, flat.size
    else:
        memory, step = x.base, x.itemsize
        if memory.ndim != 2 or x.ndim != 2 or x.strides != memory.strides or len(x) != len(memory):
            raise ValueError(f"an array of shape {x.shape} and strides {x.strides} is no column slice of its base")
        first = (x.ctypes.data - memory.ctypes.data) // step
        last = first + x.shape[1]
    size = next(s for s in (8, 4, 2, 1) if not any(n * x.itemsize % s for n in (memory.shape[1], first, last)))
    columns = slice(first * x.itemsize // size, last * x.itemsize // size)
    return memory.view(f"u{size}"), columns


def _bits(words, columns):
    """The sum of all words, in parts: nothing but reading."""
    long = len(words) < PARTS
    at = _parts(columns.stop - columns.start if long else len(words))

    def of_part(part):
        if long:
            return sum(_sum(row[columns][part]) for row in words)
        return _sum_of_rows(words, part.start, part.stop, columns.start, columns.stop)

    def work():
        sums = np.zeros(PARTS, np.uint64)

        def some(lo, hi):
            for k in range(lo, hi):
                sums[k] = of_part(at[k])

        parallel_for(some, PARTS)
        return sums.sum()

    return work


@numba.njit(nogil=True)
def _sum(a):
    """Four streams at once: more than one are needed to keep memory busy."""
    quarter = a.size // 4
    s0 = s1 = s2 = s3 = np.uint64(0)
    for j in range(quarter):
        s0 += a[j]
        s1 += a[j + quarter]
        s2 += a[j + 2 * quarter]
        s3 += a[j + 3 * quarter]
    for j in range(4 * quarter, a.size):
        s0 += a[j]
    return s0 + s1 + s2 + s3


@numba.njit(nogil=True)
def _sum_of_rows(a, r0, r1, c0, c1):
    total = np.uint64(0)
    for i in range(r0, r1):
        for j in range(c0, c1):
            total += a[i, j]
    return total
