"""`simulated_state.py`, `simulated_streamed.py` and `simulated_order.py`, each in a process with a simulated GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import numbabn


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs pip install 'numbabn[cuda]'")
@pytest.mark.parametrize("what", ["state", "streamed", "order"])
def test_on_a_simulated_device(what: str) -> None:
    script = Path(__file__).with_name(f"simulated_{what}.py")
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-cov", "-p", "no:cacheprovider", str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_a_device_a_batchnorm_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    from numbabn.devices import probe

    monkeypatch.setattr(probe, "_found", lambda: ((), "there is none"))
    with pytest.raises(numbabn.BackendUnavailableError, match="cannot move to cuda:0: there is none"):
        numbabn.BatchNorm(3).to("cuda")
