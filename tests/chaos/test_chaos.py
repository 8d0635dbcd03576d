"""Queues, locks, timers, pools and loops used at random: nothing is lost, nothing hangs, and exits are clean."""
import pathlib
import random
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stress
PROGRAM = pathlib.Path(__file__).with_name("program.py")


def run(seconds, how, *options):
    seed = random.randrange(1 << 32)    # another each time: what fails says which
    done = subprocess.run([sys.executable, *options, PROGRAM, str(seed), str(seconds), how], capture_output=True,
                          text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, ""), f"program.py {seed} {seconds} {how}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("attempt", range(3))
def test_nothing_is_lost(attempt, times):
    assert run(times(20) / 5, "settle", "-X", "dev").endswith("timers\n")


# Without -X dev, whose allocator overwrites what is freed: CPython's take_gil() reads the thread's state after it has
# asked whether the interpreter ends, so that a daemon thread which loses the CPU between the two reads freed memory.
# Any program with a daemon thread in os.stat() can crash there; as it was freed, the state still leads to the exit.
@pytest.mark.parametrize("attempt", range(10))
def test_exit_in_the_middle(attempt):
    assert run(0.7, "exit", "-X", "faulthandler") == "exits\n"
