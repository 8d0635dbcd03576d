"""One queue between threads and coroutines, and a lock that both take."""
import pyconc
from pyconc import queue, threading

jobs, results, printing = queue.Queue(maxsize=10), queue.Queue(), threading.Lock()


def work():
    while True:
        try:
            number = jobs.get()
        except queue.ShutDown:
            return
        with printing:
            print(threading.current_thread().name, "squares", number)
        results.put(number * number)
        jobs.task_done()


async def main():
    for place in range(2):
        threading.Thread(target=work, name=f"worker-{place}").start()
    for number in range(20):
        await jobs.put_async(number)
    await jobs.join_async()
    jobs.shutdown()
    squares = results.get_many()
    async with printing:
        print("the sum of", len(squares), "squares is", sum(squares))


pyconc.run(main())
