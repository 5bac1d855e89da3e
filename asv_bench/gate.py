"""Is HEAD slower than BASE? Builds both commits, runs a handful of workloads in turn, and exits with 1 if it is.

Each commit has a process of its own, of which one is at work at any time; each round gives a ratio of times, taken one
after the other; several pairs of processes follow one another, as two of the same program differ. A job is slower if
the median ratio is beyond --limit and its 95 % interval beyond --sure, in two measurements.
"""

import argparse
import fnmatch
import json
import os
import statistics
import sys

import limits
from gating import builds, pair, ratios
from gating.jobs import JOBS


def main():
    options = parsed()
    commits = {}
    for side in ("base", "head"):
        try:
            commits[side] = builds.commit_of(getattr(options, side))
        except ValueError as error:
            sys.exit(f"gate.py: error: {error}")
    jobs = [job for job in JOBS if any(fnmatch.fnmatch(job, pattern) for pattern in options.jobs)]
    if not jobs:
        sys.exit(f"gate.py: error: no job is called {', '.join(options.jobs)}; there is {', '.join(JOBS)}")
    found = {side: builds.built(commit, options.builds) for side, commit in commits.items()}
    os.environ["NUMBABN_BENCH_SCALE"] = str(options.scale)
    rows = measured(found, jobs, options)
    again = [job for job, row in rows.items() if row["slower"] and "left out" not in row]
    rows = list((rows | measured(found, again, options)).values())
    show(rows, commits, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"commits": commits, "plant": options.plant, "rows": rows}, file, indent=1)
    sys.exit(any(row.get("slower", False) for row in rows))


def measured(found, jobs, options):
    """One row for each job, by its name, from several pairs of processes."""
    rows = {job: {"job": job, "seconds of base": [], "ratios": []} for job in jobs}
    for k in range(options.pairs if jobs else 0):
        print(f"pair {k + 1} of {options.pairs}, {len(jobs)} jobs ...", file=sys.stderr, flush=True)
        with (
            pair.Worker("base", found["base"], options.threads) as base,
            pair.Worker("head", found["head"], options.threads, options.plant) as head,
        ):
            for row in (row for row in rows.values() if "left out" not in row):
                measure(row, base, head, options)
    for row in rows.values():
        if "left out" not in row:
            row |= vars(ratios.judged(row["ratios"], options.limit, options.sure))
    return rows


def measure(row, base, head, options):
    """Add to a row what one pair of processes says."""
    try:
        seconds, found = pair.ratios(base, head, row["job"], options.rounds, options.run)
        row["seconds of base"].append(seconds)
        row["ratios"].append(found)
    except pair.CannotRunError as error:
        # What the base could do, and the head cannot, is worse than slow.
        row |= {"left out": str(error), "slower": str(error).startswith(head.name)}


def show(rows, commits, options):
    """The table, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 120
    table = Table(title=f"head {commits['head'][:12]} over base {commits['base'][:12]}")
    for k, name in enumerate(("job", "base, ms a call", "head / base", "95 % interval", "")):
        table.add_column(name, justify="right" if 0 < k < 4 else "left")
    for row in rows:
        if "left out" in row:
            table.add_row(row["job"], "-", "-", "-", row["left out"])
            continue
        verdict = "SLOWER" if row["slower"] else "faster" if row["high"] < 1 / options.sure else ""
        times = f"{1e3 * statistics.median(row['seconds of base']):.3g}"
        table.add_row(row["job"], times, f"{row['median']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", verdict)
    console.print(table)
    slower = [row["job"] for row in rows if row.get("slower")]
    console.print(
        f"Slower (median of {options.pairs * options.rounds} ratios from {options.pairs} pairs of processes beyond "
        f"{options.limit:g}, interval beyond {options.sure:g}): "
        + (", ".join(slower) or "none")
        + (f" (head was slowed down on purpose, by {options.plant:g})" if options.plant > 1 else ""),
        soft_wrap=True,
    )


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the commit to compare with: a name, a branch, a tag")
    parser.add_argument("head", nargs="?", default="HEAD", help="the commit to judge (default HEAD)")
    parser.add_argument("--jobs", type=lambda t: t.split(","), default=["*"], help="names or patterns, by commas")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of processes (default 6)")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs of each job in each (default 7)")
    parser.add_argument("--run", type=float, default=0.05, help="seconds that a run lasts at least (default 0.05)")
    parser.add_argument("--threads", type=int, default=limits.cores(), help="threads and cores (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the arrays, 32 MiB each (default 1)")
    parser.add_argument("--limit", type=float, default=1.10, help="ratio that is too slow (default 1.10)")
    parser.add_argument("--sure", type=float, default=1.05, help="ratio that the interval is beyond (default 1.05)")
    parser.add_argument("--plant", type=float, default=1.0, help="slow head down by this factor, to see it found")
    parser.add_argument("--builds", default=builds.KEPT, help="where builds are kept (default .asv/gate)")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file too")
    options = parser.parse_args()
    for name in ("pairs", "rounds", "run", "threads", "scale", "plant"):
        if not getattr(options, name) >= (1e-9 if name in ("run", "scale") else 1):
            parser.error(f"--{name} is {getattr(options, name)}: too small")
    return options


if __name__ == "__main__":
    main()
