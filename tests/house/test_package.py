"""The package as people install it: a wheel, in an environment of its own, on a machine of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.system import have, system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    left_out = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "katafs", directory / "katafs", ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    built = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if built.returncode and "setuptools" in built.stderr:
        unavailable(f"no wheel can be built here: {built.stderr}")
    assert built.returncode == 0, built.stderr
    (path,) = (directory / "out").glob("*.whl")
    return path


def test_the_lower_bounds_are_what_the_tests_run_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "tests/requirements.lock").read_text()
    for needed in project["dependencies"]:
        name, version = re.split("[>=,]+", needed)[:2]
        assert f"\n{name}=={version} " in lock, needed


@pytest.mark.slow
def test_the_wheel_has_all_that_the_sources_have(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = [path for path in (ROOT / "katafs").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)) for path in sources if path.suffix != ".so"} <= names
    for page in ("man1/katafs.1", "man5/katafs.5", "man8/mount.fuse.katafs.8"):
        assert any(name.endswith(f".data/data/share/man/{page}") for name in names), page


@pytest.mark.slow
def test_from_the_package_to_a_mount(wheel: Path, fuse: None) -> None:
    """Installed, put where the system looks, a line in fstab, mounted, looked at, taken out."""
    have("man")
    with system() as machine:
        machine.done(f"unset PYTHONPATH; cp {wheel} /srv; cd /srv; {sys.executable} -m venv env")
        # what katafs needs is that of the tests; katafs itself is not
        libraries = sysconfig.get_path("purelib")
        machine.done(f"echo {libraries} > $(ls -d env/lib/python3*/site-packages)/libraries.pth")
        machine.done("env/bin/pip install -q --no-deps --no-index *.whl; env/bin/katafs install --quiet")
        machine.done("hash -r; export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        assert machine.done("readlink /usr/local/bin/katafs /sbin/mount.fuse.katafs").split() == [
            "/srv/env/bin/katafs",
            "/srv/env/bin/mount.fuse.katafs",
        ]
        machine.done("katafs demo -q /srv/katas; mkdir /mnt/katas")
        machine.done("echo '/srv/katas /mnt/katas fuse.katafs noauto,ro 0 0' >> /etc/fstab; cd /; mount /mnt/katas")
        assert "PyFzBz" in machine.done("cat /mnt/katas/Py/Fz/Bz/manifest.json")
        assert re.search("mode +fast mode, read-only, kept alive\n", machine.done("katafs status /mnt/katas"))
        # the daemon's code is that of the package
        (status,) = json.loads(machine.done("katafs status --json /mnt/katas"))
        assert f"/srv/env/lib/python{sysconfig.get_python_version()}" in machine.done(f"cat /proc/{status['pid']}/maps")
        assert machine.done("man katafs | head -1").startswith("KATAFS(1)")
        machine.done("umount /mnt/katas; katafs install --remove -q; ! test -e /sbin/mount.fuse.katafs")
        assert machine.run("mount /mnt/katas")[0] != 0
