"""The points of growth.py as one picture: by size, by channels, by threads."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

COLOURS = {"moments": "#1f77b4", "inference": "#2ca02c", "train": "#d62728", "copy": "#555555"}
DASHES = {"rows": "-", "planes": "--"}


def draw(report, file):
    """Write the picture to a file."""
    figure, axes = plt.subplots(1, 3, figsize=(16, 5.5), layout="constrained")
    for ax, series, x in zip(axes, ("size", "channels", "threads"), ("bytes", "channels", "threads"), strict=True):
        some = [p for p in report["points"] if p["series"] == series]
        values = sorted({p[x] for p in some})
        for order, dash in DASHES.items():
            line = [p for p in some if (len(p["shape"]) == 2) == (order == "rows")]
            if series == "threads":
                _threads(ax, line, order, dash)
            else:
                _over_copy(ax, line, x, order, dash)
        _frame(ax, values, x)
    most = max(report["threads"])
    fixed = {p["bytes"] for p in report["points"] if p["series"] == "channels"}
    about = f"{_size(max(fixed))}, " if fixed else ""
    axes[0].set(title=f"by size: 64 channels, {most} threads", xlabel="array", ylabel="time over a plain copy")
    axes[1].set(title=f"by channels: {about}{most} threads", xlabel="channels", ylabel="time over a plain copy")
    axes[2].set(
        title=f"by threads: {about}64 channels", xlabel="threads", ylabel="time over a plain copy on one thread"
    )
    axes[0].xaxis.set_major_formatter(FuncFormatter(lambda v, _: _size(v)))
    figure.legend(handles=axes[2].lines, loc="outside lower center", ncols=8, fontsize=9, frameon=False)
    figure.suptitle(
        f"How numbabn's cost grows: float32, medians of {report['rounds']} rounds, bands from quartile to quartile; "
        "a flat line is work that grows as memory does",
        fontsize=11,
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _over_copy(ax, line, x, order, dash):
    at = [p[x] for p in line]
    for task in ("moments", "inference", "train"):
        over = [p[task]["over copy"] for p in line]
        ax.plot(at, over, dash, color=COLOURS[task], marker="o", markersize=4, label=f"{task}, {order}")
        ax.fill_between(
            at, [p[task]["q1"] for p in line], [p[task]["q3"] for p in line], color=COLOURS[task], alpha=0.12
        )  # fmt: skip
    ax.axhline(1.0, color="black", linewidth=0.8)


def _threads(ax, line, order, dash):
    """Times over those of a copy on one thread, or on the fewest that were measured."""
    if not line:
        return
    unit = min(line, key=lambda p: p["threads"])["copy"]
    at = [p["threads"] for p in line]
    ax.plot(
        at, [p["copy"] / unit for p in line], dash, color=COLOURS["copy"], marker="s", markersize=4,
        label=f"plain copy, {order}",
    )  # fmt: skip
    for task in ("moments", "inference", "train"):
        seconds = [p[task]["seconds"] / unit for p in line]
        ax.plot(at, seconds, dash, color=COLOURS[task], marker="o", markersize=4, label=f"{task}, {order}")


def _frame(ax, values, x):
    ax.set_xscale("log", base=2 if x == "threads" else 10)
    ax.set_yscale("log")
    every = 1 if len(values) < 9 else 2
    ax.xaxis.set_major_locator(FixedLocator(values[::every]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(color="#e5e5e5", linewidth=0.6)
    ax.set_axisbelow(True)


def _size(n):
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n:.0f} B"
