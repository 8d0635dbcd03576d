"""What a worker process does, in this one."""
import sys

import pytest

from pyconc.workers.worker import Worker


class Channel:
    """What a Worker answers to."""

    def __init__(self):
        self.answers = []

    def load(self, job):
        return job[1:]

    def interrupted(self, number):
        return 0

    def reply(self, task, value):
        self.answers.append(("value", value))

    def fail(self, task, raised):
        self.answers.append(("error", raised.text.splitlines()[-1]))


@pytest.mark.parametrize("line", range(1, 8))
@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupt_that_comes_when_the_call_has_ended(fails, line):
    """At any line of what comes then: it meets nobody."""
    channel, lines = Channel(), []
    worker = Worker(channel, 0)

    def trace(frame, event, argument):
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == line:
                worker.interrupt(2, frame)
        return trace

    def job():
        caller = sys._getframe(1)
        caller.f_trace = caller.f_back.f_trace = trace
        sys.settrace(lambda *event: None)
        if fails:
            raise LookupError("of the job")
        return 42

    worker._functions["job"] = job
    try:
        worker._answer((1, "job", (), {}))
    finally:
        sys.settrace(None)
    assert channel.answers == [("error", "LookupError: of the job") if fails else ("value", 42)]
    assert lines and not worker.busy


def test_an_interrupt_while_the_call_runs():
    channel = Channel()
    worker = Worker(channel, 0)
    worker._functions["job"] = lambda: worker.interrupt(2, None)
    worker._answer((1, "job", (), {}))
    assert channel.answers == [("error", "KeyboardInterrupt")]
