"""Kernels as machine code: packed instructions, and numba as it was for whoever uses it in the same process."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from numbabn.kernels import build

PARTS = ("Parts", "f8", "f8", "f8", None, None, "i", "i")
AFFINE = ("Affine", "f4", "i", "i", "f8", "f8", "f8", None, "i", "i", None)
KERNELS = {
    "moments": ("cpu_rows", "moments", ("i", "i", "f4", *["i"] * 7, None, PARTS, "i")),
    "write": ("written", "rows", ("i", "i", AFFINE, "f4", *["i"] * 7)),
}
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.parametrize(
    ("room", "name", "kinds"),
    [
        ("learn", "exponential", ("i", "f8", "f8", "f8", "d", "f8", "f8", "d", "d", "f8")),
        ("welford", "merge_tree", ("i", "i", PARTS)),
        ("welford", "merge_at", (PARTS, "i", "i8", "i", PARTS)),
        ("usable", "usable", ("f8", "i", "i")),
        ("grads", "add_at", ("f8", "i", "i8", "i", "f8", "i")),
        ("boxes", "boxes", ("i", "i", "i8")),
        ("crew", "help", ("i8",)),
        ("whole", "moments", ("i8", "i", "i8", *"iiiiiidd")),
        ("whole_back", "backward", ("i8", "i", "i8", *"iiiiiiiddi")),
        *KERNELS.values(),
    ],
)
def test_a_kernel_needs_no_other_to_be_compiled_first(room: str, name: str, kinds: tuple[object, ...]) -> None:
    """What the others have left on disk, a process does not compile."""
    code = f"from numbabn.kernels import build; print(len(build.built({room!r}, {name!r}, {kinds!r})))"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert int(ran.stdout) > 500


@pytest.mark.skipif(not X86, reason="reads the assembly of x86")
@pytest.mark.parametrize("name", KERNELS)
def test_the_loops_are_vectors(name: str) -> None:
    text = build.listing(*KERNELS[name])
    packed = re.findall(r"\bv?(?:sub|add|mul|fn?madd\d+)pd\b", text)
    single = re.findall(r"\bv?(?:sub|add|mul|fn?madd\d+)sd\b", text)
    assert len(packed) > len(single)  # of these are the ends of sums and what is done once for a channel
    assert "fp16" not in text
    assert not re.search(r"\bvcvtph2pd\b", text)


@pytest.mark.skipif(not X86, reason="reads the assembly of x86")
@pytest.mark.parametrize("kind", ["f2", "b2"])
@pytest.mark.parametrize("name", ["rows_past", "planes_past"])
def test_16_bit_results_are_worked_out_in_float32_and_go_past_the_cache(name: str, kind: str) -> None:
    """LLVM stores what it cuts off numbers of 32 bits into the cache, whatever it was told."""
    text = build.listing(
        "written", name, ("i", "i", (*AFFINE[:1], kind, *AFFINE[2:]), kind, *["i"] * (4 + (name == "rows_past")))
    )
    if "+f16c" in build._codegen()._tm_features and "+fma" in build._codegen()._tm_features:
        assert re.search(r"\bvfmadd\d+ps\b", text)
    assert re.search(r"\bv?movnt(?:ps|dq)\b", text)
    for strips in re.findall(r"^\w*four_by_strips\w*:\n.*?^\.Lfunc_end", text, re.MULTILINE | re.DOTALL):
        if "movnt" in strips:
            stores = re.findall(r"^\tv?mov\w+\t%[xyz]mm\d+, -?\d*\((?!%rsp).*", strips, re.MULTILINE)
            assert stores
            assert all("movnt" in store for store in stores)


@pytest.mark.skipif(not X86, reason="reads the assembly of x86")
def test_values_are_added_by_the_units_that_multiply() -> None:
    """A multiplication with one that LLVM saw through would be an addition again."""
    text = build.listing(*KERNELS["moments"])
    if "+fma" in build._codegen()._tm_features:
        eight_rows = text[text.index("prefetch") :].split("\tj", 1)[0]
        assert len(re.findall(r"\bvfmadd\d+pd\b", eight_rows)) > 2 * len(re.findall(r"\bvaddpd\b", eight_rows))


@pytest.mark.skipif(not X86, reason="reads the assembly of x86")
@pytest.mark.parametrize("room", ["cpu_rows", "cpu_planes"])
def test_what_a_mask_lets_through_is_counted_in_whole_numbers(room: str) -> None:
    """One comparison for each eight of its bytes, one addition under what it says, and none of floats with 0."""
    pick = ("", ("Dense", "u1", "i", "i"), None, None)
    text = build.listing(room, "moments", ("i", "i", "f4", *["i"] * (7 + (room == "cpu_planes")), pick, PARTS, "i"))
    if "+avx512bw" in build._codegen()._tm_features:
        assert len(re.findall(r"\bvpaddq\b.*\{%k\d\}", text)) >= 3
        assert not re.search(r"\bvcmpneqpd\b", text)


def test_numba_is_as_it_was_afterwards() -> None:
    """The same built-in functions compiled for kernels first, then for a function of the user's own."""
    code = """
        import numpy as np, numbabn
        numbabn.BatchNorm(6)(np.ones((100, 6)), training=True)
        import numba

        @numba.njit
        def clipped(x, low, high):
            if low > high:
                raise ValueError("crossed")
            total = 0.0
            for i in range(len(x)):
                total += min(max(x[i], low), high)
            return total, abs(-3), max(1, 2)

        assert clipped(np.arange(5.0), 1.0, 3.0) == (1 + 1 + 2 + 3 + 3, 3, 2)
        try:
            clipped(np.arange(5.0), 3.0, 1.0)
        except ValueError as error:
            print(error)
        numbabn.moments(np.ones((4, 6, 50)), axis=1)
        print(clipped(np.arange(5), 1, 3)[0])
        """
    program = "import os, textwrap\nos.environ['NUMBABN_CACHE'] = '0'\n"
    program += f"exec(compile(textwrap.dedent({code!r}), 'program', 'exec'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "crossed\n10.0\n", done.stderr


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_kernels_and_functions_of_others_in_turn(first: str) -> None:
    """numba's context is lent to kernels, and given back: what others compile before, between and after is whole."""
    code = """
        import os, sys
        os.environ["NUMBABN_CACHE"] = "0"
        import numpy as np, numbabn
        x = np.random.default_rng(0).normal(size=(300, 5))

        def ours(dtype):
            y, m = numbabn.batch_norm(x.astype(dtype), activation="tanh")
            assert numbabn.normalize(x.astype(dtype), m.mean, m.var()).shape == x.shape
            assert numbabn.moments(x.astype(dtype)).count == 300

        def theirs(scale):
            import numba

            @numba.njit(fastmath=True)
            def function(a):
                names = {"a": [max(1, 2), min(3.0, 4.0)]}
                ordered = sorted(names["a"])
                return np.dot(a, a.T).sum() + np.sort(a[:, 0])[0] + len("abc"[1:]) + ordered[0] + np.linalg.norm(a)

            got = function(x * scale)
            want = np.dot(x, x.T).sum() * scale**2 + np.sort(x[:, 0])[0] * scale + 4 + np.linalg.norm(x) * scale
            assert abs(got - want) < 1e-6, (got, want)

        if sys.argv[1] == "theirs":
            theirs(1.0)
        ours(np.float32)
        theirs(2.0)
        ours(np.float64)
        theirs(3.0)
        print("whole")
        """
    program = [sys.executable, "-c", textwrap.dedent(code), first]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", done.stderr


@pytest.mark.parametrize("stream", ["0", "1"])
def test_warmup_compiles_what_plain_calls_need(stream: str, tmp_path: Path) -> None:
    """Small arrays, those that are cut into parts, channels that stay cached, and results that go past the cache."""
    code = """
        import glob, os
        import numpy as np, numbabn
        kept = lambda: len(glob.glob(os.environ["NUMBA_CACHE_DIR"] + "/**/*.o", recursive=True))
        numbabn.warmup(["float32"])
        before = kept()
        large = ((300_000, 4), (32, 2048, 7, 7), (2, 2, 300_000), (1 << 21, 5), (2, 64, 70_000))
        for shape in ((5, 7), (3, 4, 5), *large):
            x, channels = np.ones(shape, np.float32), shape[1]
            m = numbabn.moments(x, axis=1)
            y = numbabn.normalize(x, m.mean, m.var(), axis=1)
            numbabn.batch_norm(x, axis=1, out=y)
            bn = numbabn.BatchNorm(channels, axis=1)
            bn(x, training=True, out=y)
            bn(x, out=y)
            bn.update(x)
            assert kept() == before, shape
        print(before > 5)
        """
    more = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBABN_STREAM": stream, "NUMBABN_CACHE": "1"}
    program = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ | more
    )
    assert done.stdout == "True\n", done.stderr


def test_what_only_this_process_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "KNOWN", set())
    with pytest.raises(RuntimeError, match=r"needs aligned_alloc, free.*which no other process has"):
        build.built(*KERNELS["write"])
