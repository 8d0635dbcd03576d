# SPDX-License-Identifier: MIT
"""Event loops side by side.

    python run.py --loops asyncio,uvloop,rloop,pyconc [--cases GLOB,GLOB] [--quick]
                  [--rounds N] [--secs S] [--out BASE] [--python PY] [--list]

For each case the loops run in rotation, one at a time, for some rounds; the median is reported, with the ratio to
--ref (default uvloop; above 1 is better). Servers are pinned to core 0, the load client in C (load.c) or wrk to core 1.
The limit lines c-epoll and c-uv (epoll_echo.c, libuv_echo.c) join the plain TCP, Unix and UDP cases, aiofastnet on
uvloop those with TLS (unless --loops is given). Writes BASE.json and BASE.md; a BASE.json that is there already is
updated, case by case. Needs gcc, the headers of libuv and OpenSSL, openssl; wrk for http/*; valgrind for insn/*;
strace for maps/*.

A sample during which other processes used more than a fifth of a core is taken again (up to 3 times) and left out of
the median if a clean one exists; `other` in the JSON says what was seen.
"""
import argparse
import contextlib
import ctypes
import fnmatch
import json
import os
import pathlib
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import report

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(tempfile.gettempdir()) / f"pyconc-bench-{os.getuid()}"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
LOOPS = ("asyncio", "uvloop", "rloop", "pyconc")
TLS_PEERS = ("aiofastnet+uvloop",)
C_SERVERS = {"c-epoll": "epoll_echo", "c-uv": "libuv_echo"}
C_PROGRAMS = {"load": "-lssl -lcrypto", "epoll_echo": "", "libuv_echo": "-luv"}
SIZES = {"64": 64, "1K": 1024, "10K": 10240, "100K": 102400}
IDLE_CONNECTIONS, IDLE_TLS_CONNECTIONS = 5000, 1000


# ---- the cases ---------------------------------------------------------------------------------

def echo(size, conns, *more):
    return ["echo", "--size", SIZES[size], "--conns", conns, *more]


def tcp_cases():
    for size in SIZES:
        for conns in (1, 10, 100, 1000):
            quick = size != "100K" and conns in (10, 100) or (size, conns) in {("64", 1), ("64", 1000), ("100K", 100)}
            yield f"tcp/{size}/{conns}", "proto", echo(size, conns), {"c": True, "quick": quick}
    # A new process that has closed no connection yet: large blocks are mapped and unmapped until one was freed.
    yield "tcp_fresh/1K/10", "proto", echo("1K", 10), {"c": True, "fresh": True, "quick": True}
    for size in SIZES:
        yield f"buffered/{size}/10", "buffered", echo(size, 10), {"quick": True}
    for mode in ("chunks", "lines"):  # 64 writes of 64 B, or one writelines(), for each 64 B read
        yield f"write64_{mode}/10", mode, ["echo", "--size", 64, "--resp", 4096, "--conns", 10], {"quick": True}
    yield "churn/10", "proto", ["churn", "--conns", 10], {"c": True, "quick": True}
    for idle in (0, 1000, 10000):
        load = echo("64", 10, "--idle", idle)
        yield f"scale/{idle}idle+10", "proto", load, {"c": True, "quick": idle == 10000}
    for size in ("64", "1K", "10K", "100K"):
        yield f"sock/{size}/10", "sock", echo(size, 10), {"quick": size == "1K"}


def stream_cases():
    for size in ("64", "1K", "10K"):
        yield f"stream_read/{size}/10", "stream", echo(size, 10), {"quick": size == "1K"}
        yield f"stream_exact/{size}/10", "exact", echo(size, 10), {"arg": str(SIZES[size])}
        yield f"stream_line/{size}/10", "line", echo(size, 10), {"quick": size == "64"}
    load = ["echo", "--size", 1024, "--line", 64, "--conns", 10]
    yield "stream_line/16x64/10", "line", load, {"quick": True}


def tls_cases():
    for size in SIZES:
        for conns in (1, 10, 100):
            more = {"arg": "CERT", "tls": True, "quick": conns > 1 and (size, conns) != ("100K", 100)}
            yield f"tls/{size}/{conns}", "tls", echo(size, conns, "--tls"), more
    for size in ("64", "1K", "10K"):
        for conns in (10, 100):
            more = {"arg": "CERT", "tls": True, "quick": conns == 10}
            yield f"tls_stream/{size}/{conns}", "tls_stream", echo(size, conns, "--tls"), more
    # Connections with a handshake and one message: full ones, then from the newest ticket.
    more = {"arg": "CERT", "tls": True, "quick": True}
    yield "tls_churn/10", "tls", ["churn", "--conns", 10, "--tls"], more
    yield "tls_resume/10", "tls", ["churn", "--conns", 10, "--tls", "--resume"], more


def other_socket_cases():
    for size, conns in (("64", 1), ("64", 10), ("1K", 10), ("10K", 10), ("100K", 10)):
        load = ["unix", "--size", SIZES[size], "--conns", conns]
        yield f"unix/{size}/{conns}", "unix", load, {"arg": "PATH", "c": True, "quick": (size, conns) == ("1K", 10)}
    for size, conns in (("64", 1), ("64", 10), ("1K", 10), ("1K", 100)):
        load = ["udp", "--size", SIZES[size], "--conns", conns]
        yield f"udp/{size}/{conns}", "udp", load, {"c": True, "quick": (size, conns) == ("1K", 10)}


def other_cases():
    yield "http/httptools", "httptools", None, {"quick": True, "kind": "wrk"}
    for mode, load, arg in (("proto", echo("64", 10), None), ("tls", echo("64", 10, "--tls"), "CERT"),
                            ("tls_stream", echo("64", 10, "--tls"), "CERT"), ("stream", echo("64", 10), None),
                            ("line", echo("64", 10), None), ("sock", echo("64", 10), None),
                            ("udp", ["udp", "--size", 64, "--conns", 10], None)):
        c = mode in ("proto", "udp")
        yield f"insn/{mode}/64", mode, load, {"arg": arg, "kind": "insn", "c": c, "quick": mode == "proto"}
    yield "mem/empty_loop", "empty", None, {"quick": True, "kind": "mem"}
    yield "mem/idle_conn", "proto", None, {"quick": True, "kind": "mem", "c": True}
    yield "mem/idle_tls_conn", "tls", None, {"arg": "CERT", "tls": True, "quick": True, "kind": "mem"}
    for mode, arg, tls in (("proto", None, []), ("tls", "CERT", ["--tls"]), ("tls_stream", "CERT", ["--tls"])):
        more = {"arg": arg, "tls": bool(tls), "kind": "maps", "quick": True}
        yield f"maps/{mode}/1K", mode, echo("1K", 10, *tls), more
    in_process = re.findall(r"^async def (\w+)\(loop", (HERE / "micro.py").read_text(), re.M)
    large = [f"{name}@1GiB" for name in in_process if name.startswith("subprocess_")]
    for mode in (*in_process, *large, "loop_start_stop", "cold_start_ms"):
        yield f"in/{mode}", mode, None, {"quick": mode not in large[1:], "kind": "micro"}


def build_cases():
    """name -> dict(mode=of the server, load=arguments of load, arg=, kind=, c=limit lines too, tls=, quick=, fresh=)"""
    default = {"arg": None, "kind": "load", "c": False, "tls": False, "quick": False, "fresh": False}
    return {name: default | {"mode": mode, "load": load} | more
            for cases in (tcp_cases, stream_cases, tls_cases, other_socket_cases, other_cases)
            for name, mode, load, more in cases()}


# ---- processes ---------------------------------------------------------------------------------

def pinned(cores):
    def before_exec():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, cores)
    return before_exec


def build():
    BUILD.mkdir(exist_ok=True)
    for name, libraries in C_PROGRAMS.items():
        program, source = BUILD / name, HERE / (name + ".c")
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["gcc", "-O2", "-o", program, source, *libraries.split()], check=True)
    pem = BUILD / "cert.pem"
    if not pem.exists():
        key, certificate = BUILD / "key.pem", BUILD / "crt.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "3650", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
                       check=True, stderr=subprocess.DEVNULL)
        pem.write_text(certificate.read_text() + key.read_text())


def command(args, loop):
    """NAME or NAME@interpreter -> (words that start the interpreter, NAME)"""
    name, _, python = loop.partition("@")
    return shlex.split(python or args.python), name


class Server:
    def __init__(self, args, case, loop):
        words = self.words(args, case, loop)
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        preexec_fn=pinned({0}), cwd=HERE)
        self.pid = self.process.pid
        line = self.process.stdout.readline().split()
        if not line:
            self.stop()
            self.errors.seek(0)
            raise RuntimeError("".join(self.errors.read().strip().splitlines()[-1:]) or "no output")
        self.address = line[1]
        if case["kind"] == "load" and not case["fresh"]:  # a first generation of connections comes and goes
            mode, *rest = case["load"]
            client([BUILD / "load", mode, self.address, *rest, "--idle", 0, "--secs", 0.1, "--warm", 0], 60)

    @staticmethod
    def words(args, case, loop):
        arg = case["arg"]
        if arg == "CERT":
            arg = BUILD / "cert.pem"
        elif arg == "PATH":
            arg = BUILD / f"{re.sub('[^a-z]', '_', loop)}.sock"
            arg.unlink(missing_ok=True)
        if loop in C_SERVERS:
            words = [BUILD / C_SERVERS[loop], "tcp" if case["mode"] == "proto" else case["mode"]]
        else:
            python, name = command(args, loop)
            words = [*python, HERE / "srv.py", name, case["mode"]]
        if case["kind"] == "insn":
            for old in BUILD.glob("callgrind.out*"):
                old.unlink()
            words[:0] = ["valgrind", "--tool=callgrind", "--instr-atstart=no",
                         f"--callgrind-out-file={BUILD}/callgrind.out"]
        return words + ([arg] if arg else [])

    def cpu(self):
        tasks = pathlib.Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss(self):
        return int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def spinners():
    """One SCHED_IDLE spinner per core. Any other process preempts them at once, but the cores never halt, so that a
    sleeping server wakes in about a microsecond; on a virtual machine a halt costs 20 to 50, which would drown the
    loop's own cost and make runs flip between two speeds."""
    def start(core):
        def before_exec():
            pinned({core})()
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=before_exec)
    processes = [start(core) for core in (0, 1)]
    try:
        yield [p.pid for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()


TICK = os.sysconf("SC_CLK_TCK")


def busy():
    """Seconds of CPU used on this machine, all cores; stolen time counts."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICK


def own_cpu(pids):
    return sum(os.times()[:4]) + sum(map(cpu_of, pids))


def client(words, timeout):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=timeout,
                          preexec_fn=pinned({1}))
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-200:] or f"exit {done.returncode}")
    return done.stdout


# ---- one sample, by kind of case ---------------------------------------------------------------

def sample_load(args, case, loop, server):
    mode, *rest = case["load"]
    held = sum(int(rest[i + 1]) for i, word in enumerate(rest) if word in ("--conns", "--idle"))
    found = json.loads(client([BUILD / "load", mode, server.address, *rest, "--secs", args.secs, "--warm", args.warm,
                               "--pid", server.pid], args.secs * 4 + 25))
    time.sleep(0.02 + 5e-5 * held)  # let it close them all
    if "--resume" in rest and found["resumed"] < 0.98 * found["n"] - held:
        raise RuntimeError(f"{found['resumed']} of {found['n']} sessions resumed")
    return {"value": found["rate"], "unit": "req/s", **found}


def sample_insn(args, case, loop, server):
    """User-space instructions per request, by callgrind."""
    def control(*words):
        subprocess.run(["callgrind_control", *words, str(server.pid)], check=True, capture_output=True)
    load = [BUILD / "load", case["load"][0], server.address, *case["load"][1:], "--warm", 0]
    client([*load, "--secs", 0.3], 60)
    control("-i", "on")
    done = json.loads(client([*load, "--secs", 1], 60))["n"]
    control("-i", "off")
    control("-d")
    total = sum(int(x) for f in BUILD.glob("callgrind.out*")
                for x in re.findall(r"^totals: (\d+)", f.read_text(), re.M))
    return {"value": total / done, "unit": "insn"}


def sample_wrk(args, case, loop, server):
    before, secs = server.cpu(), max(1, round(args.secs))
    out = client(["wrk", "-t1", "-c50", f"-d{secs}s", f"http://127.0.0.1:{server.address}/"], secs + 30)
    done = int(re.search(r"(\d+) requests in", out)[1])
    if "Socket errors" in out or "Non-2xx" in out or not done:
        raise RuntimeError("wrk saw errors")
    return {"value": float(re.search(r"Requests/sec:\s*([\d.]+)", out)[1]), "unit": "req/s",
            "cpu_us": (server.cpu() - before) / done * 1e6}


def sample_mem(args, case, loop, server):
    before = server.rss()
    if case["mode"] == "empty":
        return {"value": before / 1e6, "unit": "MB"}
    conns, tls = (IDLE_TLS_CONNECTIONS, ["--tls"]) if case["tls"] else (IDLE_CONNECTIONS, [])
    with subprocess.Popen([BUILD / "load", "idle", server.address, "--conns", str(conns), *tls],
                          stdout=subprocess.PIPE, stdin=subprocess.PIPE, preexec_fn=pinned({1})) as held:
        if not held.stdout.readline():
            raise RuntimeError("load could not connect")
        time.sleep(0.6)
        each = (server.rss() - before) / conns
        return {"value": each / 1024, "unit": "KiB"} if tls else {"value": each, "unit": "B"}


def sample_maps(args, case, loop, server):
    """System calls that map memory, for each 100 requests: a block over malloc's threshold in each read shows here."""
    load = [BUILD / "load", case["load"][0], server.address, *case["load"][1:], "--secs", args.secs, "--warm", 0]
    with tempfile.NamedTemporaryFile("r") as summary:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-e", "trace=mmap,munmap,mremap", "-p", str(server.pid),
                                   "-o", summary.name], stderr=subprocess.PIPE, text=True)
        try:
            if "attached" not in (said := tracer.stderr.readline()):
                raise RuntimeError(said.strip())
            done = json.loads(client(load, args.secs * 4 + 25))["n"]
        finally:
            tracer.terminate()
            tracer.communicate()
        calls = re.findall(r"^(?: *[\d.]+){3} +(\d+).* (?:mmap|munmap|mremap)$", summary.read(), re.M)
    return {"value": sum(map(int, calls)) / done * 100, "unit": "calls"}


def sample_micro(args, case, loop, server):
    python, name = command(args, loop)
    threads = re.search("threadsafe|executor|subprocess|getaddrinfo", case["mode"])
    done = subprocess.run([*python, str(HERE / "micro.py"), name, case["mode"], str(args.secs / 2)], timeout=60,
                          capture_output=True, text=True, cwd=HERE, preexec_fn=pinned({0, 1} if threads else {0}))
    if not done.stdout:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return json.loads(done.stdout)


SAMPLE = {"load": sample_load, "insn": sample_insn, "wrk": sample_wrk, "mem": sample_mem, "maps": sample_maps,
          "micro": sample_micro}


def clean_sample(args, case, loop, server, spinning, tries):
    """A sample during which little else ran, or the last of so many tries."""
    for _ in range(tries):
        pids = spinning + ([server.pid] if server else [])
        before, start, own = busy(), time.monotonic(), own_cpu(pids)
        sample = SAMPLE[case["kind"]](args, case, loop, server)
        own = own_cpu(pids) - own
        sample["other"] = round(max(0, (busy() - before - own) / (time.monotonic() - start)), 3)
        if sample["other"] < report.DISTURBED:
            break
    return sample


def run_case(args, case, loops, spinning):
    """loop -> list of samples or an error string; the loops take turns."""
    got, servers = {x: [] for x in loops}, {}
    restart = case["kind"] in ("mem", "insn", "maps") or case["fresh"]
    once = case["kind"] == "insn" or case["kind"] in ("mem", "maps") and args.quick
    try:
        for turn in range(1 if once else args.rounds):
            first = turn % len(loops)
            for loop in loops[first:] + loops[:first]:
                if isinstance(got[loop], str):
                    continue
                try:
                    if case["kind"] != "micro" and loop not in servers:
                        servers[loop] = Server(args, case, loop)
                    tries = 1 if restart else 3
                    got[loop].append(clean_sample(args, case, loop, servers.get(loop), spinning, tries))
                    if restart:
                        servers.pop(loop).stop()
                except subprocess.TimeoutExpired:
                    got[loop] = "timed out"
                except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
                    got[loop] = str(error)[-160:]
    finally:
        for server in servers.values():
            server.stop()
    return got


# ---- the command -------------------------------------------------------------------------------

def loops_of(args, case):
    loops = args.loops.split(",") if args.loops else [*LOOPS, *(TLS_PEERS if case["tls"] else ())]
    return loops + (list(C_SERVERS) if case["c"] and not args.no_c else [])


def describe(args, results):
    """Machine and versions, for the report."""
    loops = args.loops.split(",") if args.loops else [*LOOPS, *TLS_PEERS]
    for loop in loops:
        python, name = command(args, loop)
        results["loops"][loop] = subprocess.run([*python, HERE / "loopspec.py", name], capture_output=True, text=True,
                                                cwd=HERE).stdout.strip()
    if not args.no_c:
        results["loops"].update({"c-epoll": "epoll", "c-uv": "libuv, static buffer"})
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    version = subprocess.run([*command(args, loops[0])[0], "-V"], capture_output=True, text=True).stdout.strip()
    results["machine"] = (f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
                          f"Linux {platform.release().split('-')[0]}, {version}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", help="NAME, NAME@interpreter or aiofastnet+NAME, with commas")
    parser.add_argument("--cases", default="*", help="globs with commas, such as tcp/*,in/timer*")
    parser.add_argument("--quick", action="store_true", help="fewer cases, 2 rounds of 0.35 s")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--secs", type=float)
    parser.add_argument("--warm", type=float, default=0.15)
    parser.add_argument("--ref", default="uvloop")
    parser.add_argument("--no-c", action="store_true", help="leave the limit lines out")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", default="results")
    parser.add_argument("--report", action="store_true", help="only write BASE.md again from BASE.json")
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 3)
    args.secs = args.secs or (0.35 if args.quick else 1.0)
    return args


def measure(args, cases, results, save):
    start = time.monotonic()
    build()
    describe(args, results)
    for name, case in cases.items():
        with spinners() as spinning:
            got = run_case(args, case, loops_of(args, case), spinning)
        row = {loop: report.summarise(samples) for loop, samples in got.items()}
        results["cases"].setdefault(name, {}).update(row)
        reference = results["cases"][name].get(args.ref)
        print(f"[{time.monotonic() - start:5.0f} s]", report.line(name, row, reference), flush=True)
        for loop, entry in row.items():
            if "error" in entry:
                print(f"          {loop}: {entry['error']}", flush=True)
        save()


def main():
    args = parse_arguments()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    every = build_cases()
    cases = {name: case for name, case in every.items()
             if any(fnmatch.fnmatch(name, x) for x in args.cases.split(",")) and (case["quick"] or not args.quick)}
    if args.list:
        print(*cases, sep="\n")
        return
    data = pathlib.Path(args.out + ".json")
    results = json.loads(data.read_text()) if data.exists() else {"loops": {}, "cases": {}}

    def save():
        order = {name: i for i, name in enumerate(every)}
        results["cases"] = dict(sorted(results["cases"].items(), key=lambda item: order.get(item[0], len(order))))
        data.write_text(json.dumps(results, indent=1))
        pathlib.Path(args.out + ".md").write_text(report.markdown(results, args.ref))

    if args.report:
        save()
    else:
        measure(args, cases, results, save)


if __name__ == "__main__":
    main()
