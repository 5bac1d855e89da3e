"""What all tests share: hypothesis profiles, lanes that open at once, and several threads on any machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import numbabn
from numbabn import lanes

_SLOW_START = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # the first example compiles
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=_SLOW_START)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def threads() -> Iterator[int]:
    """Several threads, however few cores there are."""
    with numbabn.num_threads(3):
        yield 3


class EveryShape(set[tuple[Any, ...]]):
    """Shapes that have been met: all there are, so that a single call of a test takes its lane."""

    def __contains__(self, shape: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def lanes_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_met_once", EveryShape())


# These run the systems that they record, which nothing here installs.
collect_ignore_glob = ["record_*.py"]
