"""Queues, locks, timers, pools and loops used at random: nothing is lost, nothing hangs, and exits are clean."""
import pathlib
import random
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stress
PROGRAM = pathlib.Path(__file__).with_name("program.py")


def run(seconds, how):
    seed = random.randrange(1 << 32)    # another each time: what fails says which
    done = subprocess.run([sys.executable, "-X", "dev", PROGRAM, str(seed), str(seconds), how], capture_output=True,
                          text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, ""), f"program.py {seed} {seconds} {how}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("attempt", range(3))
def test_nothing_is_lost(attempt):
    assert run(4, "settle").endswith("timers\n")


@pytest.mark.xfail(strict=False, reason="about one exit in thirty under load crashes; the one dump there is shows "
                   "CPython 3.11's take_gil() with a daemon thread's freed state, and no proof of why")
@pytest.mark.parametrize("attempt", range(10))
def test_exit_in_the_middle(attempt):
    assert run(0.7, "exit") == "exits\n"
