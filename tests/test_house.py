"""The house keeps its promises: floors, laziness, one door, one place for numba options, the wheel."""

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import numbabn

ROOT = Path(__file__).parents[1]
PACKAGE = Path(numbabn.__file__).parent
IN_TREE = PACKAGE == ROOT / "numbabn"

# Each room may import from floors strictly below its own, or from its own floor where marked.
FLOORS = [
    {"cli"},
    {"report", "pipeline", "warm", "contrib"},
    {"batchnorm"},
    {"ondevice", "learning"},
    {"statedict", "training", "described", "convert"},
    {"functional", "backward"},
    {"lanes"},
    {"options"},
    {"renorm", "ghost"},
    {"averages", "schedules", "flavours", "verbs"},
    {"statistics", "state", "picks", "activations"},
    {"backends"},
    {"layout", "checks", "arithmetic"},
    {"geometry"},
    {"arrays", "data"},
    {"devices"},
]


def floor_of(room: str) -> int:
    return next(k for k, rooms in enumerate(FLOORS) if room in rooms)


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "kernels"):
            found.setdefault(parts[0], []).append(file)
    return found


def imported(file: Path) -> set[str]:
    """Rooms of numbabn that a file imports, wherever in the file."""
    package = ("numbabn", *file.relative_to(PACKAGE).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("numbabn.")}


def test_every_room_has_a_floor():
    assert set(rooms()) == set().union(*FLOORS)


def test_imports_only_go_down():
    for room, files in rooms().items():
        for file in files:
            for other in imported(file) & set(rooms()) - {room}:
                assert floor_of(other) > floor_of(room), (
                    f"{file.relative_to(PACKAGE)} imports {other}, which is not below it"
                )


def test_only_the_backends_name_the_kernels():
    for room, files in rooms().items():
        for file in files:
            if room != "backends":
                assert "numbabn.kernels" not in file.read_text() or room == "cli", file
                assert "kernels" not in imported(file), file


@pytest.mark.skipif(not IN_TREE, reason="reads the source tree")
def test_the_kernels_import_nothing_from_above_and_numba_options_have_one_place():
    for file in (ROOT / "kernels").glob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1 or not (node.module or "").startswith("numbabn"), file
            if isinstance(node, ast.Name) and node.id in {"njit", "jit", "vectorize", "guvectorize"}:
                assert file.name == "jit.py", file


@pytest.mark.skipif(not IN_TREE, reason="reads the source tree")
def test_files_stay_short():
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "kernels").glob("*.py")]:
        code = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.stmt)]
        assert len(code) < 250, f"{file.name} has {len(code)} statements"


def run_python(code: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def test_import_loads_no_numba():
    result = run_python(
        "import sys, numbabn; print(numbabn.BatchNorm(3), numbabn.Moments(1, [0.0], [0.0]), numbabn.config());"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('numba', 'llvmlite', 'torch', 'click', 'rich')))"
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_rooms_are_reached_as_attributes():
    result = run_python(
        "import numbabn as n; print(n.averages.start, n.state.load, n.functional.moments, n.backends, n.contrib)"
    )
    assert result.returncode == 0, result.stderr


def test_public_names_exist_are_documented_and_carry_an_example():
    assert sorted(numbabn.__all__) == numbabn.__all__
    for name in numbabn.__all__:
        thing = getattr(numbabn, name)
        assert thing.__doc__, name
        assert name in dir(numbabn)
        if not (isinstance(thing, type) and issubclass(thing, Exception)) and name != "show_config":
            assert ">>>" in thing.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        numbabn.nothing  # noqa: B018


@pytest.mark.skipif(not IN_TREE, reason="needs the source tree")
def test_the_kernels_refuse_another_name():
    result = run_python("import kernels", cwd=ROOT)
    assert "import that name instead" in result.stderr


def test_the_kernel_cache_notices_edits_in_any_kernel_file(tmp_path):
    code = "import sys, numpy as np, numbabn; numbabn.moments(np.ones((4, 3))); print(int('numba' not in sys.modules))"
    copy = tmp_path / "numbabn"
    subprocess.run(["cp", "-r", str(PACKAGE), str(copy)], check=True)
    if IN_TREE:
        subprocess.run(["cp", "-r", str(ROOT / "kernels"), str(copy / "kernels")], check=True)
    environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONSAFEPATH": "1"}
    hits = lambda: run_python(code, cwd=tmp_path, **environment).stdout.strip()  # noqa: E731
    assert hits() == "0"
    assert hits() == "1"
    with (copy / "kernels" / "welford.py").open("a") as file:
        file.write("\n# edited\n")
    assert hits() == "0"
    assert hits() == "1"
    for broken in (tmp_path / "cache").rglob("*.o"):
        broken.write_bytes(broken.read_bytes()[:-1])
    assert hits() == "0"
    assert hits() == "1"


def test_kept_code_is_whole_or_not_there(tmp_path, monkeypatch):
    from numbabn.kernels import kept

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert kept.read("kernel.o") is None
    kept.write("kernel.o", b"\x7fELF\n code")
    (file,) = tmp_path.rglob("*.o")
    assert kept.read("kernel.o") == b"\x7fELF\n code"
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[1:], b"", b"nothing"):
        file.write_bytes(broken)
        assert kept.read("kernel.o") is None
    monkeypatch.setenv("NUMBABN_CACHE", "0")
    kept.write("other.o", b"code")
    assert [*tmp_path.rglob("*.o*")] == [file]


def test_code_is_read_from_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    from numbabn.kernels import kept

    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(kept, "folders", lambda: [first, second])
    kept.write("a.o", b"made when the image was built")
    monkeypatch.setattr(kept, "folders", lambda: [first / "a.o" / "no folder", first, second])
    kept.write("b.o", b"made later")
    assert kept.read("a.o") == b"made when the image was built"
    assert kept.read("b.o") == b"made later"


def test_an_unwritable_cache_is_no_error(tmp_path):
    file = tmp_path / "a file, no folder"
    file.write_text("")
    code = "import numpy as np, numbabn; print(numbabn.moments(np.ones((4, 3))).count)"
    for cache in (str(file), "/proc/nowhere"):
        result = run_python(code, NUMBA_CACHE_DIR=cache)
        assert result.stdout.strip() == "4.0", result.stderr
    assert run_python(code, NUMBABN_CACHE="0").stdout.strip() == "4.0"


@pytest.mark.skipif(not IN_TREE, reason="builds from the source tree")
def test_the_wheel_holds_everything_and_works_outside_the_tree(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    for changed in ("numbabn", "kernels", "pyproject.toml", "MANIFEST.in"):  # the tree as it is now
        subprocess.run(["rm", "-rf", str(source / changed)], check=True)
        subprocess.run(["cp", "-r", str(ROOT / changed), str(source / changed)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = {f"numbabn/{f.relative_to(PACKAGE)}" for f in PACKAGE.rglob("*.py")}
    wanted |= {f"numbabn/kernels/{f.name}" for f in (ROOT / "kernels").glob("*.py")} | {"numbabn/py.typed"}
    assert wanted <= inside
    assert not any(name.startswith("kernels/") for name in inside)

    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    # The editable install of this checkout must not be what is found. Every module is imported, some examples run.
    check = (
        f"import numbabn, pkgutil, importlib; assert numbabn.__file__.startswith({str(target)!r}), numbabn.__file__;"
        "names = [m.name for m in pkgutil.walk_packages(numbabn.__path__, 'numbabn.') if '__main__' not in m.name];"
        "[importlib.import_module(name) for name in names]; assert 'numbabn.kernels.cpu_rows' in names;"
        "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-W', 'error',"
        "'--doctest-modules', '--pyargs', 'numbabn.functional', 'numbabn.statistics']))"
    )
    result = run_python(
        check,
        cwd=tmp_path,
        PYTHONPATH=str(target),
        PYTHONSAFEPATH="1",
        NUMBA_CACHE_DIR=str(tmp_path / "cache"),
        COVERAGE_PROCESS_START="",
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout


def test_the_installed_script_is_there():
    assert (Path(sysconfig.get_path("scripts")) / "numbabn").exists()
