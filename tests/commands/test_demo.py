# SPDX-License-Identifier: MIT
"""python -m pyconc demo."""
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest

pytest.importorskip("numpy", reason="the demonstration computes with numpy, which this Python has not")

from pyconc.commands.demo import report


def test_quick_demo(tmp_path):
    page = tmp_path / "demo.html"
    # Without the development mode, whose asyncio would tell of every slow callback.
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"}
    done = subprocess.run([sys.executable, "-m", "pyconc", "demo", "--quick", "--html", page], capture_output=True,
                          text=True, timeout=110, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for part in "TCP echo", "SHA-256 of", "slowest answer", "scrypt keys", "numpy means":
        assert part in re.sub(r"\s*\n│\s*", " ", done.stdout)
    text = page.read_text()
    assert "http" not in text   # nothing from elsewhere
    svg = xml.etree.ElementTree.fromstring(text[text.index("<svg"):text.index("</svg>") + 6])
    assert len(svg.findall("rect")) == text.count("<tr>") - 1 == 6


def test_a_different_result_ends_with_1(tmp_path):
    spoil = ("import hashlib, sys\n"
             "from pyconc.commands.demo import offload, serve\n"
             "serve.echo = serve.hash_files = lambda options, progress: []\n"
             "offload.hashing.scrypt_many = lambda passwords, **kwargs: [b'wrong'] * len(passwords)\n"
             "from pyconc.commands.demo import main\n"
             "main(['--quick', '--keys', '5'])\n")
    done = subprocess.run([sys.executable, "-c", spoil], capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    assert "NO" in done.stdout and "Results differ." in done.stdout


@pytest.mark.parametrize("missing", ["click", "rich", "numpy"])
def test_says_how_to_install_what_is_missing(missing):
    text = f"import sys; sys.modules[{missing!r}] = None; from pyconc.commands import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f'python -m pyconc demo needs {missing}: pip install "pyconc[demo]"\n'


def test_figures():
    faster = report.Figure("a <b>", "x/s", 10, 25, True, "way")
    slower = report.Figure("c", "ms", 10, 25, False, "way", less_is_better=True)
    assert (faster.ratio, slower.ratio) == (2.5, 0.4)
    page = report.page([faster, slower])
    assert "a &lt;b&gt;" in page and "class=wrong" in page and "2.50×" in page
