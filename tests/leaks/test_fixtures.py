"""The fixtures that count leaks see one: a check that cannot fail proves nothing."""
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

LEAKY = """
import os, threading
import conftest

conftest.SETTLES = 0.5      # what leaks here stays
kept = []

def test_fd(no_leaked_fds):
    kept.append(os.dup(0))

def test_thread(no_leaked_threads):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_leaks_are_seen(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path], text=True,
                          cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert "2 passed, 2 errors" in done.stdout
    assert "left open: " in done.stdout
    assert "left running: " in done.stdout


def test_no_leak_is_fine(no_leaked_fds, no_leaked_threads):
    os.close(os.dup(0))
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def test_objects(no_leaked_objects):
    kept = []
    with pytest.raises(AssertionError, match="blocks left"):
        no_leaked_objects(lambda: kept.append(object()))
    no_leaked_objects(object)


def test_memory(flat_memory):
    kept = []
    with pytest.raises(AssertionError, match="grew by"):
        flat_memory(lambda: kept.append(bytearray(b"x") * 100_000), 300)
    flat_memory(lambda: bytearray(b"x") * 100_000, 300)
