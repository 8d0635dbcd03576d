"""Worker: runs the unittest modules that CONFORMANCE_WORK names and writes a journal, one line of JSON an event.

run.py starts it, again after each crash or hang: it skips what the journal already holds.
"""
import faulthandler
import fnmatch
import importlib.util
import json
import os
import re
import signal
import time
import unittest


def iter_tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from iter_tests(test)
        else:
            yield test


class Journal:
    def __init__(self, path):
        self.done = set()
        if os.path.exists(path):
            with open(path) as file:
                records = [json.loads(line) for line in file]
            self.done = {record["id"] for record in records if record["t"] == "end"}
        self.file = open(path, "a", buffering=1)
        self.pid = os.getpid()

    def put(self, **record):
        if os.getpid() == self.pid:  # not in a test's forked child
            self.file.write(json.dumps(record) + "\n")

    def end(self, test, outcome, message="", seconds=0, loops=0):
        self.put(t="end", id=test, o=outcome, m=message[-700:], d=round(seconds, 3), u=loops)


class Result(unittest.TestResult):
    def __init__(self, journal, work, log):
        super().__init__()
        self.journal, self.work, self.log = journal, work, log

    def startTest(self, test):
        super().startTest(test)
        self.outcome, self.message = "passed", ""
        self.since = time.monotonic()
        import conformance_subst
        self.loops = conformance_subst.loops_made
        self.journal.put(t="start", id=test.id())
        # One that is known to fail may hang instead: it gets less time for it.
        listed = any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in self.work["listed"])
        faulthandler.dump_traceback_later(5 if listed else self.work["timeout"], exit=True, file=self.log)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        import conformance_subst
        self.journal.end(test.id(), self.outcome, self.message, time.monotonic() - self.since,
                         conformance_subst.loops_made - self.loops)

    def bad(self, outcome, test, error):
        message = self._exc_info_to_string(error, test)
        if not isinstance(test, unittest.TestCase) and not hasattr(test, "test_case"):  # setUpClass, setUpModule
            self.journal.put(t="start", id=str(test))
            self.journal.end(str(test), "error", message)
            return
        if self.outcome != "error":
            self.outcome = outcome
        self.message += message

    def addError(self, test, err):
        super().addError(test, err)
        self.bad("error", test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.bad("failed", test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.bad("failed" if issubclass(err[0], AssertionError) else "error", test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if not hasattr(test, "_testMethodName"):
            self.journal.end(f"skip {test}", "skipped", str(reason))
        elif self.outcome == "passed":
            self.outcome, self.message = "skipped", str(reason)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.outcome, self.message = "skipped", "expected failure"

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.outcome, self.message = "failed", "unexpected success"


def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def load(name, work, journal, log):
    """The tests of a module that are wanted and not done; None when it cannot be loaded."""
    faulthandler.dump_traceback_later(work["timeout"], exit=True, file=log)
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(name)
    except unittest.SkipTest as skip:
        journal.end(name, "skipped", str(skip))
        return None
    except BaseException as error:
        journal.put(t="start", id=name)
        journal.end(name, "error", f"import: {error!r}")
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
    return unittest.TestSuite(
        test for test in iter_tests(suite)
        if (not work["only"] or any(re.search(only, test.id()) for only in work["only"]))
        and not any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in work["exclude"])
        and test.id() not in journal.done)


def run(work, journal, log):
    units = [unit for unit in work["units"] if there(unit)] or work["fallback"]
    for name in units:
        if name in journal.done:
            continue
        journal.put(t="unit", id=name)
        suite = load(name, work, journal, log)
        if suite is None:
            continue
        if suite.countTestCases():
            faulthandler.dump_traceback_later(work["timeout"], exit=True, file=log)
            try:
                suite.run(Result(journal, work, log))
            finally:
                faulthandler.cancel_dump_traceback_later()
        journal.end(name, "unit")


def main():
    # A shell starts a background job with SIGINT ignored: the tests need the default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work = json.loads(os.environ["CONFORMANCE_WORK"])
    log = open(work["log"], "a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(file=log)
    journal = Journal(work["journal"])
    import conformance_subst
    journal.put(t="meta", **conformance_subst.install())
    if "loop" in conformance_subst.WHAT and "loop" in conformance_subst.spec():
        conformance_subst.patch_test_asyncio()
    from test import support
    support.use_resources = dict.fromkeys(["walltime", "cpu", "subprocess", "largefile"])
    support.verbose = False
    run(work, journal, log)
    journal.put(t="exit", status=0)
    log.flush()
    faulthandler.dump_traceback_later(20, exit=True, file=log)  # nor may a thread left behind keep it


if __name__ == "__main__":
    main()
