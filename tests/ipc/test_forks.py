"""What runs around a fork may make and drop shared objects."""
import subprocess
import sys
import textwrap


def test_objects_are_dropped_around_a_fork():
    """In hooks that were registered before pyconc's, which run in the child before it has a place of its own."""
    program = textwrap.dedent("""
        import gc, os, signal, warnings
        garbage = []

        def drop():
            garbage.clear()
            gc.collect()

        os.register_at_fork(before=drop, after_in_parent=drop, after_in_child=drop)
        from pyconc.multiprocessing.synchronize import Lock

        def refill():
            garbage.append(Lock())
            garbage.append(garbage)     # for the collector

        os.register_at_fork(before=refill)  # runs first of all
        for turn in range(20):
            kept = Lock()
            os.register_at_fork(after_in_child=refill)
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                garbage.append(kept)
                drop()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            # None of these lies where the parent's lock still is.
            others = [Lock() for _ in range(50)]
            assert kept.acquire(timeout=0)
            assert all(other.acquire(timeout=0) for other in others)
        print("good")
        """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout == "good\n", done.stderr
