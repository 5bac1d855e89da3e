"""The same number of cores for everybody: to be called before NumPy or any peer is imported.

Each library counts the cores, and makes its threads, when it is imported or first used. What the process may
run on is the one limit that all of them obey, JAX included, which has no other that it always honours.
"""

import argparse
import os
import sys

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBABN_NUM_THREADS")


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def confine(threads):
    """Keep this process, and all that it imports from now on, to so many cores and threads."""
    too_early = {"numpy", "numba", "torch", "jax", "onnxruntime"} & set(sys.modules)
    if too_early:
        raise RuntimeError(f"{', '.join(sorted(too_early))} came before the limit, and has counted the cores already")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ.update(dict.fromkeys(POOLS, str(threads)))
    # OpenMP's threads otherwise spin for a while after each call, on cores that the next contender needs.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    single = "false" if threads == 1 else "true"
    flags = f"--xla_cpu_multi_thread_eigen={single} intra_op_parallelism_threads={threads}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"


def positive(text):
    """A whole number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
