"""One row of versus.py: everybody who can do a task on an array, checked, and then timed in turn."""

import contenders
import goals
from benchmarks.race import race, race_of_calls, timed

SLOW = {10: 4, 100: 12}  # copies that a run takes: then it runs in every 4th, in every 12th round only
SMALL_RUN = 2e-3  # seconds that a run of a small array lasts, by repeating the call


class Field:
    """Who takes part in a row; `left_out` says who does not, and why."""

    def __init__(self, task, p):
        self.task, self.p = task, p
        self.references = [] if p.workload.small else contenders.references(p)
        self.entrants, self.errors, self.left_out = [], {}, {}
        for reference in self.references:
            contenders.check_reference(p, reference, self._run(reference))
        for c in contenders.ours.contenders(task, p):
            self._admit(c)
        if task in contenders.ours.PICKS:
            self._admit(contenders.ours.plain(p), "moments")
        missing = contenders.missing()
        for library in contenders.PEERS:
            if library not in missing:
                self._admit_peers(library)

    def _run(self, c):
        self.p.out.fill(0)  # so that nobody can live on the answer of another
        return c.work()

    def _admit(self, c, task=None):
        self.errors[c.name] = contenders.check(task or self.task, self.p, c, self._run(c))
        self.entrants.append(c)

    def _admit_peers(self, library):
        """Peers may be unable to do it, or wrong: a row tells it, and goes on without them."""
        try:
            found = contenders.peers(library, self.task, self.p)
        except Exception as error:
            self.left_out[library] = _brief(error)
            return
        for c in found:
            try:
                self._admit(c)
            except Exception as error:
                self.left_out[c.name] = _brief(error)

    def race(self, rounds):
        """{name: Times}, of one call each."""
        everybody = {c.name: c.work for c in [*self.references, *self.entrants]}
        first = {name: timed(work)[0] for name, work in everybody.items()}
        if self.p.workload.small:
            return race_of_calls(everybody, rounds, SMALL_RUN)
        copy = min(first[c.name] for c in self.references if c.library == "copy")
        seldom = {}
        for name, seconds in first.items():
            waits = [every for limit, every in SLOW.items() if seconds > limit * copy]
            if waits and not name.startswith(("numbabn", "copy", "read")):
                seldom[name] = max(waits)
        return race(everybody, rounds, seldom)


def measured(task, p, dtype, rounds):
    """One row, for JSON."""
    field = Field(task, p)
    times = field.race(rounds)
    row = {
        "task": task,
        "workload": p.workload.name,
        "order": p.workload.order,
        "dtype": dtype,
        "shape": list(p.x.shape),
        "channel axis": p.axis,
        "bytes": p.x.nbytes,
        "small": p.workload.small,
        "references": _units(field, times),
        "left out": field.left_out,
    }
    row["unit"] = {"name": "µs", "seconds": 1e-6} if row["small"] else {"name": "copy", **row["references"]["copy"]}
    row["contenders"] = {c.name: _result(c, times[c.name], row["unit"]["seconds"], field) for c in field.entrants}
    peers = {name: c["median"] for name, c in row["contenders"].items() if c["library"] != "numbabn"}
    row["best peer"] = min(peers, key=peers.get, default=None)
    ratio = peers[row["best peer"]] / row["contenders"]["numbabn"]["median"] if peers else None
    row["best peer / numbabn"] = ratio
    row["goal"] = goals.goal(row)
    return row


def _units(field, times):
    """The fastest copy and the fastest read."""
    found = {}
    for kind in dict.fromkeys(c.library for c in field.references):
        best = min((c for c in field.references if c.library == kind), key=lambda c: times[c.name].median)
        seconds, passes = times[best.name].median, {"copy": 2, "read": 1}[kind]
        found[kind] = {"by": best.form, "seconds": seconds, "GB/s": passes * field.p.x.nbytes / seconds / 1e9}
    return found


def _result(c, times, unit, field):
    q1, q3 = times.quartiles
    return {
        "library": c.library,
        "form": c.form,
        "median": times.median / unit,
        "q1": q1 / unit,
        "q3": q3 / unit,
        "seconds": times.median,
        "runs": len(times.seconds),
        "largest errors": list(field.errors.get(c.name, ())),
    }


def _brief(error):
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"
