# SPDX-License-Identifier: MIT
"""Asks an echo server until standard input ends; a process of its own, so that only the server is measured.

python -m pyconc.commands.demo.client PORT CONNECTIONS BYTES PAUSE prints "ready", and at the end a line of JSON:
requests, seconds, the worst and the 99th percentile of their times in seconds, and how many answers were wrong.
"""
import json
import os
import socket
import sys
import threading
import time


def ask(socks, payload, times):
    """One request on each connection, all under way at once; how many answers were wrong."""
    wrong = 0
    start = time.perf_counter()
    for sock in socks:
        sock.sendall(payload)
    for sock in socks:
        answer = sock.recv(len(payload), socket.MSG_WAITALL)
        times.append(time.perf_counter() - start)
        wrong += answer != payload
    return wrong


def main(args):
    port, connections, size, pause = int(args[0]), int(args[1]), int(args[2]), float(args[3])
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    payload, wrong = os.urandom(size), ask(socks, bytes(size), [])
    times: list[float] = []
    ended = threading.Event()

    def watch():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    print("ready", flush=True)
    start = time.perf_counter()
    while not ended.is_set():
        wrong += ask(socks, payload, times)
        if pause:
            time.sleep(pause)
    seconds = time.perf_counter() - start
    times.sort()
    print(json.dumps({"requests": len(times), "seconds": seconds, "wrong": wrong, "worst": times[-1] if times else 0,
                      "p99": times[len(times) * 99 // 100] if times else 0}))


if __name__ == "__main__":
    main(sys.argv[1:])
