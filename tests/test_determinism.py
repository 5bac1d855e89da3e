"""The same bits for any number of threads, from run to run, and from verb to verb."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cases import BFLOAT16, LARGE, MEMORY, SMALL, Case, draw, parameters

import numbabn

MEMORIES = ("c", "fortran", "crop", "all-reversed", "every-second-value", "field-of-packed-record")
DTYPES = (np.float32, np.float64, np.float16, BFLOAT16, np.int16)


def fingerprint(x: np.ndarray, case: Case) -> str:
    """A hash over the bits of everything that the verbs give."""
    mean, var, gamma, beta = parameters(case)
    m = numbabn.moments(x, axis=case.axis)
    y, m_ = numbabn.batch_norm(x, gamma, beta, axis=case.axis)
    assert m == m_
    z = numbabn.normalize(x, mean, var, gamma, beta, axis=case.axis)
    return hashlib.sha256(b"".join(a.tobytes() for a in (m.mean, m.m2, y, z))).hexdigest()


def same_for_all_threads(make: Callable[[], str]) -> str:
    prints = []
    for n in (1, 2, 3, 8, 2):
        with numbabn.num_threads(n):
            prints.append(make())
    assert len(set(prints)) == 1
    return prints[0]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_threads(case: Case) -> None:
    x = draw(case, np.float32, offset=1e3)
    same_for_all_threads(lambda: fingerprint(x, case))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("case", [LARGE[0], LARGE[5], LARGE[10]], ids=str)
def test_threads_for_each_dtype(case: Case, dtype: np.dtype) -> None:
    x = draw(case, dtype)
    same_for_all_threads(lambda: fingerprint(x, case))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("case", [LARGE[1], LARGE[3], LARGE[7]], ids=str)
def test_threads_for_each_layout(case: Case, memory: str) -> None:
    x = MEMORY[memory].of(draw(case, np.float32))
    same_for_all_threads(lambda: fingerprint(x, case))


@pytest.mark.parametrize("case", [*LARGE, *SMALL], ids=str)
@pytest.mark.parametrize("out_memory", ["in-place", "c", "crop", "fortran", "misaligned"])
def test_moments_do_not_depend_on_the_output(case: Case, out_memory: str) -> None:
    """batch_norm measures the same bits as moments, wherever its output goes, and writes the same bits everywhere."""
    x = draw(case, np.float32)
    m = numbabn.moments(x, axis=case.axis)
    y, _ = numbabn.batch_norm(x, axis=case.axis)
    out = x.copy() if out_memory == "in-place" else MEMORY[out_memory].empty(case.shape, np.float32)[0]
    _, m_ = numbabn.batch_norm(out if out_memory == "in-place" else x, axis=case.axis, out=out)
    assert m == m_
    assert out.tobytes() == y.tobytes()


@pytest.mark.parametrize("case", LARGE[:2] + LARGE[5:9], ids=str)
def test_training_is_inference_by_its_moments(case: Case) -> None:
    """The transform inside batch_norm has the bits of normalize with the batch's own statistics."""
    x = draw(case, np.float32)
    _, _, gamma, beta = parameters(case)
    y, m = numbabn.batch_norm(x, gamma, beta, axis=case.axis)
    assert y.tobytes() == numbabn.normalize(x, m.mean, m.var(), gamma, beta, axis=case.axis).tobytes()


def test_read_only_and_writable_have_the_same_bits() -> None:
    x = draw(LARGE[0], np.float32)
    writable = fingerprint(x, LARGE[0])
    x.flags.writeable = False
    assert fingerprint(x, LARGE[0]) == writable


@pytest.mark.parametrize("number", ["1", "5"])
def test_another_process(number: str) -> None:
    case = LARGE[6]
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import numpy as np\n"
        "from cases import LARGE, draw; from test_determinism import fingerprint\n"
        "print(fingerprint(draw(LARGE[6], np.float32), LARGE[6]))"
    )
    environment = os.environ | {"NUMBABN_NUM_THREADS": number}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == fingerprint(draw(case, np.float32), case)
