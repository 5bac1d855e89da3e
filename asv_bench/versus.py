"""numbabn beside a plain copy and read of the array, NumPy, scikit-learn, PyTorch, JAX and onnxruntime.

Prints tables, and writes a picture or everything as JSON where told to. Every number is a median over the median of
the fastest plain copy of the same array, taken in turn in one process, on the same cores, with the same number of
threads. Every answer is checked before anything is timed.
"""

import argparse
import fnmatch
import importlib.metadata
import json
import platform
import sys

import limits

SCALES = {"full": 1.0, "small": 0.05, "tiny": 0.0002}
PACKAGES = ("numpy", "numba", "scikit-learn", "torch", "jax", "onnxruntime", "ml_dtypes")


def main():
    options = parsed()
    limits.confine(options.threads)
    rows = []
    try:
        rows.extend(measured_rows(options))
    except KeyboardInterrupt:
        print("versus.py: interrupted; what follows is what was measured before", file=sys.stderr)
    # Only now: the limit comes before all that counts cores.
    import contenders
    import tables

    report = {
        "threads": options.threads,
        "rounds": options.rounds,
        "scale": options.scale,
        "versions": versions(),
        "missing": contenders.missing(),
        "rows": rows,
    }
    if options.markdown:
        print("\n".join(tables.markdown(rows, options.goals)))
    else:
        tables.show(rows, options.goals)
    print("\n".join(tables.notes(report)))
    if options.goals:
        held = [row["goal"] for row in rows if row["goal"]]
        print(f"Goals: {sum(g['met'] for g in held)} of {len(held)} met.")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    if options.picture:
        import picture

        picture.draw(report, options.picture)


def measured_rows(options):
    """The rows, array by array; one array is freed before the next is made."""
    import contenders
    import measure

    workloads = _chosen(options.workloads, {w.name: w for w in contenders.WORKLOADS}, "workloads")
    dtypes = list(_chosen(options.dtypes, {name: name for name in contenders.DTYPES}, "dtypes"))
    tasks = list(_chosen(options.tasks, {name: name for name in contenders.TASKS}, "tasks"))
    for workload in workloads.values():
        for dtype in (d for d in workload.dtypes if d in dtypes):
            wanted = [task for task in workload.tasks_in(dtype) if task in tasks]
            if not wanted:
                continue
            p = contenders.Problem.of(workload, dtype, options.scale)
            for task in wanted:
                print(f"{task} {workload.name} {dtype} {p.x.shape} ...", file=sys.stderr, flush=True)
                yield measure.measured(task, p, dtype, options.rounds)
                p.forget()


def _chosen(patterns, table, what):
    """The entries whose names match one of the patterns, in the order of the table."""
    for pattern in patterns:
        if not fnmatch.filter(table, pattern):
            sys.exit(f"versus.py: error: --{what}: nothing is called {pattern!r}; there is {', '.join(table)}")
    return {name: v for name, v in table.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=_names, default=["*"], help="comma-separated names or patterns (default all)")
    parser.add_argument("--workloads", type=_names, default=["*"], help="the same, for example 'rows-*,small-*'")
    parser.add_argument("--dtypes", type=_names, default=["*"], help="the same, for example float32")
    parser.add_argument("--rounds", type=limits.positive, default=12, help="rounds of every row (default 12)")
    parser.add_argument(
        "--threads", type=limits.positive, default=limits.cores(), help="threads and cores of everybody"
    )
    parser.add_argument("--scale", type=_scale, default=1.0, help="full, small, tiny, or a factor such as 0.1")
    parser.add_argument("--goals", action="store_true", help="say of every row whether its goal is met")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file too")
    parser.add_argument("--picture", metavar="FILE", help="draw it: a PNG, SVG or PDF")
    return parser.parse_args()


def _names(text):
    return [name.strip() for name in text.split(",")]


def _scale(text):
    try:
        factor = SCALES[text] if text in SCALES else float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(SCALES)} nor a factor up to 1")
    return factor


def versions():
    import numbabn

    found = {"Python": platform.python_version(), "numbabn": numbabn.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    main()
