"""How the cost of moments, inference and training grows with the size of an array, its channels, and the threads.

Everything is a time over that of the fastest plain copy of the same array, taken in turn: a flat line is work that
grows as memory does. Draws a picture with three panels, and writes the numbers as JSON. float32; answers are checked
before they are timed.
"""

import argparse
import json
import os
import sys

import limits

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
TASKS = ("moments", "inference", "train")
CHANNELS = 64  # where these do not grow
SIDE = 32  # of a plane
STEP = 4  # from one size to the next
SMALLEST = 16 << 10  # bytes
RUN = 2e-3  # seconds that a run lasts at least: small arrays are taken several times


def main():
    options = parsed()
    limits.confine(max(options.threads))
    points = []
    for series, shape, axis, threads in plan(options):
        if not fits(shape):
            print(f"{shape}: left out, memory is too small", file=sys.stderr)
            continue
        print(f"{series} {shape} {threads} ...", file=sys.stderr, flush=True)
        points.append({"series": series, **point(shape, axis, threads, options.rounds)})
    report = {"threads": options.threads, "rounds": options.rounds, "points": points}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    import growth_picture

    growth_picture.draw(report, options.picture)


def plan(options):
    """(series, shape, channel axis, threads) of every point."""
    most = max(options.threads)
    size = SMALLEST
    while size <= options.largest:
        yield "size", *rows(size, CHANNELS), most
        yield "size", *planes(size, CHANNELS), most
        size *= STEP
    channels = 1
    while channels <= options.channels:
        yield "channels", *rows(options.size, channels), most
        yield "channels", *planes(options.size, channels), most
        channels *= STEP
    for threads in options.threads:
        yield "threads", *rows(options.size, CHANNELS), threads
        yield "threads", *planes(options.size, CHANNELS), threads


def rows(size, channels):
    return (max(2, size // 4 // channels), channels), 1


def planes(size, channels):
    """Images of so many channels; smaller ones where the size does not hold two of them."""
    side = SIDE
    while side > 2 and size // 4 < 2 * channels * side * side:
        side //= 2
    return (max(2, size // 4 // channels // side**2), channels, side, side), 1


def fits(shape):
    """Whether x, out and some more have place in what memory is free now."""
    size = 4
    for n in shape:
        size *= n
    return 2.5 * size < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def point(shape, axis, threads, rounds):
    """Times over a plain copy on as many threads, and seconds."""
    import contenders
    import numpy as np
    from benchmarks.race import race_of_calls

    import numbabn

    with numbabn.num_threads(threads):
        if "PyTorch" not in contenders.missing():
            import torch

            torch.set_num_threads(threads)
        p = contenders.Problem(drawn(shape), axis)
        works = {c.name: c.work for c in contenders.references(p) if c.library == "copy"}
        works["copy, by itself"] = lambda: np.copyto(p.out, p.x)  # what is fastest where threads do not pay
        copies = tuple(works)
        for task in TASKS:
            ours = contenders.ours.contenders(task, p)[0]
            p.out.fill(0)
            contenders.check(task, p, ours, ours.work())
            works[task] = ours.work
        times = race_of_calls(works, rounds, RUN)
    copy = min(times[name].median for name in copies)
    result = {"shape": list(shape), "bytes": p.x.nbytes, "channels": p.channels, "threads": threads, "copy": copy}
    for task in TASKS:
        q1, q3 = times[task].quartiles
        result[task] = {"seconds": times[task].median, "over copy": times[task].median / copy}
        result[task] |= {"q1": q1 / copy, "q3": q3 / copy}
    return result


def drawn(shape):
    """An array of normal values, a large one by repeating some: drawing them all would take longer than the rest."""
    import numpy as np
    from benchmarks import draw

    x = np.empty(shape, np.float32)
    flat, some = x.reshape(-1), draw(min(x.size, 9_999_991))
    for at in range(0, flat.size, some.size):
        flat[at : at + some.size] = some[: flat.size - at]
    return x


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=_size, default=4 << 30, help="the largest array (default 4GiB)")
    parser.add_argument("--size", type=_size, default=64 << 20, help="by channels and threads (default 64MiB)")
    parser.add_argument("--channels", type=int, default=16_384, help="the most channels (default 16384)")
    parser.add_argument(
        "--threads", type=_threads, default=_halves(limits.cores()), help="such as 1,2 (default: to all)"
    )
    parser.add_argument("--rounds", type=int, default=12, help="rounds of every point (default 12)")
    parser.add_argument("--picture", metavar="FILE", default="growth.png", help="where to draw (default growth.png)")
    parser.add_argument("--json", metavar="FILE", help="where to write the numbers")
    options = parser.parse_args()
    if options.rounds < 1 or options.channels < 1:
        parser.error("--rounds and --channels are 1 or more")
    return options


def _halves(most):
    """1, 2, 4, ... and the most."""
    return sorted({most, *(1 << k for k in range(most.bit_length()) if 1 << k <= most)})


def _threads(text):
    numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(numbers) != len(text.split(",")) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers of threads; expected some such as 1,2")
    return numbers


def _size(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit) and text.removesuffix(unit).strip().isdecimal():
            return max(SMALLEST, int(text.removesuffix(unit)) * factor)
    raise argparse.ArgumentTypeError(f"{text!r} is no size; expected one such as 64MiB or 4GiB")


if __name__ == "__main__":
    main()
