"""What numbabn is held to, as ratios of times that are measured in one run."""

from contenders import PICKED

CACHED = 16 << 20  # bytes of x, out and one more read of x in one channel: beyond it, training reads memory twice
CHANNELS = 8  # as many channels at least keep all threads busy with whole ones
RUN = 256  # values that lie together in one channel, for it to be a plane


def cached_planes(row):
    """Whether a channel lies in long runs and is small enough to be read again from a cache."""
    shape, axis = row["shape"], row["channel axis"]
    channels, values = shape[axis], row["bytes"]
    if row["order"] not in ("NCHW", "Fortran"):
        return False
    run = 1
    for n in shape[:axis] if row["order"] == "Fortran" else shape[axis + 1 :]:
        run *= n
    return run >= RUN and channels >= CHANNELS and 3 * values / channels <= CACHED


def goal(row):
    """{"text", "limit", "value", "met"}, or None where there is nothing to be held to."""
    of = {name: c["seconds"] for name, c in row["contenders"].items()}
    if row["small"]:
        theirs = min((of[name] for name in ("PyTorch", "PyTorch, update_stats") if name in of), default=None)
        return None if theirs is None else _held(of.get("numbabn, fresh", of["numbabn"]), theirs, 1.0, "PyTorch")
    copy, read = (row["references"].get(kind, {}).get("seconds") for kind in ("copy", "read"))
    task, ours = row["task"], of["numbabn"]
    if task in PICKED:
        return _held(ours, of["numbabn, plain"], 1.5, "plain")
    if task in ("inference", "denormalize"):
        return _held(ours, copy, 1.05, "copy")
    if task == "train" and cached_planes(row):
        return _held(ours, copy, 1.25, "copy")
    if read is None:
        return None
    if task == "moments":
        return _held(ours, read, 1.15, "read")
    if task == "train":
        return _held(ours, read + copy, 1.10, "(read + copy)")
    if task == "backward":  # reads dy and x twice, writes dx once; a write is a copy less a read
        return _held(ours, 3 * read + copy, 1.2, "(3 read + copy)")
    return None


def _held(ours, unit, limit, text):
    return {"text": f"≤ {limit:g} {text}", "limit": limit, "value": ours / unit, "met": ours <= limit * unit}
