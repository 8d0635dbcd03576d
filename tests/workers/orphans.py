"""A program with pools of each kind, of whose workers one works and one waits. It ends by being killed.

    python orphans.py METHOD DIRECTORY      prints "ready" once the jobs, whose workers leave their pids there, run
"""
import os
import sys
import time

from mishaps import note_and_hang

from pyconc.concurrent.futures.process import ProcessPoolExecutor
from pyconc.multiprocessing import get_context

if __name__ == "__main__":
    context, directory = get_context(sys.argv[1]), sys.argv[2]
    executors = [ProcessPoolExecutor(2, context, on_worker_death=death) for death in ("break", "replace")]
    pool = context.Pool(2)
    for executor in executors:
        executor.submit(time.sleep, 0).result()
        executor.submit(note_and_hang, directory)
    pool.apply_async(note_and_hang, [directory])
    while len(os.listdir(directory)) < 3:
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(600)
