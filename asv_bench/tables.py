"""The rows of versus.py as tables: one for each task, in a terminal or in Markdown."""

from contenders import TASKS

TITLES = {
    "moments": "mean and variance",
    "inference": "normalize by given statistics",
    "denormalize": "the inverse of normalize",
    "train": "normalize by its own statistics",
    "backward": "gradients of x, gamma and beta",
    "step": "a training step of the layer",
    "layer": "inference of the layer",
    "update": "running averages, nothing normalized",
    "masked": "moments with a boolean for each value",
    "positions": "moments with a boolean for each position",
    "weighted": "moments with a weight for each position",
    "omitting": "moments without what is NaN",
    "samples": "moments with a boolean for each sample",
    "lines": "moments with a weight for each line of the last two axes",
}
# The order of columns; what is not named comes last, as it was found.
COLUMNS = ("numbabn", "numbabn, fresh", "numbabn, plain", "PyTorch, out=", "PyTorch")


def groups(rows):
    """(title, rows, their contenders) of each table: tasks in order, small arrays apart."""
    for small in (False, True):
        for task in TASKS:
            some = [row for row in rows if row["task"] == task and row["small"] is small]
            if some:
                unit = "µs a call" if small else "time over that of a plain copy of the array"
                yield f"{task}{', small' if small else ''}: {TITLES[task]}; {unit}", some, _columns(some)


def label(row):
    """The array of a row."""
    dtype = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"{row['order']} {'x'.join(map(str, row['shape']))}{dtype}"


def plain(head, rows, as_markdown):
    """Print one table of texts, in a terminal or in Markdown."""
    from rich.table import Table

    if as_markdown:
        print("\n".join([_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console():
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 240  # a file or a pipe has no width: nothing is folded
    return console


def show(rows, with_goals):
    """Tables in a terminal: the median, and below it the quartiles."""
    from rich.table import Table

    console = _console()
    for title, some, columns in groups(rows):
        table = Table(title=title, title_justify="left", show_lines=True)
        for k, name in enumerate(_head(columns, with_goals)):
            table.add_column(name.replace(", ", "\n"), justify="right" if k else "left", overflow="fold")
        for row in some:
            table.add_row(*_texts(row, columns, with_goals, _two_lines))
        console.print(table)


def markdown(rows, with_goals):
    """Lines of Markdown: quartiles of numbabn alone, to keep them short."""
    lines = []
    for title, some, columns in groups(rows):
        head = _head(columns, with_goals)
        lines += [f"**{title}**", "", _line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        lines += [_line(_texts(row, columns, with_goals, _one_line)) for row in some]
        lines.append("")
    return lines


def _columns(rows):
    found = dict.fromkeys(name for row in rows for name in [*row["contenders"], *_wrong(row)])
    return [name for name in COLUMNS if name in found] + [name for name in found if name not in COLUMNS]


def _wrong(row):
    return [name for name, why in row["left out"].items() if why.startswith("WrongAnswerError")]


def _head(columns, with_goals):
    return ["array", *columns, "best peer / numbabn", *(["goal"] if with_goals else [])]


def _texts(row, columns, with_goals, cell):
    ratio = row["best peer / numbabn"]
    texts = [label(row)]
    for name in columns:
        found = row["contenders"].get(name)
        texts.append(cell(name, found) if found else "wrong" if name in _wrong(row) else "-")
    texts.append("-" if ratio is None else f"{ratio:.1f}")
    return [*texts, goal_text(row)] if with_goals else texts


def goal_text(row):
    """Whether the goal is met, and by what."""
    goal = row["goal"]
    return "-" if goal is None else f"{goal['text']}: {goal['value']:.2f} {'met' if goal['met'] else 'MISSED'}"


def _two_lines(name, found):
    return f"{_number(found['median'])}\n{_number(found['q1'])}-{_number(found['q3'])}"


def _one_line(name, found):
    text = _number(found["median"])
    return f"{text} ({_number(found['q1'])}-{_number(found['q3'])})" if name.startswith("numbabn") else text


def _number(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _line(texts):
    return f"| {' | '.join(texts)} |"


def notes(report):
    """What a reader needs to know to believe the tables."""
    lines = [
        f"{report['threads']} threads and as many cores for everybody (NumPy and scikit-learn use one), "
        f"{report['rounds']} rounds in turn (fewer for who takes more than 10 copies), scale {report['scale']:g}; "
        "medians and quartiles. 'best peer' is the fastest peer in any form, 'numbabn' writes into a given array.",
    ]
    for kind in ("copy", "read"):
        found = [row["references"][kind] for row in report["rows"] if kind in row["references"]]
        if found:
            speeds, names = [f["GB/s"] for f in found], ", ".join(sorted({f["by"] for f in found}))
            lines.append(f"The fastest plain {kind} ({names}): {min(speeds):.1f} to {max(speeds):.1f} GB/s.")
    lines.append(", ".join(f"{name} {version}" for name, version in report["versions"].items()) + ".")
    reasons = {}
    for row in report["rows"]:
        for name, why in row["left out"].items():
            reasons.setdefault((name, row["task"], why), []).append(label(row))
    lines += [f"Left out: {name} in {task} of {'; '.join(w)}: {why}." for (name, task, why), w in reasons.items()]
    lines += [f"Not installed: {name}." for name in report["missing"]]
    return lines
