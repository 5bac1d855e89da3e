"""The kernels: everything fast, and nothing else. Imported as ``numbabn.kernels``.

====================  ======================================================================
``reference.py``      the same verbs in plain float64 NumPy, two passes: read this first
``jit.py``            the one place with numba options, and the on-disk kernel cache
``welford.py``        closing a tile of shifted sums; Chan's merge of (count, mean, M2)
``half.py``           loads and stores: float16 and bfloat16 beside the native types
``weights.py``        masks, weights, NaN to leave out: how much an element counts
``ahead.py``          masks and weights of short rows, written out before they are used
``more.py``           third and fourth moments, extremes, non-finite values
``activation.py``     what may follow the normalization, and its slope
``cpu_rows.py``       channels contiguous: (N, C), NHWC, and NCHW with tiny images
``cpu_planes.py``     a long contiguous run for each (outer, channel), as in NCHW
``grad_rows.py``      the way back, for both families
``grad_planes.py``
====================  ======================================================================

Every array that reaches a kernel is flat: a one-dimensional, contiguous, aligned window over the
caller's memory, addressed with strides in elements. A kernel works on a range ``lo..hi`` of
items, so that any thread can take any part; how the items are cut depends on the shape alone,
which is why the results have the same bits for any number of threads.
"""

if __name__ != "numbabn.kernels":
    # Under any other name numba would write cache files that the right name then fails to read.
    raise ImportError(f"{__name__!r} is the source folder of 'numbabn.kernels'; import that name instead")
