"""The GPU in one call: check everything, run compute-sanitizer over it, measure, print one markdown table.

    python asv_bench/gpu_report.py --json gpu.json

Every answer is compared with the CPU's on fresh random data and poisoned outputs before anything is timed. Times are
medians by CUDA events, with several input sets in turn, beside a device-to-device copy of as many bytes, PyTorch,
torch.compile and CuPy. Exits with 3 where CUDA cannot run, and with 1 where an answer is wrong.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import traceback
from pathlib import Path

NO_GPU = 3
TASKS = ("eval", "train", "backward")
GOALS = {"eval": 0.92, "train": 0.85}  # of the speed of a copy, for the bytes that the task needs


def main(arguments=None):
    options = parsed(arguments)
    from numbabn.devices import probe

    reason = probe.why_not()
    if reason is not None:
        print(f"gpu_report.py: nothing was checked or measured, as CUDA cannot run here: {reason}", file=sys.stderr)
        return NO_GPU
    report = {"machine": machine(), "rows": [], "sanitizer": {}}
    try:
        if not options.measure:
            from gpu import check

            print(f"{check.everything(options.tiny, options.dtypes or check.DTYPES)} answers agree with the CPU's.")
        if not (options.check or options.measure):
            report["sanitizer"] = sanitized()
        if not options.check:
            measured(report, options)
            print("\n".join(markdown(report)))
    except AssertionError as error:
        print(f"gpu_report.py: wrong: {error}", file=sys.stderr)
        return 1
    finally:
        if options.json:
            Path(options.json).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="check only")
    parser.add_argument("--measure", action="store_true", help="measure only")
    parser.add_argument("--tiny", action="store_true", help="check a few small arrays")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the large arrays that are timed")
    parser.add_argument("--dtypes", type=lambda text: tuple(text.split(",")), help="float32,bfloat16 ...")
    parser.add_argument("--shapes", help="time only shapes whose name has this in it")
    parser.add_argument("--runs", type=int, default=30, help="runs of which the median is taken")
    parser.add_argument("--json", help="write everything to this file")
    return parser.parse_args(arguments)


def machine():
    """What was measured on, and with what."""
    from numbabn.devices import probe

    names = ("numbabn", "numba", "numba-cuda", "cuda-bindings", "numpy", "torch", "cupy-cuda13x", "cupy-cuda12x")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "devices": [device.in_words() for device in probe.devices()],
        "driver": probe.driver_version(),
        "python": platform.python_version(),
        "versions": versions,
    }


def sanitized():
    """{tool: verdict} of compute-sanitizer; says so where it is missing."""
    from gpu import sanitize

    if sanitize.program() is None:
        print("compute-sanitizer is not there: the kernels were not run under it.")
        return {}
    verdicts = {}
    for tool in sanitize.TOOLS:
        verdicts[tool], said = sanitize.run(tool, os.fspath(Path(__file__).resolve()))
        print(f"{tool}: {verdicts[tool]}", flush=True)
        if verdicts[tool] != "clean":
            print(said, file=sys.stderr)
    return verdicts


def measured(report, options):
    """Add a row for each task, shape and dtype, and the host's time of a training step."""
    from gpu import contests, timing

    found = report["libraries"] = contests.libraries()
    if "torch" not in found:
        print("The tensors that are timed are PyTorch's, which is not there for CUDA: nothing was measured.")
        return
    for dtype in options.dtypes or ("float32", "float16", "bfloat16"):
        for name in contests.SHAPES:
            if options.shapes and options.shapes not in name:
                continue
            if dtype != "float32" and not name.startswith(("ResNet", "(N, 64)")):
                continue
            p = contests.problem(name, dtype, options.scale)
            copy = copy_ms(p, options.runs)
            for task in TASKS:
                print(f"{task} {name} {dtype} ...", file=sys.stderr, flush=True)
                report["rows"].append(raced(p, task, dtype, copy, found, options.runs))
            if name.startswith("small"):
                works = contests.ours(p, "train")
                report["host_us"] = timing.host_us(works[0])
            del p
            forget()


def copy_ms(p, runs):
    """Milliseconds of a copy of x."""
    from gpu import timing

    return timing.median_ms(
        [lambda x=x, y=y: timing.copy(y.data_ptr(), x.data_ptr(), p.nbytes) for x, y, _ in p.sets], runs
    )


def raced(p, task, dtype, copy, found, runs):
    """One row: milliseconds of everybody, and what share of a copy's speed numbabn has."""
    from gpu import contests, timing

    row = {"task": task, "shape": p.name, "size": list(p.sets[0][0].shape), "dtype": dtype, "copy_ms": copy}
    row["ms"] = {"numbabn": timing.median_ms(contests.ours(p, task), runs)}
    allowed = copy * contests.BYTES[task] / 2
    row["of_copy"] = allowed / row["ms"]["numbabn"]
    for who, make in contests.CONTENDERS.items():
        if who.split(".")[0] not in found:
            continue
        try:
            works = make(p, task)
            if works is not None:
                row["ms"][who] = timing.median_ms(works, runs)
        except Exception as error:  # a rival that cannot do it is no reason to stop
            row.setdefault("failed", {})[who] = f"{type(error).__name__}: {error}"[:300]
            traceback.print_exc(limit=1)
    return row


def forget():
    """Give memory back before the next array."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def markdown(report):
    """The table, and how the goals stand."""
    from gpu import contests

    rows, others = report["rows"], list(contests.CONTENDERS)
    if not rows:
        return []
    lines = [f"| task | array | dtype | copy ms | numbabn ms | of copy | {' | '.join(f'{o} ms' for o in others)} |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |" + " ---: |" * len(others))
    for row in rows:
        times = " | ".join(f"{row['ms'][o]:.3f}" if o in row["ms"] else "" for o in others)
        lines.append(
            f"| {row['task']} | {row['shape']} | {row['dtype']} | {row['copy_ms']:.3f} | {row['ms']['numbabn']:.3f} | "
            f"{row['of_copy']:.0%} | {times} |"
        )
    lines.append("")
    large = [row for row in rows if not row["shape"].startswith("small")]
    for task, goal in GOALS.items():
        shares = [row["of_copy"] for row in large if row["task"] == task]
        if shares:
            met = sum(share >= goal for share in shares)
            lines.append(
                f"{task}: {met} of {len(shares)} at {goal:.0%} of a copy's speed or more; least {min(shares):.0%}."
            )
    ratios = [row["ms"]["torch"] / row["ms"]["numbabn"] for row in large if "torch" in row["ms"]]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines.append(f"PyTorch's time over numbabn's: {mean:.2f} in the geometric mean, {min(ratios):.2f} at least.")
    if "host_us" in report:
        lines.append(f"Host time of a training step: {report['host_us']:.1f} microseconds.")
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines.append(
        f"{machine['devices'][0]}; driver for CUDA {machine['driver']}; Python {machine['python']}, {versions}."
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
