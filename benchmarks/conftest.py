# SPDX-License-Identifier: MIT
"""What a benchmark has beside it."""
import threading

import pytest


@pytest.fixture
def busy_thread():
    """A thread of the same process that runs Python code all the while."""
    stop = False

    def run():
        while not stop:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    yield
    stop = True
    thread.join()
