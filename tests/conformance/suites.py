"""The suites: the modules of CPython they run, what stands in for what there, and what says nothing about pyconc."""

ASYNCIO = "test.test_asyncio."
FUTURES = "test.test_concurrent_futures."

AREAS = {
    "asyncio": ["asyncio"],
    "futures": ["futures"],
    "threading": ["threading", "primitives"],
    "queue": ["primitives"],
    "multiprocessing": ["mp-primitives", "mp-fork", "mp-spawn", "mp-forkserver"],
}

SUITES = {
    "asyncio": {
        "patch": "loop",
        "timeout": 40,
        "units": [ASYNCIO + unit for unit in (
            "test_events", "test_streams", "test_server", "test_sock_lowlevel", "test_subprocess", "test_sendfile",
            "test_buffered_proto", "test_ssl", "test_sslproto", "test_tasks", "test_taskgroups", "test_timeouts",
            "test_runners", "test_queues", "test_locks", "test_futures", "test_futures2", "test_eager_task_factory",
            "test_context", "test_pep492", "test_waitfor", "test_staggered", "test_threads", "test_base_events",
            "test_unix_events", "test_free_threading")],
        "exclude": [
            # The same tests again with another selector, or on asyncio's own loop built by hand.
            "*.PollEventLoopTests.*", "*.SelectEventLoopTests.*",
            "*.test_base_events.BaseEventLoopTests.*",
            "*.test_base_events.BaseEventTests.*",
            "*.test_base_events.BaseLoopSockSendfileTests.*",
            "*.test_base_events.BaseEventLoopWithSelectorTests.*mock*",
            "*.test_unix_events.SelectorEventLoop*",
            "*.test_unix_events.Unix*PipeTransportTests.*",
            # Child watchers, which went in 3.14.
            "*.test_unix_events.ChildWatcher*", "*.test_unix_events.*ChildWatcherTests.*",
            "*.SubprocessSafeWatcherTests.*", "*.SubprocessFastWatcherTests.*", "*.SubprocessPidfdWatcherTests.*",
            # Asks a name server.
            "*.test_create_connection_ipv6_scope",
        ],
    },
    "futures": {
        # Not queue and threading: a manager pickles their classes by name.
        "patch": "modules,concurrent.futures,multiprocessing",
        "timeout": 120,
        "units": [FUTURES + unit for unit in (
            "test_thread_pool", "test_process_pool", "test_future", "test_init", "test_wait", "test_as_completed",
            "test_shutdown", "test_deadlock")],
        "fallback": ["test.test_concurrent_futures"],  # one file before 3.12
    },
    "threading": {
        "patch": "modules",
        "timeout": 60,
        "units": ["test.test_threading", "test.test_queue", "test.test_threading_local"],
    },
    # lock_tests and test_queue on pyconc's threading and queue, lock_tests on its multiprocessing.
    "primitives": {"patch": "modules", "timeout": 60, "units": ["primitives"], "exclude": ["primitives.Mp*"]},
    "mp-primitives": {"patch": "modules", "timeout": 60, "units": ["primitives"],
                      "exclude": ["primitives.Thr*", "primitives.Q*"]},
    # In place of multiprocessing alone: a manager pickles classes of queue by their names.
    **{f"mp-{method}": {
        "patch": "modules,multiprocessing",
        "timeout": 100,
        "units": [f"test.test_multiprocessing_{method}.test_{unit}"
                  for unit in ("processes", "misc", "manager", "threads")],
        "fallback": [f"multiprocessing_{method}"],  # before 3.12
        "exclude": ["*.test_resource_tracker_sig*"] if method == "fork" else [],
    } for method in ("fork", "spawn", "forkserver")},
}
