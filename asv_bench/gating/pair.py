"""Two workers, one for each commit, of which one is at work at any time."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).parents[1]


class CannotRunError(Exception):
    """A commit cannot do a job: it fails, or its answer is wrong."""


class Worker:
    """A process with the numbabn of one build."""

    def __init__(self, name, build, threads, plant=1.0):
        self.name = name
        path = os.pathsep.join(map(os.fspath, (build.site, SUITE)))
        environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": os.fspath(build.cache)}
        command = [sys.executable, "-P", "-m", "gating.worker", os.fspath(build.site), str(threads), str(plant)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )  # fmt: skip

    def ask(self, **command):
        """The answer to a command."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.name} has ended: exit status {self.process.wait()}")
        return json.loads(line)

    def prepare(self, job):
        """Make new arrays for a job."""
        answer = self.ask(prepare=job)
        if "error" in answer:
            raise CannotRunError(f"{self.name} cannot: {answer['error']}")

    def seconds(self, calls):
        """How long so many calls take."""
        return self.ask(time=calls)["seconds"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            if self.process.poll() is None:
                self.process.kill()


def ratios(base, head, job, rounds, run):
    """(seconds of one call of base, head / base of each round), runs lasting so many seconds at least."""
    found, each = [], []
    for worker in (base, head):
        worker.prepare(job)
        worker.seconds(1)
    calls = max(1, math.ceil(run / base.seconds(2) * 2))
    for r in range(rounds):
        order = (base, head) if r % 2 == 0 else (head, base)
        times = {worker.name: worker.seconds(calls) for worker in order}
        each.append(times[base.name] / calls)
        found.append(times[head.name] / times[base.name])
    return sorted(each)[len(each) // 2], found
