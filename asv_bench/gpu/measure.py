"""What the tasks take on the device: one row for each task, shape and dtype, the most telling first."""

import gc
import time
import traceback

from gpu import contests, own, timing
from numbabn.devices.driver import on

TASKS = ("eval", "train", "backward")
DTYPES = ("float32", "float16", "bfloat16")
SIXTEEN_BITS = ("ResNet", "(N, 64)")  # the shapes that are timed with 16 bits too
ROUNDS = (("torch",), ("torch.compile", "cupy"))  # rivals that take long to start come last


def everything(options, so_far):
    """{"rows", "libraries", "host_us", ...}; `so_far` is given it after each problem."""
    with on(0):  # for the calls of the driver in `timing`
        return _everything(options, so_far)


def _everything(options, so_far):
    end = time.monotonic() + options.budget
    found = {"rows": [], "libraries": contests.libraries()}
    rows = {}
    for rivals in ROUNDS if "torch" in found["libraries"] else ((),):
        for name, dtype in _problems(options):
            if time.monotonic() > end:
                found["stopped"] = f"after {options.budget:.0f} s, before {name} {dtype} with {rivals}"
                return found
            _one(name, dtype, rivals, rows, found, options)
            found["rows"] = list(rows.values())
            so_far(found)
    return found


def _problems(options):
    for dtype in options.dtypes or DTYPES:
        for name in contests.SHAPES:
            wanted = not options.shapes or options.shapes in name
            if wanted and (dtype == "float32" or name.startswith(SIXTEEN_BITS)):
                yield name, dtype


def _one(name, dtype, rivals, rows, found, options):
    """Every task of one problem; what fails is written down in its row."""
    try:
        p, copy = contests.problem(name, dtype, options.scale), None
        for task in TASKS:
            key = task, name, dtype
            if key not in rows:
                copy = copy or _copy_ms(p, options.runs)
                rows[key] = _ours(p, task, dtype, copy, options.runs)
            for rival in rivals:
                if rival.split(".")[0] in found["libraries"]:
                    _rival(p, task, rival, rows[key], options.runs)
        if name.startswith("small") and "host_us" not in found:
            found["host_us"] = {t: timing.host_us(contests.ours(p, t)[0][0]) for t in TASKS}
    except Exception as error:
        found.setdefault("problems", {})[f"{name} {dtype}"] = _words(error)
    p = None
    _forget()


def _copy_ms(p, runs):
    """Milliseconds of a copy of x."""
    at = [(own.address(y), own.address(x)) for x, y, _ in p.sets]
    works = [lambda to=to, source=source: timing.copy(to, source, p.nbytes) for to, source in at]
    return timing.median_ms(works, runs, hold=timing.hold)


def _ours(p, task, dtype, copy, runs):
    """A row with what numbabn takes, and whether it is right."""
    row = {"task": task, "shape": p.name, "size": list(p.sets[0][0].shape), "dtype": dtype, "copy_ms": copy, "ms": {}}
    try:
        works, bns = contests.ours(p, task)
        row["ms"]["numbabn"] = timing.median_ms(works, runs, hold=timing.hold)
        row["of_copy"] = copy * contests.BYTES[task] / 2 / row["ms"]["numbabn"]
        row["wrong"] = contests.wrong(p, task, works, bns)
    except Exception as error:
        row["failed"] = {"numbabn": _words(error)}
    return row


def _rival(p, task, rival, row, runs):
    try:
        works = contests.CONTENDERS[rival](p, task)
        if works is not None:
            row["ms"][rival] = timing.median_ms(works, runs, hold=timing.hold)
    except Exception as error:  # a rival that cannot do it is no reason to stop
        row.setdefault("failed", {})[rival] = _words(error)


def _words(error):
    traceback.print_exc(limit=3)
    return f"{type(error).__name__}: {error}"[:300]


def _forget():
    """Give memory back before the next arrays."""
    gc.collect()
    if "torch" in contests.libraries():
        import torch

        torch.cuda.empty_cache()
    if "cupy" in contests.libraries():
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
