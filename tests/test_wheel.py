"""The wheel, built and installed apart from the checkout: every module, every asset, the command and its version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "stores", "vital")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")

IMPORTS = """
import importlib, json, pkgutil, sys
from importlib import metadata, resources
files = {}
for package in sys.argv[1:]:
    files[package] = importlib.import_module(package).__file__
    for module in pkgutil.walk_packages([resources.files(package)], package + "."):
        files[module.name] = importlib.import_module(module.name).__file__
print(json.dumps({"files": files, "version": metadata.version("vital-atlas")}))
"""


FOUND = """
import importlib.util, json, site, sys
site.addsitedir(sys.argv[1])
sys.path.insert(0, "")
print(json.dumps([importlib.util.find_spec(package).origin for package in sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that no folder of an earlier build gets in, and nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source)]
    ran = subprocess.run(build, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    ran = subprocess.run(install, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return target


def run(installed: Path, outside: Path, *command: str) -> str:
    """What a command prints that sees the installed wheel before anything else, and does not stand in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PREFECT_HOME": str(outside / "prefect")}
    ran = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def stated_version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def test_every_module_of_the_checkout_is_in_the_wheel_and_can_be_imported(installed: Path, tmp_path: Path) -> None:
    answer = json.loads(run(installed, tmp_path, sys.executable, "-c", IMPORTS, *PACKAGES))
    written = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert written <= answer["files"].keys()
    assert all(file is None or Path(file).is_relative_to(installed) for file in answer["files"].values())
    assert answer["version"] == stated_version()


def test_everything_that_is_no_code_is_in_the_wheel(wheel: Path) -> None:
    """The demo's photographs and credits, the pages' scripts and styles, and the marks that types can be relied on."""
    beside = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert {f"{package}/py.typed" for package in PACKAGES} < beside
    assert any(name.startswith("stores/pages/assets/") for name in beside)
    with zipfile.ZipFile(wheel) as archive:
        assert beside <= set(archive.namelist())
        for name in beside:
            assert archive.read(name) == (ROOT / name).read_bytes(), name


def test_the_wheel_has_nothing_but_the_three_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {*PACKAGES, f"vital_atlas-{stated_version()}.dist-info"}


def test_the_command_of_the_wheel_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert stated_version() in run(installed, tmp_path, str(installed / "bin" / "vital"), "--version")


def test_folders_named_like_a_package_hide_nothing_of_an_editable_install(source: Path, tmp_path: Path) -> None:
    """Someone keeps stores in a folder `stores` and starts Python beside it."""
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, capture_output=True, check=True)
    [built] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "site")
    for package in PACKAGES:
        (tmp_path / "work" / package).mkdir(parents=True)
    words = [sys.executable, "-I", "-S", "-c", FOUND, str(tmp_path / "site"), *PACKAGES]
    found = subprocess.run(words, cwd=tmp_path / "work", capture_output=True, check=True)
    assert json.loads(found.stdout) == [str(source / package / "__init__.py") for package in PACKAGES]
