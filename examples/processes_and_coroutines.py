"""A queue, a lock and a value between processes and coroutines."""
import pyconc
from pyconc import multiprocessing


def work(jobs, results, total):
    while (number := jobs.get()) is not None:
        with total.get_lock():
            total.value += number * number
        results.put((multiprocessing.current_process().name, number))


async def main():
    jobs, results, total = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Value("q")
    workers = [multiprocessing.Process(target=work, args=[jobs, results, total]) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in range(20):
        await jobs.put_async(number)
    for _ in range(20):
        name, number = await results.get_async()
        print(name, "squared", number)
    for _ in workers:
        await jobs.put_async(None)
    for worker in workers:
        worker.join()
    print("the sum of 20 squares is", total.value)


if __name__ == "__main__":
    pyconc.run(main())
