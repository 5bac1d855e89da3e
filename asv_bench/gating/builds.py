"""A commit of this repository as an installed package, in a folder that is kept for the next time."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "asv_bench" / ".asv" / "gate"


@dataclass(frozen=True)
class Build:
    """`site` holds the package of a commit, `cache` its compiled kernels."""

    commit: str
    folder: Path

    @property
    def site(self):
        return self.folder / "site"

    @property
    def cache(self):
        return self.folder / "cache"


def commit_of(name):
    """The full name of a commit; ValueError if git knows none of this name."""
    command = ["git", "-C", os.fspath(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git knows no commit {name!r}; give a commit, a branch or a tag")
    return done.stdout.strip()


def built(commit, kept=KEPT):
    """The build of a commit, made where it is not there yet."""
    build = Build(commit, Path(kept) / commit[:16])
    if build.site.exists():
        return build
    build.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build.folder) as work:
        source, site = Path(work) / "source", Path(work) / "site"
        # An archive, not a worktree: it leaves nothing behind in the repository, whatever happens.
        packed = subprocess.run(["git", "-C", os.fspath(ROOT), "archive", commit], stdout=subprocess.PIPE, check=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(source, filter="data")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
        command = [*pip, "--no-build-isolation", "--target", os.fspath(site), os.fspath(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"commit {commit[:12]} does not install:\n{done.stdout}{done.stderr}")
        shutil.move(site, build.site)
    return build
