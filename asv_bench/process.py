"""What a process pays for numbabn beside the work: imports, first calls, memory, and what a second thread gives.

Prints one table with the goals. Imports and first calls are each in a new process, in turn, and are the time of the
code alone, without the start of Python; memory is the peak of the resident set; threads are timed in turn in one
process, beside a plain copy and a plain read of the same array on as many threads. Answers are checked.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import limits

NUMBA = """
    import numba
    @numba.njit(cache=True)
    def nothing():
        return 1
    assert nothing() == 1
    """
CASES = ("rows", "columns", "nchw")
VERBS = ("normalize", "batch_norm", "backward")
PASSES = {"moments": ("read",), "inference": ("copy",), "train": ("read", "copy")}
RUN = 0.02  # seconds that a run lasts at least


def main():
    options = parsed()
    limits.confine(options.threads)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        found += imports(options.rounds, options.verbs, Path(folder))
    found += memory(options.mib)
    if options.threads > 1:
        for mib in (options.cached, options.mib):
            found += threads(mib, options.rounds)
    show(found, options.markdown)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def result(what, goal, value, met, beside=""):
    return {"what": what, "goal": goal, "value": value, "met": met, "beside": beside}


def imports(rounds, verbs, folder):
    """Of new processes; numba's empty function is what any first call has to pay."""
    from benchmarks.imports import EMPTY_CACHE, FIRST, IMPORTS

    script = folder / "empty.py"  # a file: numba caches nothing that has none
    script.write_text(textwrap.dedent(NUMBA), encoding="utf-8")
    empty = f"import sys; sys.path.insert(0, {os.fspath(folder)!r}); import empty"
    first = {verb: FIRST[verb] for verb in verbs or FIRST}
    codes = {"numpy": IMPORTS["numpy"], "numbabn": IMPORTS["numbabn"], "empty": empty, **first}
    for code in codes.values():
        seconds(code)  # fills the caches
    times = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(seconds(code))
    of = {name: statistics.median(t) for name, t in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["numbabn"], times["numpy"], strict=True))
    yield result("import numbabn over import numpy", "≤ 1.3", f"{ratio:.2f}", ratio <= 1.3)
    for name in first:
        beside = f"an empty cached numba function {of['empty']:.2f} s, import numpy {of['numpy']:.2f} s"
        yield result(f"first {name}, kernels cached", "≤ 0.3 s", f"{of[name]:.2f} s", of[name] <= 0.3, beside)
    for name, code in first.items():
        cold = statistics.median(seconds(code, EMPTY_CACHE) for _ in range(min(rounds, 3)))
        yield result(f"first {name}, nothing cached", "≤ 3 s", f"{cold:.1f} s", cold <= 3)


def seconds(code, before=""):
    """The time that code takes in a new process."""
    program = f"{textwrap.dedent(before)}\nimport time\nstart = time.perf_counter()\n{textwrap.dedent(code)}\n"
    program += "print(time.perf_counter() - start)"
    # -P: this folder is no place to import from, its modules have common names.
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"process.py: a process failed: {done.stderr}")
    return float(done.stdout)


def memory(mib):
    """Beyond x and out, of every verb that writes into a given array."""
    from benchmarks.memory import extra

    for case in CASES:
        worst = max(extra(case, mib, *VERBS).values()) / (1 << 20)
        yield result(f"extra memory with out, {case} of {mib} MiB", "≤ 2 MiB", f"{worst:.2f} MiB", worst <= 2)


def threads(mib, rounds):
    """The time of one thread over that of two, of numbabn and of the plain passes over the same array that it makes."""
    import contenders
    import numpy as np
    from benchmarks import draw
    from benchmarks.race import race_of_calls

    p = contenders.Problem(draw((mib << 18) // 64 * 64).reshape(-1, 64).astype(np.float32), 1)
    works = {}
    for count in (1, 2):
        for c in contenders.references(p):
            if c.form in ("np.copyto", "numba"):
                works[c.library, count] = on(count, c.work)
        for task in PASSES:
            ours = contenders.ours.contenders(task, p)[0]
            works[task, count] = on(count, ours.work)
            p.out.fill(0)
            contenders.check(task, p, ours, works[task, count]())
    for work in works.values():
        work()
    times = {name: t.median for name, t in race_of_calls(works, rounds, RUN).items()}
    for task, passes in PASSES.items():
        gain = times[task, 1] / times[task, 2]
        alone, together = (sum(times[k, count] for k in passes) for count in (1, 2))
        plain, over = alone / together, times[task, 2] / together
        beside = f"a plain {' and a '.join(passes)} {plain:.2f}; on 2 threads {over:.2f} of its time"
        what, met = f"1 to 2 threads, {task} of {mib} MiB", gain >= min(1.7, plain)
        yield result(what, "≥ 1.7, or what memory gives", f"{gain:.2f}", met, beside)


def on(count, work):
    """The same work on so many threads."""
    import numbabn

    def limited():
        with numbabn.num_threads(count):
            return work()

    return limited


def show(found, markdown):
    import tables

    head = ["what", "goal", "here", "beside it"]
    rows = [[f["what"], f["goal"], f"{f['value']} {'met' if f['met'] else 'MISSED'}", f["beside"]] for f in found]
    tables.plain(head, rows, markdown)
    print(f"Goals: {sum(f['met'] for f in found)} of {len(found)} met.")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=limits.positive, default=7, help="processes of each kind (default 7)")
    parser.add_argument("--mib", type=limits.positive, default=64, help="MiB of the arrays (default 64)")
    parser.add_argument("--cached", type=limits.positive, default=8, help="MiB of one that a cache holds (default 8)")
    parser.add_argument("--threads", type=limits.positive, default=limits.cores(), help="cores to be kept to")
    known = ("moments", "normalize", "training")
    parser.add_argument("--verbs", nargs="+", choices=known, help="first calls (default all)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
