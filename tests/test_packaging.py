"""The wheel holds what the repository holds, and every module has one name."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jaxmas.environments

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("environments", "algorithms", "experiments")
FOLDERS = ("jaxmas", *LINKED)
DATA_SUFFIXES = {".css", ".csv", ".html", ".js", ".json", ".msgpack", ".npz"}


def files_on_disk(root: Path) -> set[str]:
    """Return the paths that a wheel should hold: modules and package data, no results."""
    found = set()
    for folder in FOLDERS:
        # os.walk does not enter linked folders.
        for directory, subfolders, names in os.walk(root / folder):
            subfolders[:] = [name for name in subfolders if name != "__pycache__" and not name.startswith(".")]
            where = Path(directory).relative_to(root)
            if where.parts[:2] == ("experiments", "results"):
                continue
            inside = where if folder == "jaxmas" else Path("jaxmas") / where
            found |= {str(inside / name) for name in names if is_packaged(name)}
    return found


def is_packaged(name: str) -> bool:
    return name == "py.typed" or Path(name).suffix in DATA_SUFFIXES | {".py"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of what the build reads, since a build leaves files beside its sources."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy


def build(checkout: Path, *options: str) -> set[str]:
    """Build a wheel offline and return the paths in it."""
    out = checkout / "-".join(("out", *(option.strip("-") for option in options)))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options, str(checkout)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=checkout, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


# `pip install .` builds from the folder; without an option, build goes by way of the source archive.
@pytest.mark.parametrize("options", [("--wheel",), ()], ids=["from-folder", "from-source-archive"])
def test_wheel_holds_what_is_on_disk(checkout, options):
    in_wheel = build(checkout, *options)
    top_level = {name.split("/")[0] for name in in_wheel}
    (metadata,) = top_level - {"jaxmas"}
    assert metadata.endswith(".dist-info")
    assert {name for name in in_wheel if name.startswith("jaxmas/")} == files_on_disk(checkout)


def test_wheel_holds_package_data_of_every_folder(checkout, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("out-*", "build", "*.egg-info"))
    for folder in FOLDERS:
        (copy / folder / "probe").mkdir()
        (copy / folder / "probe" / "__init__.py").touch()
        (copy / folder / "data").mkdir(exist_ok=True)
        for suffix in DATA_SUFFIXES:
            (copy / folder / "probe" / f"table{suffix}").touch()
            (copy / folder / "data" / f"table{suffix}").touch()
    in_wheel = build(copy, "--wheel")
    assert {name for name in in_wheel if name.startswith("jaxmas/")} == files_on_disk(copy)


@pytest.mark.parametrize("folder", LINKED)
def test_link_is_relative_and_resolves(folder):
    link = ROOT / "jaxmas" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    assert link.resolve() == ROOT / folder
    assert (link / "__init__.py").is_file()


def test_subpackage_is_imported_from_the_repository():
    assert Path(jaxmas.environments.__file__).resolve() == ROOT / "environments" / "__init__.py"


def test_installing_claims_no_top_level_name_but_jaxmas(tmp_path):
    program = (
        "import importlib.util, sys\n"
        f"print([name for name in {(*LINKED, 'tests')} if importlib.util.find_spec(name)])\n"
        "print(importlib.util.find_spec('jaxmas.environments') is not None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert result.stdout.split("\n")[:2] == ["[]", "True"]


def test_every_file_has_one_module_name():
    names: dict[Path, list[str]] = {}
    for directory, _, files in os.walk(ROOT / "jaxmas", followlinks=True):
        for file in files:
            if file.endswith(".py"):
                path = Path(directory, file)
                names.setdefault(path.resolve(), []).append(str(path.relative_to(ROOT)))
    assert names
    assert not {path: found for path, found in names.items() if len(found) > 1}


def test_no_file_is_loaded_under_two_names():
    loaded: dict[Path, list[str]] = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        resolved = path.resolve()
        if any(resolved.is_relative_to(ROOT / folder) for folder in FOLDERS):
            loaded.setdefault(resolved, []).append(name)
    assert loaded
    assert all(len(names) == 1 and names[0].split(".")[0] == "jaxmas" for names in loaded.values()), loaded
