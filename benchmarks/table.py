# SPDX-License-Identifier: MIT
"""Renders results.md, and the table between the two marks of README.md, from what `make bench` measured:
results.json (loop/run.py) and results-pytest.json (pytest-benchmark)."""
import json
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "loop"))
from report import DISTURBED, markdown, number, ratio  # noqa: E402

MARKS = re.compile(r"(<!-- figures:.*?-->\n).*?(<!-- end of figures -->)", re.S)
STANDARD = ("asyncio", "standard", "hashlib", "numpy")
PEERS = ("uvloop", "rloop")

# What the README shows of loop/run.py's cases: label -> name, or names whose ratios' geometric mean is shown.
LOOP_ROWS = {
    "TCP echo, 64 B to 10 KiB, 10 and 100 connections": tuple(
        f"tcp/{size}/{conns}" for size in ("64", "1K", "10K") for conns in (10, 100)),
    "TCP echo, 64 B, one connection": ("tcp/64/1",),
    "TCP echo, 64 B, 1 000 connections": ("tcp/64/1000",),
    "TCP echo, 64 B, 10 connections beside 10 000 idle ones": ("scale/10000idle+10",),
    "TCP echo, 100 KiB, 100 connections": ("tcp/100K/100",),
    "TCP echo, instructions in user space": ("insn/proto/64",),
    "TCP echo with a BufferedProtocol, 64 B to 100 KiB": tuple(
        f"buffered/{size}/10" for size in ("64", "1K", "10K", "100K")),
    "TCP connections opened and closed": ("churn/10",),
    "64 small writes in one turn": ("write64_chunks/10",),
    "writelines() of 64": ("write64_lines/10",),
    "sock_recv and sock_sendall": ("sock/1K/10",),
    "Unix sockets": ("unix/1K/10",),
    "UDP": ("udp/1K/10",),
    "HTTP on httptools": ("http/httptools",),
    "TLS 1.3 echo, 64 B to 10 KiB, 10 and 100 connections": tuple(
        f"tls/{size}/{conns}" for size in ("64", "1K", "10K") for conns in (10, 100)),
    "TLS 1.3 echo, 100 KiB": ("tls/100K/10",),
    "TLS streams, 64 B to 10 KiB": tuple(f"tls_stream/{size}/10" for size in ("64", "1K", "10K")),
    "TLS connections with a full handshake": ("tls_churn/10",),
    "TLS connections with a resumed session": ("tls_resume/10",),
    "streams": ("stream_read/1K/10", "stream_line/64/10"),
    "memory per idle connection": ("mem/idle_conn",),
    "memory per idle TLS connection": ("mem/idle_tls_conn",),
    "call_soon, each from the one before": ("in/call_soon_chain",),
    "call_soon, 20 000 at once": ("in/call_soon_batch",),
    "call_soon_threadsafe": ("in/threadsafe_throughput",),
    "call_later, then cancel": ("in/timer_insert_cancel",),
    "timers that fire": ("in/timer_fire",),
    "sleep(0)": ("in/sleep0",),
    "create_task and await": ("in/task_create_await",),
    "Future set and awaited": ("in/future_pingpong",),
    "add_reader and remove_reader": ("in/reader_add_remove",),
    "a reader's callback": ("in/reader_callback",),
    "create_connection and abort": ("in/connect_close",),
    "getaddrinfo(\"localhost\")": ("in/getaddrinfo",),
    "run_in_executor and await": ("in/run_in_executor",),
    "/bin/true started and awaited": ("in/subprocess_exec",),
    "the same with a pipe for its output": ("in/subprocess_stdout",),
    "64 KiB through a subprocess and its pipes": ("in/subprocess_pipe",),
    "/bin/true, from a process of 1 GiB": ("in/subprocess_exec@1GiB",),
    "a loop started and stopped": ("in/loop_start_stop",),
    "a process with an import and a loop": ("in/cold_start_ms",),
}


def fair_ratio(entry, reference):
    """By CPU time where other processes were busy during every sample: it suffers less from that."""
    disturbed = any(x and x.get("other", 0) >= DISTURBED for x in (entry, reference))
    return disturbed and ratio(entry, reference, "cpu_us") or ratio(entry, reference)


def mean_ratio(results, names, reference):
    found = [x for name in names if (case := results["cases"].get(name))
             and (x := fair_ratio(case.get("pyconc"), case.get(reference)))]
    return statistics.geometric_mean(found) if found else None


def times(value):
    return f"{value:.2f}×" if value else ""


def duration(seconds):
    return f"{number(seconds * 1e3)} ms" if seconds >= 1e-4 else f"{number(seconds * 1e6)} µs"


def absolute(entry):
    if entry.get("other", 0) >= DISTURBED and "cpu_us" in entry:
        return f"{number(entry['cpu_us'])} µs of CPU"
    return f"{number(entry['value'])} {entry['unit']}"


def loop_rows(results):
    for label, names in LOOP_ROWS.items():
        first = results["cases"].get(names[0], {}).get("pyconc", {})
        if "value" in first:
            ratios = [times(mean_ratio(results, names, x)) for x in ("asyncio", *PEERS)]
            yield label, absolute(first) if len(names) == 1 else "", ratios


def pytest_groups(results):
    """title -> {implementation: seconds}"""
    groups = {}
    for entry in results["benchmarks"]:
        base, _, parameters = entry["name"].partition("[")
        way = entry["extra_info"].get("way", "").partition(",")[0]
        words = [way] if way else parameters.rstrip("]").split("-")
        name = next((w for w in words if w in (*STANDARD, *PEERS, "pyconc")), None)
        if name is None or "MiB" in entry["extra_info"]:    # what is measured is no time
            continue
        rest = ", ".join(w for w in words if w != name)
        module = Path(entry["fullname"].partition("::")[0]).stem.removeprefix("bench_")
        title = entry["group"] or f"{module}: {base.removeprefix('test_').replace('_', ' ')} {rest}".strip()
        # Of several ways of one implementation the first counts.
        groups.setdefault(title, {}).setdefault("standard" if name in STANDARD else name, entry["stats"]["median"])
    return groups


def pytest_rows(groups):
    for title, got in groups.items():
        if "pyconc" in got:
            yield title, duration(got["pyconc"]), [
                times(got[x] / got["pyconc"] if x in got else None) for x in ("standard", *PEERS)]


def lines(rows):
    yield "| | pyconc | × standard library | × uvloop | × rloop |"
    yield "|---|---|---|---|---|"
    for label, absolute, ratios in rows:
        yield f"| {label} | {absolute} | " + " | ".join(ratios) + " |"


def load(name):
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else None


def main():
    loops, benches = load("results.json"), load("results-pytest.json")
    if not loops and not benches:
        sys.exit("nothing measured yet: make bench")
    text, figures = "", ["More than 1: pyconc is better (faster, or smaller)."]
    if loops:
        text = markdown(loops, "uvloop")
        versions = ", ".join(v for v in loops["loops"].values() if " " in v and "," not in v)
        figures += ["", f"The loop, on {loops['machine']}; {versions}. Where µs of CPU are given, the machine was "
                        "shared, and CPU time is compared.", "", *lines(loop_rows(loops))]
    if benches:
        groups = pytest_groups(benches)
        text += "\n".join(["", "## pytest-benchmark: median of a round, and how many times as fast as the others", "",
                           *lines(pytest_rows(groups)), ""])
        info = benches["machine_info"]
        rest = {title: got for title, got in groups.items() if not title.startswith("loop:")}
        figures += ["", f"Threads, pools and hashing, on {info['cpu']['brand_raw']}, {info['cpu']['count']} cores, "
                        f"Python {info['python_version']}:", "", *lines(pytest_rows(rest))]
    (HERE / "results.md").write_text(text)
    readme = HERE.parent / "README.md"
    figures = "\n".join(figures)
    readme.write_text(MARKS.sub(lambda m: f"{m[1]}\n{figures}\n\n{m[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
