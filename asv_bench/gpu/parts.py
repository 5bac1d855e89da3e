"""Parts of the report as processes of their own: what one breaks, the others do not see; none takes all the time."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "gpu_report.py"
TAIL = 1500  # characters of what a part said that are kept where it failed
GRACE = 20  # seconds in which the part that measures may finish what it is at


class Clock:
    """The seconds that are left of a budget."""

    def __init__(self, budget):
        self._end = time.monotonic() + budget

    def left(self, share=1.0):
        """Seconds that are left, or a share of them."""
        return max(0.0, self._end - time.monotonic()) * share


@contextlib.contextmanager
def side_by_side():
    """Parts by name; when the block is left, those that have not ended are ended, and their files go."""
    running = {}
    try:
        yield running
    finally:
        for part in running.values():
            part.end()
            part.forget()


class Part:
    """One run of this script, under way; what it found so far it writes to a file."""

    def __init__(self, name, arguments, before=()):
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        self._found, self._said = (Path(self._folder.name) / file for file in ("found.json", "said"))
        command = [*before, sys.executable, str(SCRIPT), *arguments, "--into", str(self._found)]
        with self._said.open("w") as said:
            # A group of its own, as compute-sanitizer starts another process: to end it must end both.
            self._process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, process_group=0)

    def end(self):
        """End it with all that it has started, if it has not ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def forget(self):
        """Remove what it has written."""
        self._folder.cleanup()

    def finished(self, seconds):
        """Wait so long, then end it: {"found": ..., "ended": exit code or None, "said": the end of what it said}."""
        try:
            ended = self._process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.end()
            ended = None
        try:
            found = json.loads(self._found.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        said = self._said.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        return {"found": found, "ended": ended, "said": said}


def written(into, found):
    """Write what was found so far, all of it or nothing."""
    if into:
        new = Path(f"{into}.new")
        new.write_text(json.dumps(found), encoding="utf-8")
        new.replace(into)


def checked(dtypes, families, arguments, seconds):
    """The checks of all dtypes and families, side by side: {name: {"answers", "wrong"}}."""
    clock, verdicts = Clock(seconds), {}
    with side_by_side() as running:
        for dtype, family in itertools.product(dtypes, families):
            name = f"{dtype} {family}"
            running[name] = Part(name, ["--part", "check", "--dtypes", dtype, "--family", family, *arguments])
        for name, part in running.items():
            ran = part.finished(clock.left())
            verdict = verdicts[name] = ran["found"] or {"answers": 0, "wrong": []}
            if ran["ended"] is None:
                verdict["wrong"].append(f"{name}: not finished in {seconds:.0f} s")
            elif ran["ended"] != 0 and not (ran["ended"] == 1 and verdict["wrong"]):  # an exception gives 1 too
                verdict["wrong"].append(f"{name}: ended with exit code {ran['ended']}: {ran['said']}")
            elif not verdict["answers"] and not verdict["wrong"]:
                verdict["wrong"].append(f"{name}: nothing was compared: {ran['said']}")
    return verdicts


def sanitized(program, tools, found_something, dtypes, seconds):
    """{tool: verdict} of compute-sanitizer over the small checks, side by side."""
    clock, verdicts = Clock(seconds), {}
    with side_by_side() as running:
        for tool, more in tools.items():
            before = [program, "--tool", tool, "--error-exitcode", str(found_something), *more]
            running[tool] = Part(tool, ["--part", "check", "--tiny", "--dtypes", ",".join(dtypes)], before)
        for tool, part in running.items():
            ran = part.finished(clock.left())
            answers = ran["found"]["answers"] if ran["found"] else 0
            if ran["ended"] == 0 and answers:
                verdicts[tool] = {"verdict": "clean", "answers": answers}
                continue
            verdict = f"did not run through (exit code {ran['ended']})"
            if ran["ended"] is None:
                verdict = f"not finished in {seconds:.0f} s"
            elif ran["ended"] == found_something:
                verdict = "errors"
            verdicts[tool] = {"verdict": verdict, "said": ran["said"]}
    return verdicts


def measured(arguments, seconds):
    """What the part that measures has found until it ended, or had to."""
    with side_by_side() as running:
        part = running["measure"] = Part("measure", ["--part", "measure", "--budget", f"{seconds:.0f}", *arguments])
        ran = part.finished(seconds + GRACE)
    found = ran["found"] or {"rows": []}
    if ran["ended"] != 0:
        how = "had to be ended" if ran["ended"] is None else f"ended with exit code {ran['ended']}"
        found["failed"] = f"{how}: {ran['said']}"
    return found
