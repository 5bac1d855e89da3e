"""The CUDA kernels as machine code: registers, shared memory, spills, and how wide they load and store.

Compiles every kernel for every dtype and a choice of options, assembles it, and prints a table; exits with 1 if one
spills registers or needs a stack. It takes the packages of ``pip install 'numbabn[cuda]'`` and nvidia-cuda-nvcc, but no
GPU.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

CAPABILITIES = ((8, 0), (9, 0))
REGISTERS = 65_536  # of a multiprocessor
THREADS = {"columns": 128, "whole": 512, "learn.learn": 1024}  # of the blocks of these kernels; of the others 256
DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int32")


@dataclass(frozen=True)
class Code:
    """What the assembler and the code itself say of one kernel."""

    name: str
    dtype: str
    options: str
    capability: tuple[int, int]
    registers: int
    shared: int
    stack: int
    spills: int
    threads: int
    loads: str

    @property
    def sound(self):
        """Whether it keeps everything in registers, and a multiprocessor has enough of them for a block."""
        return self.stack == 0 and self.spills == 0 and self.registers * self.threads <= REGISTERS


def assembler():
    """The path of ptxas, from the package nvidia-cuda-nvcc or from the PATH; None without one."""
    import importlib.util
    import shutil

    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for found in Path(folder).glob("*/bin/ptxas"):
            return os.fspath(found)
    return shutil.which("ptxas")


def pretend(capability):
    """numba asks the current device what to compile device functions for: answer without one."""
    import numba.cuda.dispatcher as dispatcher

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)


def arguments(dtype):
    """(kernel, name, options, numba's types of its arguments) of everything there is for one dtype."""
    import numba
    from numba import types
    from numbabn.kernels.activation import Clip, Gelu, Silu, Softplus

    from numbabn.arrays import BFLOAT, HALF
    from numbabn.backends import cuda, cuda_cuts
    from numbabn.backends.cuts import kernels

    def array(of):
        return types.Array(numba.from_dtype(of), 1, "C")

    import numpy as np

    x = array({"float16": HALF, "bfloat16": BFLOAT}.get(dtype) or np.dtype(dtype))
    out = x if dtype.startswith(("float", "bfloat")) else array(np.dtype(np.float32))
    f8, i8, none = array(np.dtype(np.float64)), types.int64, types.none
    form = types.Tuple([array(np.dtype(np.uint8)), i8, i8, i8])
    weight = types.Tuple([array(np.dtype(np.float32)), i8, i8, i8])
    picks = {"": none, "mask": types.Tuple([form, none, none]), "omit": types.Tuple([none, none, types.boolean])}
    picks["weights"] = types.Tuple([none, weight, none])
    acts = {"": (None, none), "relu, residual": (Clip(0.0, 1.0), out), "silu": (Silu(1.0), none)}
    acts |= {"gelu, residual": (Gelu(0), out), "softplus": (Softplus(1.0), none)}
    a, flag, at, eps = (i8, i8), types.boolean, (i8,) * 5, types.float64
    size = 1 if dtype == "uint8" else int(re.findall("[0-9]+", dtype)[0]) // 8

    def families(wide, arrays, work, threads):
        deep = cuda_cuts.deep(wide, size, arrays, work)
        block = cuda_cuts.COLS, threads // cuda_cuts.COLS, wide, deep
        rows, planes = kernels("cuda_rows").family(*block), kernels("cuda_planes").family(cuda_cuts.SUMS, wide, deep)
        return rows, planes, kernels("cuda_columns").family(*block)

    def plan(wide):
        return cuda_cuts.Planes((1, 1), 2 * cuda_cuts.SUMS, 1, (1, 1), wide, True)

    for wide, (options, pick) in itertools.product((cuda_cuts.WIDE, 1), picks.items()):
        rows, planes, _ = families(wide, 1, 1 if pick is none else 2, cuda_cuts.SUMS)
        named = f"{options} {wide}".strip()
        yield rows.moments, "rows.moments", named, (x, *a, *at, pick, flag, f8)
        yield planes.moments, "planes.moments", named, (x, *a, *at, pick, f8)
    for wide, (options, (form, residual)) in itertools.product((cuda_cuts.WIDE, 1), acts.items()):
        if out is not x:
            break
        act = none if form is None else numba.typeof(form)
        named, pick = f"{options} {wide}".strip(), picks["mask" if options == "relu, residual" else ""]
        given = (x, *a, out, *a, *at, i8, f8, f8, f8, residual, *a, act)
        yield (
            families(wide, 1, cuda._work(None, form), cuda_cuts.WRITES)[2].transform,
            "columns.transform",
            named,
            given,
        )
        back = none if form is None else types.Tuple([act, f8, f8])
        both = (x, *a, x, *a, *at, pick, f8, back, residual, *a)
        work = cuda._work(None if pick is none else pick, form)
        rows, planes, _ = families(wide, 2, work, cuda_cuts.SUMS)
        yield rows.sums, "rows.sums", named, (*both, flag, f8)
        yield planes.sums, "planes.sums", named, (*both, f8)
        given = (x, *a, x, *a, x, *a, residual, *a, *at, i8, pick, f8, back, residual, *a, f8, f8, f8)
        yield families(wide, 2, work, cuda_cuts.WRITES)[2].inputs, "columns.inputs", named, given
        sums = (i8,) * 4
        given = (x, *a, *sums, x, *a, x, *a, *at, f8, f8, eps, residual, *a, act, f8)
        yield cuda._whole(plan(wide), plan(wide), size, 1, form).train, "whole.train", named, given
        given = (x, *a, x, *a, residual, *a, *sums, x, *a, x, *a, x, *a, residual, *a, *at)
        given = (*given, f8, f8, f8, eps, act, residual, *a, f8)
        yield cuda._whole(plan(wide), plan(wide), size, 2, form).back, "whole.back", named, given
    if dtype == "float64":
        merge = kernels("cuda_merge").family(cuda_cuts.JOIN)
        yield merge.finish, "merge.finish", "", (f8, *(i8,) * 4, f8, none, types.float64, none)
        yield merge.finish, "merge.finish", "scale", (f8, *(i8,) * 4, f8, f8, types.float64, f8)
        yield merge.total, "merge.total", "", (f8, *(i8,) * 4, f8)
        learn, count = kernels("cuda_learn"), array(np.dtype(np.int64))
        yield learn.learn, "learn.learn", "", (f8, f8, count, i8, i8, i8, eps, eps, i8)
        yield learn.fold, "learn.fold", "", (f8, i8, f8, eps, i8, f8)
        yield learn.turn, "learn.turn", "", (f8, i8, f8, eps, f8)
        yield learn.ways, "learn.ways", "", (f8, f8, f8, i8, f8)
    if dtype in ("uint8", "float16", "float32", "float64"):  # copies are of bits
        bits, places = array(np.dtype(f"u{np.dtype(dtype).itemsize}")), types.UniTuple(i8, 4)
        for name in ("gather", "scatter"):
            yield getattr(kernels("cuda_copy"), name), f"copy.{name}", "4 axes", (bits, i8, bits, i8, places, places)


def assembled(kernel, name, dtype, options, types, capability, ptxas):
    """One kernel, compiled and assembled."""
    from numbabn.backends.cuda_code import compiled

    code = compiled(kernel, types, capability)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(code)
        arch = f"sm_{capability[0]}{capability[1]}"
        command = [ptxas, "-v", f"-arch={arch}", os.fspath(source), "-o", os.fspath(source.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas does not take {name} ({dtype}, {options}): {done.stderr}")
    said = done.stderr
    spills = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    number = {key: int(m[1]) if (m := re.search(rf"(\d+) {what}", said)) else 0 for key, what in (
        ("registers", "registers"), ("shared", "bytes smem"), ("stack", "bytes stack frame"))}  # fmt: skip
    widths = sorted({*re.findall(r"(?:ld|st)\.global(?:\.nc)?\.((?:v\d\.)?[a-z]\d+)", code)})
    threads = THREADS.get(name, THREADS.get(name.split(".")[0], 256))
    return Code(name, dtype, options, capability, **number, spills=spills, threads=threads, loads=" ".join(widths))


def measured(dtypes=DTYPES, capabilities=CAPABILITIES, only=""):
    """All of them, one by one."""
    ptxas = assembler()
    if ptxas is None:
        raise FileNotFoundError("there is no ptxas: pip install nvidia-cuda-nvcc")
    for capability in capabilities:
        pretend(capability)
        for dtype in dtypes:
            for kernel, name, options, types in arguments(dtype):
                if only in name:
                    yield assembled(kernel, name, dtype, options, types, capability, ptxas)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", type=lambda t: t.split(","), default=DTYPES, help="by commas (default all)")
    parser.add_argument("--only", default="", help="kernels with this in their name")
    options = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    table = Table(title="CUDA kernels as machine code")
    for name in (
        "kernel",
        "dtype",
        "options",
        "sm",
        "registers",
        "shared",
        "stack",
        "spills",
        "global loads and stores",
    ):
        table.add_column(name)
    bad = 0
    for c in measured(options.dtypes, only=options.only):
        cells = (
            c.name,
            c.dtype,
            c.options,
            f"{c.capability[0]}{c.capability[1]}",
            c.registers,
            c.shared,
            c.stack,
            c.spills,
        )
        table.add_row(*map(str, cells), c.loads)
        bad += not c.sound
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table)
    console.print(
        f"{bad} of {table.row_count} need a stack, spill, or take too many registers."
        if bad
        else "No spills and no stack frames."
    )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
