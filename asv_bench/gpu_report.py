"""The GPU in one call: check everything, measure, run compute-sanitizer, print one markdown table.

    python asv_bench/gpu_report.py --json gpu.json

Every answer is compared with the CPU's on fresh random data and poisoned outputs. Times are medians by CUDA events,
with several input sets in turn, beside a device-to-device copy of as many bytes, PyTorch, torch.compile and CuPy; what
is timed is compared with float64 on the device. Each part is a process of its own and has a share of the --budget: one
that fails or takes too long leaves the others running, and is reported. Exits with 3 where CUDA cannot run, and with 1
where something is wrong, did not run through, or was not finished.
"""

import argparse
import importlib.metadata
import math
import platform
import sys

NO_GPU = 3
GOALS = {"eval": 0.92, "train": 0.85}  # of the speed of a copy, for the bytes that the task needs
HOST_GOAL = 30  # microseconds of the host for a training step
SHARES = {"check": 0.5, "measure": 0.8, "sanitize": 1}  # of the time that is left, for what is done in this order


def main(arguments=None):
    options = parsed(arguments)
    from gpu import toolkit

    from numbabn.devices import probe

    toolkit.named()
    reason = probe.why_not()
    if reason is not None:
        print(f"gpu_report.py: nothing was checked or measured, as CUDA cannot run here: {reason}", file=sys.stderr)
        return NO_GPU
    return PARTS[options.part](options)


def whole(options):
    """All parts, one after the other; each is written down as soon as it has ended."""
    from gpu import check, parts, sanitize

    clock = parts.Clock(options.budget)
    wanted = [name for name in SHARES if getattr(options, name)] or list(SHARES)
    report = {"machine": machine(), "rows": []}

    def done(name, found):
        report[name] = found
        parts.written(options.json, report)

    def seconds(name):
        return clock.left(1 if name == wanted[-1] else SHARES[name])

    if "check" in wanted:
        how = [*(["--tiny"] if options.tiny else []), *([] if options.seed is None else ["--seed", str(options.seed)])]
        done("check", parts.checked(options.dtypes or check.DTYPES, check.FAMILIES, how, seconds("check")))
        print("\n".join(verdicts(report["check"])), flush=True)
    if "measure" in wanted:
        found = parts.measured(passed_on(options), seconds("measure") - parts.GRACE)
        report["rows"] = found.pop("rows")
        done("measure", found)
        print("\n".join(markdown(report)), flush=True)
    if "sanitize" in wanted:
        program = sanitize.program()
        if program is None:
            print("compute-sanitizer is not there: the kernels were not run under it.")
        else:
            given = sanitize.TOOLS, sanitize.FOUND, options.dtypes or sanitize.DTYPES
            done("sanitizer", parts.sanitized(program, *given, seconds("sanitize")))
            for tool, ran in report["sanitizer"].items():
                print(f"{tool}: {ran['verdict']}")
                if ran["verdict"] != "clean":
                    print(ran["said"])
    return int(not sound(report))


def check_part(options):
    """The checks, in this process."""
    from gpu import check, parts

    def so_far(found):
        parts.written(options.into, found)

    dtypes = options.dtypes or check.DTYPES
    found = check.everything(options.tiny, dtypes, options.seed, so_far=so_far, family=options.family)
    so_far(found)
    print("\n".join(verdicts({"all": found})))
    return int(bool(found["wrong"]))


def measure_part(options):
    """The measurements, in this process."""
    from gpu import measure, parts

    def so_far(found):
        parts.written(options.into, found)

    so_far(measure.everything(options, so_far))
    return 0


PARTS = {"whole": whole, "check": check_part, "measure": measure_part}


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="check only")
    parser.add_argument("--measure", action="store_true", help="measure only")
    parser.add_argument("--sanitize", action="store_true", help="run compute-sanitizer only")
    parser.add_argument("--tiny", action="store_true", help="check a few small arrays")
    parser.add_argument("--budget", type=float, default=540, help="seconds that all may take (default 540)")
    parser.add_argument("--seed", type=int, help="of the random arrays of a check (default: another each time)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the large arrays that are timed")
    parser.add_argument("--dtypes", type=lambda text: tuple(text.split(",")), help="float32,bfloat16 ...")
    parser.add_argument("--shapes", help="time only shapes whose name has this in it")
    parser.add_argument("--runs", type=int, default=30, help="runs of which the median is taken")
    parser.add_argument("--json", help="write everything to this file")
    parser.add_argument("--part", choices=PARTS, default="whole", help="run this part alone, in this process")
    parser.add_argument("--family", choices=("rows", "planes"), help="check the arrays of one family of kernels alone")
    parser.add_argument("--into", help="where a part writes what it finds")
    return parser.parse_args(arguments)


def passed_on(options):
    """The options of a measurement, for its own process."""
    given = ["--scale", str(options.scale), "--runs", str(options.runs)]
    given += ["--shapes", options.shapes] if options.shapes else []
    return given + (["--dtypes", ",".join(options.dtypes)] if options.dtypes else [])


def verdicts(found):
    """What the checks of each dtype came to."""
    lines = []
    for dtype, one in found.items():
        state = "all agree with the CPU's" if not one["wrong"] else f"{len(one['wrong'])} verbs wrong"
        lines.append(f"{dtype}: {one['answers']} answers, {state} (seed {one.get('seed')}).")
        lines += [f"  wrong: {wrong}" for wrong in one["wrong"]]
    return lines


def sound(report):
    """Whether everything that ran is right, and ran through."""
    checks = all(not one["wrong"] for one in report.get("check", {}).values())
    clean = all(one["verdict"] == "clean" for one in report.get("sanitizer", {}).values())
    measure = report.get("measure", {})
    whole_of_it = not any(measure.get(name) for name in ("failed", "problems"))
    right = all("numbabn" in row["ms"] and not row.get("wrong") for row in report["rows"])
    return checks and clean and whole_of_it and right


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


def markdown(report):
    """The table, and how the goals stand."""
    from gpu import contests

    rows, others, measure = report["rows"], list(contests.CONTENDERS), report["measure"]
    lines = [f"| task | array | dtype | copy ms | numbabn ms | of copy | {' | '.join(f'{o} ms' for o in others)} |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |" + " ---: |" * len(others))
    for row in rows:
        times = " | ".join(f"{row['ms'][o]:.3f}" if o in row["ms"] else "" for o in others)
        mine = f"{row['ms']['numbabn']:.3f} | {row['of_copy']:.0%}" if "numbabn" in row["ms"] else "failed | "
        mine = f"wrong | {row['wrong']}" if row.get("wrong") else mine
        lines.append(f"| {row['task']} | {row['shape']} | {row['dtype']} | {row['copy_ms']:.3f} | {mine} | {times} |")
    lines = [*(lines if rows else []), ""]
    large = [row for row in rows if not row["shape"].startswith("small") and "of_copy" in row]
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
    if "host_us" in measure:
        of = ", ".join(f"{task} {us:.1f}" for task, us in measure["host_us"].items())
        lines.append(f"Host time in microseconds: {of}; the goal for train is {HOST_GOAL}.")
    lines += [f"{what}: {measure[what]}." for what in ("failed", "stopped") if what in measure]
    lines += [f"failed: {name}: {error}" for name, error in measure.get("problems", {}).items()]
    for row in rows:
        for who, error in row.get("failed", {}).items():
            lines.append(f"failed: {who}, {row['task']} {row['shape']} {row['dtype']}: {error}")
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines.append(
        f"{machine['devices'][0]}; driver for CUDA {machine['driver']}; Python {machine['python']}, {versions}."
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
