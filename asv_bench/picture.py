"""The rows of versus.py as a picture: a panel for each task, a line for each array, a mark for each contender."""

import itertools

import matplotlib
import tables

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = {
    "numbabn": "#d62728",
    "PyTorch": "#ff7f0e",
    "JAX": "#1f77b4",
    "onnxruntime": "#9467bd",
    "scikit-learn": "#2ca02c",
    "NumPy": "#7f7f7f",
}
MARKS = "oDsv^<>P"
LINE = 0.30  # inches of height for each array
WIDTH = 15.0


def draw(report, file):
    """Write the picture to a file."""
    panels = list(tables.groups(report["rows"]))
    columns = min(2, len(panels))
    lines = [panels[k : k + columns] for k in range(0, len(panels), columns)]
    heights = [max(len(rows) for _, rows, _ in line) * LINE + 1.1 for line in lines]
    marks = _marks(report["rows"])
    figure, axes = plt.subplots(
        len(lines), columns, figsize=(WIDTH, sum(heights) + 1.0), height_ratios=heights, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, panel in itertools.zip_longest(axes.flat, panels):
        if panel is None:
            ax.set_axis_off()
        else:
            _panel(ax, *panel[:2], marks)
    figure.legend(handles=_legend(marks), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.suptitle(
        f"numbabn beside others: {report['threads']} threads, medians of {report['rounds']} rounds in turn, bars from "
        "quartile to quartile; filled marks write into a given array or none, hollow ones into a new one",
        fontsize=10,
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _marks(rows):
    """{contender: mark}: a mark for each form of a library."""
    forms = {}
    for row in rows:
        for name, c in row["contenders"].items():
            forms.setdefault(c["library"], {}).setdefault(name, None)
    return {name: MARKS[k % len(MARKS)] for names in forms.values() for k, name in enumerate(names)}


def _new(name, task):
    """Whether a contender gives a new array."""
    outputs = ("inference", "denormalize", "train", "backward", "step", "layer")
    return task in outputs and name != "numbabn" and not name.endswith("out=")


def _panel(ax, title, rows, marks):
    small = rows[0]["small"]
    for y, row in enumerate(rows):
        for name, c in row["contenders"].items():
            colour = COLOURS[c["library"]]
            ax.plot([c["q1"], c["q3"]], [y, y], color=colour, linewidth=2.5, alpha=0.45, solid_capstyle="butt")
            fill = "white" if _new(name, row["task"]) else colour
            order = 4 if c["library"] == "numbabn" else 3
            ax.plot(c["median"], y, marks[name], color=colour, markerfacecolor=fill, markersize=6, zorder=order)
    ax.set_yticks(range(len(rows)), [tables.label(row) for row in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="both", color="#e5e5e5", linewidth=0.6)
    ax.grid(axis="x", which="minor", color="#f2f2f2", linewidth=0.5)
    ax.set_axisbelow(True)
    if not small:
        ax.axvline(1.0, color="black", linewidth=0.8)
    ax.set_xlabel("µs a call" if small else "time over a plain copy", fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(title.split(";")[0], fontsize=9, loc="left")


def _legend(marks):
    names = sorted(marks, key=lambda name: (list(COLOURS).index(name.split(",")[0]), name))
    return [
        Line2D([], [], linestyle="", marker=marks[name], color=COLOURS[name.split(",")[0]], label=name)
        for name in names
    ]
