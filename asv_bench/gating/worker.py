"""The process of one commit: reads commands from its input, a JSON object a line, and answers each with one.

``python -P -m gating.worker SITE THREADS PLANT``, SITE being where numbabn has to come from. Commands:
{"prepare": job} makes new arrays and checks the answer, {"time": calls} gives the seconds of so many calls,
{"stop": true} ends it. It does nothing while it waits.
"""

import gc
import json
import sys
import time
from pathlib import Path

import limits


def main(site, threads, plant):
    limits.confine(int(threads))
    import numbabn
    from gating.jobs import JOBS

    found = Path(numbabn.__file__).resolve()
    if not found.is_relative_to(Path(site).resolve()):
        raise SystemExit(f"numbabn comes from {found}, not from {site}")
    gc.disable()
    work = None
    for line in sys.stdin:
        command = json.loads(line)
        if "stop" in command:
            return
        if "prepare" in command:
            work = None  # the old arrays go before the new ones come
            gc.collect()
            answer = {"ready": True}
            try:
                work = JOBS[command["prepare"]]()
            except Exception as error:  # told to the parent, which says which commit cannot do it
                answer = {"error": f"{type(error).__name__}: {error}".strip()[:300]}
        else:
            answer = {"seconds": timed(work, command["time"], float(plant))}
        print(json.dumps(answer), flush=True)


def timed(work, calls, plant):
    """Seconds of so many calls; a planted slowdown makes them longer by its factor, inside what is timed."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    if plant > 1:
        end = start + plant * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
