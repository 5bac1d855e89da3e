"""The kernels: everything fast, and nothing else. Imported as ``numbabn.kernels``.

====================  ======================================================================
``reference.py``      the same verbs in plain float64 NumPy, two passes: read this first
``entry.py``          the way from Python into a kernel; without numba where code is on disk
``kept.py``           machine code on disk
``ending.py``         Ctrl-C and forks while something is compiled or loaded
``build.py``          from a kernel's Python to machine code
``jit.py``            how functions are compiled; what is absent, by type
``operation.py``      functions of Python that are a few instructions, or a call, by type
``forms.py``          what goes into a kernel beside arrays and numbers, as tuples with names
``vector.py``         eight float64 values at a time, as explicit vectors
``memory.py``         flat memory: loads and stores of one value or eight, of any type
``lines.py``          lines of memory: where they begin, written past the cache
``room.py``           a kernel's own numbers
``half.py``           float16 and bfloat16, rounded once
``welford.py``        closing a tile of shifted sums; Chan's merge of (count, mean, M2)
``weights.py``        masks, weights, NaN to leave out: how much an element counts
``picks.py``          masks and weights at a row or a run
``ahead.py``          those of short rows, written out before they are used
``nested.py``         those whose axes do not touch where those of x do
``more.py``           third and fourth moments, extremes, non-finite values
``activation.py``     what may follow the normalization, and its slope
``cpu_rows.py``       moments, channels contiguous: (N, C), NHWC, and NCHW with tiny images
``columns.py``        from channels to the columns of a row, and back
``cpu_planes.py``     moments, a long contiguous run for each (outer, channel), as in NCHW
``grads.py``          sums over the gradient, for both families
``point.py``          one element of a result: normalized, or the gradient of x
``written.py``        results, written by rows or runs, into the cache or past it
``learn.py``          running averages of few channels
``whole.py``          all that a verb does, in one call
``whole_back.py``     the same on the way back
``job.py``            what such a call needs to know
``objects.py``        NumPy arrays and kernels, by their addresses
``boxes.py``          boxes of arrays that are no window, copied and worked on
``desk.py``           what such a call needs to know
``crew.py``           one such call by several threads
``shared.py``         what they have in common
``cuda_*.py``         the same verbs for CUDA
====================  ======================================================================

Every array that reaches a kernel is flat: a one-dimensional, contiguous, aligned window over the
caller's memory, addressed with strides in elements. A kernel works on a range ``lo..hi`` of
items, so that any thread can take any part; how the items are cut depends on the shape alone,
which is why the results have the same bits for any number of threads.
"""

if __name__ != "numbabn.kernels":
    # Under any other name numba would write cache files that the right name then fails to read.
    raise ImportError(f"{__name__!r} is the source folder of 'numbabn.kernels'; import that name instead")
