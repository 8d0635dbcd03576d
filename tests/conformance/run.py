#!/usr/bin/env python3
"""CPython's own tests on pyconc, beside the same tests on the standard library: prints what passes only there.

  run.py AREA...            asyncio, futures, threading, multiprocessing, or one suite of suites.py
  run.py AREA --only REGEX  the tests whose full name matches
"""
import argparse
import concurrent.futures
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from suites import AREAS, SUITES  # noqa: E402

CACHE = HERE.parents[1] / ".cache" / "conformance"
NOT_OFFERED = 3
BAD = ("failed", "error", "hang", "crash")


def interpreter_name(python):
    return subprocess.run(
        [python, "-c", "import sys, sysconfig; print(sys.version.split()[0] + "
                       "'t' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"],
        check=True, text=True, capture_output=True).stdout.strip()


class Journal:
    """What the workers of one run wrote: {test: record}, the test open at the end, the last unit, the exit status."""

    def __init__(self, path):
        self.ends, self.open, self.unit, self.exited, self.meta = {}, None, None, None, {}
        lines = path.read_text().splitlines() if path.exists() else []
        for record in map(json.loads, lines):
            kind = record.pop("t")
            if kind == "start":
                self.open = record["id"]
            elif kind == "end":
                self.ends[record["id"]] = record
                if self.open == record["id"]:
                    self.open = None
            elif kind == "unit":
                self.unit = record["id"]
            elif kind == "meta":
                self.meta, self.exited = record, None
            elif kind == "exit":
                self.exited = record["status"]


def give_up(journal, test, outcome, message):
    """Journals a test that took its worker with it."""
    with open(journal, "a") as file:
        file.write(json.dumps({"t": "end", "id": test, "o": outcome, "m": message, "d": 0, "u": 0}) + "\n")


def run_chunk(command, env, cwd, journal, timeout):
    """One worker process. True when it had to be killed because its journal stood still."""
    with open(env["CONFORMANCE_LOG"], "a") as log:
        worker = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT, start_new_session=True)
    size, since = -1, time.monotonic()
    try:
        while True:
            try:
                worker.wait(1)
                return False
            except subprocess.TimeoutExpired:
                now = journal.stat().st_size if journal.exists() else 0
                if now != size:
                    size, since = now, time.monotonic()
                elif time.monotonic() - since > timeout + 30:
                    return True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def run_workers(suite, command, env, work, folder):
    """Workers one after the other until every test of the suite has an end."""
    journal, log = Path(work["journal"]), Path(work["log"])
    dead = set()
    while True:
        before = len(Journal(journal).ends)
        start = log.stat().st_size if log.exists() else 0
        chunk = {**work, "units": [unit for unit in work["units"] if unit not in dead],
                 "fallback": [] if dead else work["fallback"]}
        hung = run_chunk(command, {**env, "CONFORMANCE_WORK": json.dumps(chunk)}, folder, journal, suite["timeout"])
        now = Journal(journal)
        if now.exited is not None and now.open is None:
            return now
        tail = log.read_text(errors="replace")[start:]
        outcome = "hang" if hung or "Timeout (" in tail else "crash"
        tail = tail[max(0, tail.rfind("most recent call first") - 120):][:600]
        if now.open is not None:
            give_up(journal, now.open, outcome, tail)
        elif len(now.ends) > before:
            give_up(journal, f"(between tests) {now.unit} #{len(now.ends)}", outcome, tail)
        else:
            give_up(journal, f"(rest of) {now.unit}", outcome, tail)
            if now.unit is None or now.unit in dead:
                return Journal(journal)
            dead.add(now.unit)


def environment(suite, impl, log):
    """That of a worker: `impl` in the place of what the suite tests."""
    table = json.loads((HERE / "impls.json").read_text())
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("PYTEST", "PYTHON")) or key == "PYTHONMALLOC"}
    return {**kept, **table[impl].get("env", {}), "CONFORMANCE_IMPL": impl, "CONFORMANCE_PATCH": suite["patch"],
            "CONFORMANCE_WORKER": "1", "CONFORMANCE_LOG": log, "PYTHONPATH": str(HERE / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1"}


def offered(suite_name, impl, python):
    """Whether the implementation has anything that the suite tests."""
    suite = SUITES[suite_name]
    probe = ("import sys, conformance_subst as c; done = c.install(); "
             f"sys.exit({NOT_OFFERED} if 'modules' in c.WHAT and c.spec() and not done.get('modules') else 0)")
    probed = subprocess.run([python, "-c", probe], env=environment(suite, impl, ""), cwd=tempfile.gettempdir(),
                            capture_output=True, text=True, timeout=60)
    if probed.returncode not in (0, NOT_OFFERED):
        sys.exit(f"{impl} does not start: {probed.stderr.strip()[-2000:]}")
    if probed.returncode:
        print(f"{suite_name} {impl}: not offered")
    return probed.returncode == 0


def exceptions(suite):
    """The test patterns of the suite's table in conformance.md."""
    text = (HERE.parent / "conformance.md").read_text()
    section = re.search(rf"^## (?:[\w-]+, )*{re.escape(suite)}(?:, [\w-]+)*\n(.*?)(?=^## |\Z)", text,
                        re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `([^`]+)` \|", section[1], re.MULTILINE) if section else []


def run(suite_name, impl, python, only=(), patience=1):
    """{test: record} of one suite on one implementation; a test hangs after `patience` times the suite's timeout."""
    suite = {**SUITES[suite_name], "timeout": SUITES[suite_name]["timeout"] * patience}
    with tempfile.TemporaryDirectory(prefix="conformance-") as temporary:
        folder = Path(temporary) / "cwd"
        folder.mkdir()
        env = environment(suite, impl, f"{temporary}/log")
        work = {"journal": f"{temporary}/journal", "log": f"{temporary}/log", "units": suite["units"],
                "fallback": suite.get("fallback", []), "exclude": suite.get("exclude", []),
                "timeout": suite["timeout"], "listed": [] if impl == "stdlib" else exceptions(suite_name),
                "only": list(only)}
        start = time.monotonic()
        journal = run_workers(suite, [python, "-m", "conformance_worker"], env, work, folder)
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(work["log"], CACHE / f"{suite_name}.{impl}.log")
    tests = {name: record for name, record in sorted(journal.ends.items()) if record["o"] != "unit"}
    count = {outcome: sum(record["o"] == outcome for record in tests.values())
             for outcome in ("passed", "skipped", *BAD)}
    made = sum(record["u"] > 0 for record in tests.values())
    print(f"{suite_name} {impl}: {', '.join(f'{n} {outcome}' for outcome, n in count.items() if n)}; "
          f"loop {journal.meta.get('loop')} (made by {made} tests), modules {journal.meta.get('modules')}; "
          f"{time.monotonic() - start:.0f} s", flush=True)
    return tests


def baseline(suite, python, only):
    """The same of the standard library, from the last run when this interpreter and these tests have not changed."""
    path = CACHE / f"{suite}.stdlib.{interpreter_name(python)}.json"
    newest = max(file.stat().st_mtime for file in [*HERE.glob("*.py"), *HERE.glob("lib/*.py")])
    if not only and path.exists() and path.stat().st_mtime > newest:
        return json.loads(path.read_text())
    tests = run(suite, "stdlib", python, only)
    if not only:
        # In one step: another run may be reading it.
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(tests))
        unfinished.replace(path)
    return tests


def compare(suite, mine, base):
    """Prints what passes in `base` and not in `mine`; the names of those that no exception covers."""
    lost = {name: mine.get(name, {"o": "absent", "m": ""}) for name, record in base.items()
            if record["o"] == "passed" and mine.get(name, {"o": "absent"})["o"] != "passed"}
    listed = [name for name in lost if any(fnmatch.fnmatchcase(name, pattern) for pattern in exceptions(suite))]
    for name, record in lost.items():
        lines = record["m"].strip().splitlines() or [""]
        print(f"{record['o']:8}{name}   {lines[0 if record['o'] in ('hang', 'crash') else -1][:140]}"
              + "   (listed)" * (name in listed))
    print(f"{suite}: {len(lost) - len(listed)} lost, {len(listed)} more for a reason listed in conformance.md",
          flush=True)
    return [name for name in lost if name not in listed]


def survives(suite, impl, python, only=()):
    """True when no test of the suite crashes or hangs with `impl`, but those that conformance.md lists."""
    tests = run(suite, impl, python, only, patience=3)
    gone = {name: record for name, record in tests.items() if record["o"] in ("crash", "hang")
            and not any(fnmatch.fnmatchcase(name, pattern) for pattern in exceptions(suite))}
    for name, record in gone.items():
        print(f"{record['o']:8}{name}   {record['m']}")
    return not gone


def check(suite, impl, python, only=()):
    """True when every test of the suite that passes with the standard library passes with `impl`."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        base = pool.submit(baseline, suite, python, only)
        mine = pool.submit(run, suite, impl, python, only).result()
        base = base.result()
    if not any(record["o"] == "passed" for record in base.values()):
        print(f"{suite}: no test that passes with the standard library: this Python comes without them, "
              "or --only matches none")
        return False
    lost = compare(suite, mine, base)
    if lost and len(lost) <= 20:  # a machine under load loses tests that look at the clock
        print("a second try of these alone:")
        second = run(suite, impl, python, [f"^{re.escape(name)}$" for name in lost])
        lost = compare(suite, second, {name: base[name] for name in lost})
    return not lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="+", choices=sorted({*AREAS, *SUITES}), metavar="AREA")
    parser.add_argument("--impl", default="pyconc", help="a name in impls.json (pyconc)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter (this one)")
    parser.add_argument("--only", action="append", default=[], metavar="REGEX", help="tests whose name matches")
    parser.add_argument("--alone", action="store_true",
                        help="without the standard library beside it: that none crashes or hangs")
    options = parser.parse_args()
    # Not resolved: the link of a virtual environment is what makes it one.
    python = os.path.abspath(options.python)
    suites = dict.fromkeys(suite for area in options.areas for suite in AREAS.get(area, [area]))
    suites = [suite for suite in suites if offered(suite, options.impl, python)]
    holds = survives if options.alone else check
    lost = [suite for suite in suites if not holds(suite, options.impl, python, options.only)]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
