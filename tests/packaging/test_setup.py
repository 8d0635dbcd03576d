"""setup.py says what to install when something that it builds on is missing."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = ("apt-get install build-essential pkg-config python3-dev libuv1-dev libssl-dev", "dnf install", "brew install")


def setup_py(**env):
    """The exit status of setup.py and what it says, with nothing in the environment but `env`."""
    done = subprocess.run([sys.executable, "setup.py", "--name"], cwd=ROOT, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.returncode, done.stdout


def pkg_config_folder(folder, **versions):
    """A folder for PKG_CONFIG_LIBDIR in which each library named has the version given."""
    for library, version in versions.items():
        (folder / f"{library}.pc").write_text(f"Name: {library}\nDescription: test\nVersion: {version}\nLibs:\n")
    return str(folder)


@pytest.fixture
def path(tmp_path):
    """A PATH with pkg-config and nothing else."""
    found = shutil.which("pkg-config")
    assert found, "pyconc was built here, so pkg-config is here"
    folder = tmp_path / "bin"
    folder.mkdir()
    os.symlink(found, folder / "pkg-config")
    return str(folder)


def test_all_there(tmp_path, path):
    libraries = pkg_config_folder(tmp_path, libuv="1.44.0", libcrypto="3.0.0")
    status, output = setup_py(PATH=path, PKG_CONFIG_LIBDIR=libraries)
    assert (status, output.splitlines()[-1]) == (0, "pyconc")


def test_no_pkg_config(tmp_path):
    status, output = setup_py(PATH=str(tmp_path))
    assert status == 1
    assert "pkg-config is missing" in output
    assert all(line in output for line in LINES)


@pytest.mark.parametrize("present, wanted", [
    ({}, "pyconc needs libuv 1.44"),
    ({"libcrypto": "3.0.0"}, "pyconc needs libuv 1.44"),
    ({"libuv": "1.43.9", "libcrypto": "3.0.0"}, "pyconc needs libuv 1.44"),
    ({"libuv": "1.53.0"}, "pyconc needs libcrypto 3.0"),
    ({"libuv": "1.44.2", "libcrypto": "1.1.1"}, "pyconc needs libcrypto 3.0"),
])
def test_library_missing_or_old(tmp_path, path, present, wanted):
    status, output = setup_py(PATH=path, PKG_CONFIG_LIBDIR=pkg_config_folder(tmp_path, **present))
    assert status == 1
    assert wanted in output
    assert all(line in output for line in LINES)
