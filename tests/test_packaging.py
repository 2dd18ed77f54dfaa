"""Packaging: every folder is installed, the wheel holds what it needs and nothing else, and its command runs."""

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APART = {"tests", "docs", "build", "dist", "site", "runs"}
"""Folders that are no part of the package."""
DATA = [
    "gradwire/py.typed",
    "gradwire/analysis/report/page.html",
    "gradwire/analysis/report/style.css",
    "gradwire/analysis/report/sort.js",
    "gradwire/sim/cluster/presets/ethernet-1g.toml",
    "gradwire/sim/experiments/mnist.toml",
    "gradwire/sim/step/presets/devices.toml",
    "gradwire/sim/step/presets/overheads.toml",
    "gradwire/sim/step/presets/validated.toml",
    "gradwire/sim/tasks/data/LICENSES.md",
    "gradwire/sim/tasks/data/train-images-idx3-ubyte.gz",
    "gradwire/sim/tasks/data/wdbc.csv.gz",
]


def folders() -> list[Path]:
    """Return the tree's folders that hold modules, whether or not they are listed in pyproject.toml."""
    found = []
    for folder, names, files in os.walk(ROOT):
        here = Path(folder)
        names[:] = [n for n in names if not n.startswith((".", "__")) and not n.endswith(".egg-info")]
        if here == ROOT:
            names[:] = [n for n in names if n not in APART]
        names[:] = sorted(n for n in names if not (here / n / "pyvenv.cfg").exists())
        if any(file.endswith(".py") for file in files):
            found.append(here)
    return found


def name(folder: Path) -> str:
    return ".".join(["gradwire", *folder.relative_to(ROOT).parts])


@pytest.mark.parametrize("folder", folders(), ids=name)
def test_every_module_on_disk_is_installed(folder: Path) -> None:
    for path in sorted(folder.glob("*.py")):
        module = name(folder) if path.stem == "__init__" else f"{name(folder)}.{path.stem}"
        assert Path(str(importlib.import_module(module).__file__)).samefile(path), f"{module} is not this tree's"


def test_the_root_holds_no_other_module() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_nothing_is_imported_by_its_folder_alone() -> None:
    """It would be a second copy of the same module."""
    assert not {"analysis", "cli", "compressors", "sim"} & set(sys.modules)


# ---------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing that an earlier build left behind gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    for relative in tracked():
        target = copy / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / relative, target)
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def tracked() -> list[str]:
    """Return what is, or is about to be, under version control."""
    if not (ROOT / ".git").exists():
        pytest.skip("the wheel is built from what git tracks, and this is no clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [entry for entry in listed.stdout.split("\0") if entry and (ROOT / entry).is_file()]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, apart from this environment's own gradwire."""
    folder = tmp_path_factory.mktemp("installed")
    python(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel), cwd=folder
    )
    return folder


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run Python, with a folder that it imports from before all others, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    tops = {file.partition("/")[0] for file in files}
    assert tops == {"gradwire", next(top for top in tops if top.endswith(".dist-info"))}
    assert set(DATA) <= set(files)
    modules = {f"{name(folder).replace('.', '/')}/{path.name}" for folder in folders() for path in folder.glob("*.py")}
    assert {file for file in files if file.endswith(".py")} == modules
    inner = {file.split("/")[1] for file in files if file.startswith("gradwire/")}
    assert not inner & (APART | {"README.md", "CHANGES.md", "pyproject.toml"})
    assert any(file.endswith("licenses/LICENSE") for file in files)


@pytest.mark.slow
def test_the_wheels_command_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    said = python("-m", "gradwire.cli", "--version", cwd=tmp_path, path=installed)
    assert said.startswith("gradwire ")
    assert "topk(density=0.01)" in python("-m", "gradwire.cli", "ls", "schemes", cwd=tmp_path, path=installed)
    where = "import gradwire.sim.experiment as e; e.load_experiment('mnist'); print(e.__file__)"
    assert Path(python("-c", where, cwd=tmp_path, path=installed).strip()).is_relative_to(installed)
    files = "from importlib.metadata import files; print(files('gradwire')[0].locate())"
    assert Path(python("-c", files, cwd=tmp_path, path=installed).strip()).is_relative_to(installed)


# --------------------------------------------------------------------------------------------------- the README's lines


def install_lines() -> list[str]:
    """Return the README's two command lines: for users, and for those who change gradwire."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("python3 -m venv")]


def test_readme_has_one_line_to_run_and_one_to_test() -> None:
    to_run, to_test = install_lines()
    assert to_run.endswith(" && pip install . && gradwire run")
    assert to_test.endswith(" && pip install -e '.[dev]' --config-settings editable_mode=strict && pytest -n auto")
    assert all("pip install torch==" in line for line in (to_run, to_test))


def test_continuous_integration_runs_the_readmes_line() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert install_lines()[1] in script
