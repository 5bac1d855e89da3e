"""The examples run, each as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if "```python\n" in page.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_runs(path):
    result = subprocess.run([sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.count("\n") >= 2


def test_the_readme_runs(tmp_path):
    readme = (ROOT / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "bn.npz").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_pages_run(page, tmp_path, monkeypatch):
    """All code of a page in order, as one program, with warnings as errors."""
    monkeypatch.chdir(tmp_path)
    blocks = page.read_text().split("```python\n")[1:]
    exec("\n".join(block.split("```")[0] for block in blocks), {"__name__": page.stem})
