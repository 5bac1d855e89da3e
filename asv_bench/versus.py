"""numbabn beside a plain copy, NumPy, scikit-learn and PyTorch: one table of ratios, measured in one run.

Every number is a median time over the median time of the fastest plain copy of the same array, all taken in
turn with the same number of threads. Every answer is checked before anything is timed.
"""

import os

# PyTorch's threads otherwise spin for a while after each call, on cores that the next contender needs.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys

import contenders
from race import race, timed

import numbabn

SCALES = {"full": 1.0, "small": 0.05, "tiny": 0.0002}
COLUMNS = ("numbabn", "numbabn, fresh", "PyTorch, out=", "PyTorch", "scikit-learn", "NumPy, out=", "NumPy")
SLOW = 10  # copies; who takes longer is timed in every 4th round


def main():
    options = parsed()
    numbabn.set_num_threads(options.threads)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(options.threads)
    report = {"threads": options.threads, "rounds": options.rounds, "scale": options.scale, "versions": versions()}
    rows = []
    for name in contenders.SHAPES:
        problem = contenders.problem(name, options.scale)
        for job in contenders.JOBS:
            print(f"{job} {name} {problem.x.shape} ...", file=sys.stderr, flush=True)
            rows.append(measured(job, problem, options.rounds))
    report["rows"] = sorted(rows, key=lambda row: contenders.JOBS.index(row["job"]))
    show(report, options.markdown)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=_positive, default=12, help="rounds of every row (default 12)")
    parser.add_argument("--threads", type=_positive, default=numbabn.get_num_threads(), help="of every contender")
    parser.add_argument("--scale", type=_scale, default=1.0, help="full, small, tiny, or a factor such as 0.1")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file too")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser.parse_args()


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _scale(text):
    try:
        factor = SCALES[text] if text in SCALES else float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(SCALES)} nor a factor up to 1")
    return factor


def versions():
    found = {"Python": platform.python_version(), "numbabn": numbabn.__version__}
    for package in ("numpy", "numba", "scikit-learn", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def measured(job, problem, rounds):
    """One row: check every answer, then race."""
    copies, entrants = contenders.copies(problem), contenders.contenders(job, problem)
    first, errors = {}, {}
    for c in [*copies, *entrants]:
        first[c.name], result = timed(c.work)
        if c in entrants:
            errors[c.name] = contenders.check(job, problem, c, result)
        elif not (problem.out == problem.x).all():
            raise AssertionError(f"{c.name} did not copy {problem.x.shape}")
        problem.out.fill(0)  # so that the next one cannot live on the answer of this one
        del result
    seldom = {name for name, seconds in first.items() if seconds > SLOW * first[copies[0].name]} - {"numbabn"}
    times = race({c.name: c.work for c in [*copies, *entrants]}, rounds, seldom)
    fastest = min(copies, key=lambda c: times[c.name].median).name
    unit = times[fastest].median
    best = min((c.name for c in entrants if c.peer), key=lambda name: times[name].median)
    return {
        "job": job,
        "name": problem.name,
        "shape": list(problem.x.shape),
        "channel axis": problem.axis,
        "copy": {"name": fastest, "seconds": unit, "GB/s": 2 * problem.x.nbytes / unit / 1e9},
        "contenders": {c.name: ratios(times[c.name], unit, errors[c.name]) for c in entrants},
        "best peer": best,
        "best peer / numbabn": times[best].median / times["numbabn"].median,
    }


def ratios(times, unit, errors):
    q1, q3 = times.quartiles
    return {
        "median": times.median / unit,
        "q1": q1 / unit,
        "q3": q3 / unit,
        "runs": len(times.seconds),
        "largest errors": list(errors),
    }


def cells(row):
    """The texts of one row."""
    texts = [row["job"], f"{row['name'].split()[0]} {'x'.join(map(str, row['shape']))}"]
    for name in COLUMNS:
        c = row["contenders"].get(name)
        text = "-" if c is None else f"{c['median']:.2f}" if c["median"] < 10 else f"{c['median']:.1f}"
        if c is not None and name.startswith("numbabn"):
            text += f" ({c['q1']:.2f}-{c['q3']:.2f})"
        texts.append(text)
    return [*texts, f"{row['best peer / numbabn']:.1f}"]


def notes(report):
    """What a reader needs to know to believe the table."""
    bandwidths = [row["copy"]["GB/s"] for row in report["rows"]]
    names = sorted({row["copy"]["name"].removeprefix("copy, ") for row in report["rows"]})
    lines = [
        f"float32, {report['threads']} threads, {report['rounds']} rounds (every 4th for who is slower than {SLOW} "
        f"copies), scale {report['scale']:g}; medians, with quartiles in brackets; 1 is a plain copy of the array "
        f"({', '.join(names)}: {min(bandwidths):.1f} to {max(bandwidths):.1f} GB/s read and written in this run).",
        "numbabn and `out=` write into one given array, the others into a new one each call; scikit-learn takes "
        "2-D tables (NHWC as rows of channels); OMP_WAIT_POLICY=PASSIVE, so that no thread of PyTorch spins in "
        "another's time.",
        "Checked against float64 before timing: numbabn's mean to {:g} std, variance to {:g}, output to {:g}; ".format(
            *contenders.OURS
        )
        + "the peers' to {:g}, {:g} and {:g}.".format(*contenders.PEERS),
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + ".",
    ]
    gone = contenders.missing()
    return [*lines, f"Not installed, so left out: {', '.join(gone)}."] if gone else lines


def show(report, markdown):
    head = ["job", "array", *COLUMNS, "best peer / numbabn"]
    table = [cells(row) for row in report["rows"]]
    if markdown:
        lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *table]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")
    elif importlib.util.find_spec("rich") is not None:
        rich_table(head, table)
    else:
        widths = [max(map(len, column)) for column in zip(head, *table, strict=True)]
        for line in [head, *table]:
            print("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)))
    print("\n".join(notes(report)))


def rich_table(head, table):
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="time over a plain copy of the array")
    for k, name in enumerate(head):
        shown.add_column(name, justify="left" if k < 2 else "right", overflow="fold")
    for k, line in enumerate(table):
        shown.add_row(*line, end_section=k % len(contenders.SHAPES) == len(contenders.SHAPES) - 1)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width: nothing is folded
    console.print(shown)


if __name__ == "__main__":
    main()
