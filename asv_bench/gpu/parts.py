"""Parts of the report as processes of their own: what one breaks, the others do not see; none takes all the time."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "gpu_report.py"
TAIL = 1500  # characters of what a part said that are kept where it failed


class Clock:
    """The seconds that are left of a budget."""

    def __init__(self, budget):
        self._end = time.monotonic() + budget

    def left(self, share=1.0):
        """Seconds that are left, or a share of them."""
        return max(0.0, self._end - time.monotonic()) * share


class Part:
    """One run of this script, under way; what it found so far it writes to a file."""

    def __init__(self, name, arguments, before=()):
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        self._found, self._said = (Path(self._folder.name) / file for file in ("found.json", "said"))
        command = [*before, sys.executable, str(SCRIPT), *arguments, "--into", str(self._found)]
        with self._said.open("w") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)

    def finished(self, seconds):
        """Wait so long, then end it: {"found": ..., "ended": exit code or None, "said": the end of what it said}."""
        try:
            ended = self._process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            ended = None
        try:
            found = json.loads(self._found.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        said = self._said.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        self._folder.cleanup()
        return {"found": found, "ended": ended, "said": said}


def written(into, found):
    """Write what was found so far, all of it or nothing."""
    if into:
        new = Path(f"{into}.new")
        new.write_text(json.dumps(found), encoding="utf-8")
        new.replace(into)


def checked(dtypes, arguments, seconds):
    """The checks of all dtypes, side by side: {dtype: {"answers", "wrong"}}."""
    clock, running = Clock(seconds), {}
    for dtype in dtypes:
        running[dtype] = Part(dtype, ["--part", "check", "--dtypes", dtype, *arguments])
    verdicts = {}
    for dtype, part in running.items():
        ran = part.finished(clock.left())
        verdict = ran["found"] or {"answers": 0, "wrong": []}
        if ran["ended"] is None:
            verdict["wrong"].append(f"{dtype}: not finished in {seconds:.0f} s")
        elif ran["ended"] not in (0, 1):
            verdict["wrong"].append(f"{dtype}: ended with exit code {ran['ended']}: {ran['said']}")
        verdicts[dtype] = verdict
    return verdicts


def sanitized(program, tools, found_something, dtypes, seconds):
    """{tool: verdict} of compute-sanitizer over the small checks, side by side."""
    clock, running = Clock(seconds), {}
    for tool, more in tools.items():
        before = [program, "--tool", tool, "--error-exitcode", str(found_something), *more]
        running[tool] = Part(tool, ["--part", "check", "--tiny", "--dtypes", ",".join(dtypes)], before)
    verdicts = {}
    for tool, part in running.items():
        ran = part.finished(clock.left())
        if ran["ended"] is None:
            verdicts[tool] = {"verdict": f"not finished in {seconds:.0f} s", "said": ran["said"]}
        elif ran["ended"] == 0:
            verdicts[tool] = {"verdict": "clean", "answers": ran["found"]["answers"] if ran["found"] else 0}
        else:
            errors = ran["ended"] == found_something
            verdict = "errors" if errors else f"did not run through (exit code {ran['ended']})"
            verdicts[tool] = {"verdict": verdict, "said": ran["said"]}
    return verdicts


def measured(arguments, seconds):
    """What the part that measures has found until it ended, or had to."""
    ran = Part("measure", ["--part", "measure", "--budget", f"{seconds:.0f}", *arguments]).finished(seconds + 20)
    found = ran["found"] or {"rows": []}
    if ran["ended"] != 0:
        how = "had to be ended" if ran["ended"] is None else f"ended with exit code {ran['ended']}"
        found["failed"] = f"{how}: {ran['said']}"
    return found
