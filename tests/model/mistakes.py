"""What the models are told of the source: how to make it small, and mistakes that they must find in it."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Edit:
    file: str  # below csrc
    old: str
    new: str


@dataclasses.dataclass(frozen=True)
class Broken:
    """A mistake, and where it must be found."""

    name: str
    scenario: str
    defect: str  # a pattern
    edits: tuple


@dataclasses.dataclass(frozen=True)
class Model:
    smaller: tuple = ()  # edits that leave the logic as it is, and the number of states small
    broken: tuple = ()
    beside: tuple = ()  # sources that the model does not include, but needs


MUTEX = "ipc/mutex.c"
WORD, RING, RWLOCK, BARRIER = "ipc/word.h", "ipc/ring.c", "ipc/rwlock.c", "ipc/barrier.c"
FEW_SPINS = Edit(MUTEX, "enum { SPINS = 100 };", "enum { SPINS = 1 };")
NO_PAUSES = Edit("ipc/word.h", "#define PYC_PAUSES 64", "#define PYC_PAUSES 0")
NO_YIELD = Edit("ipc/patience.h", "    return skip == 0;", "    return false;")  # it only adds a look
ALL_SLEEP = "all sleep, though nobody was killed"
BLOCK, TABLE, LAYOUT = "ipc/block.c", "ipc/table.c", "ipc/layout.h"
SMALL_ARENA = (
    Edit(LAYOUT, "#define PYC_ARENA_SIZE (512 * 1024)", "#define PYC_ARENA_SIZE (4 * PYC_PAGE_SIZE)"),
    Edit(LAYOUT, "#define PYC_PAGE_SIZE (16 * 1024)", "#define PYC_PAGE_SIZE 256"),
    Edit(LAYOUT, "#define PYC_PLACES 512 ", "#define PYC_PLACES 8 "),
    Edit(LAYOUT, "#define PYC_PLACE_BITS 9", "#define PYC_PLACE_BITS 3"),
    Edit(LAYOUT, "#define PYC_NOBODY (PYC_PLACES - 1)", "#define PYC_NOBODY model_nobody\nextern int model_nobody;"),
    Edit(LAYOUT, "#define PYC_HOLDERS 46", "#define PYC_HOLDERS (PYC_NOBODY - 1)"),
)
SMALL_QUEUE = (
    Edit("ipc/ring.h", "#define PYC_CHUNK_SIZE (UINT64_C(65536) - PYC_PIECE_UNIT)",
                       "#define PYC_CHUNK_SIZE model_chunk\nextern uint64_t model_chunk;"),
    Edit("ipc/store.h", "#define PYC_EXTENTS 96", "#define PYC_EXTENTS 5"),
    Edit("ipc/store.c", "#define PAGE UINT64_C(4096)", "#define PAGE UINT64_C(64)"),
    Edit("ipc/heap.c", "#define SPLIT_LEAST 4096 ", "#define SPLIT_LEAST 64 "),
    Edit("ipc/heap.c", "#define LOOK_FIRST 32 ", "#define LOOK_FIRST 1 "),
    Edit("ipc/heap.c", "#define GROW_LEAST (UINT64_C(256) << 10)", "#define GROW_LEAST UINT64_C(64)"),
    NO_YIELD,
)
CHANNEL, COLLECT = "ipc/channel.c", "ipc/channel_collect.c"
WAIT, WORK, FUTURE = "ipc/channel_wait.c", "ipc/channel_work.c", "pool/future.c"
MODELS = {
    "mutex": Model((FEW_SPINS,), (
        Broken("takes_over_no_sleepers", "three", ALL_SLEEP, (
            Edit(MUTEX, "take(mutex, 0, mine | PYC_SLEEPERS)", "take(mutex, 0, mine)"),)),
        Broken("wakes_before_it_gives", "two", ALL_SLEEP, (
            Edit(MUTEX, "    uint32_t word =\n"
                        "        atomic_exchange_explicit(&mutex->word, 0, memory_order_release);\n"
                        "    if (word & PYC_SLEEPERS) {\n        pyc_wake(&mutex->word, 1);\n    }\n",
                        "    uint32_t word = atomic_load(&mutex->word);\n"
                        "    if (word & PYC_SLEEPERS) {\n        pyc_wake(&mutex->word, 1);\n    }\n"
                        "    atomic_store(&mutex->word, 0);\n"),)),
        Broken("never_asks_for_the_dead", "kill", "all sleep after the slices", (
            Edit(MUTEX, "over && pyc_arena_owner_is_dead(arena, word & ~PYC_SLEEPERS)", "false"),)),
        Broken("takes_from_the_living", "kill_early_slices", "two have the mutex", (
            Edit(MUTEX, "over && pyc_arena_owner_is_dead(arena, word & ~PYC_SLEEPERS)", "over"),)),
        Broken("undoes_nothing", "kill", "half of a change|made twice", (
            Edit(MUTEX, "    if (died) {\n        undo(mutex);\n    }\n", ""),)),
        Broken("undoes_the_first_first", "kill_undo_order", "half of a change", (
            Edit(MUTEX, "for (uint32_t i = n < PYC_UNDO_MOST ? n : PYC_UNDO_MOST; i-- > 0;) {",
                        "for (uint32_t i = 0; i < n; i++) {"),)),
        Broken("undoes_what_is_done", "kill", "a change was lost", (
            Edit(MUTEX, "    pyc_mutex_commit(mutex);\n    uint32_t word =\n", "    uint32_t word =\n"),)),
        Broken("logs_without_an_order", "kill_buffered", "half of a change|made twice|lost", (
            Edit("ipc/mutex.h", "n + 1, memory_order_release);\n    /* After the log: a release. */\n"
                                "    atomic_store_explicit(field, value, memory_order_release);",
                                "n + 1, memory_order_relaxed);\n"
                                "    atomic_store_explicit(field, value, memory_order_relaxed);"),)),
    )),
    "arena": Model(SMALL_ARENA, (
        Broken("takes_without_compare", "take_the_one", "another object's|not empty", (
            Edit(BLOCK, "word_of(block) == 0 && change(block, 0, bit | PYC_UNREADY)",
                        "word_of(block) == 0 && (atomic_store(&block->word, bit | PYC_UNREADY), true)"),)),
        Broken("is_found_before_it_is_new", "send", "another object's", (
            Edit(BLOCK, "change(block, 0, bit | PYC_UNREADY)", "change(block, 0, bit)"),)),
        Broken("does_not_look_again", "send_to_two", "another object's", (
            Edit(BLOCK, "if (atomic_load(&header->generation) == generation) {", "if (true) {"),)),
        Broken("keeps_the_others_pickle", "send_to_two", "what was sent is gone", (
            Edit(BLOCK, "    if (less_one_sent(word) != word) {\n        add_sent(header);\n    }\n", ""),)),
        Broken("drops_for_all", "send", "what was sent is gone|another object's", (
            Edit(BLOCK, "atomic_fetch_and(&pyc_header_at(arena, block->offset)->word, ~bit)",
                        "atomic_store(&pyc_header_at(arena, block->offset)->word, 0)"),)),
        Broken("leaves_what_is_not_ready", "take_kill", "never free again", (
            Edit(TABLE, "!atomic_compare_exchange_strong(&block->word, &unready, 0)", "true"),)),
        Broken("asks_who_clears", "table_kill", "the dead are called living", (
            Edit(TABLE, "PYC_PLACE_STATUS(state) == PYC_PLACE_BUSY ||", ""),)),
        Broken("gives_a_number_twice", "table_kill_two", "had the same number", (
            Edit(TABLE, "    atomic_fetch_add(&entry->generation, 1);\n    atomic_store(&entry->state, 0);\n",
                        "    atomic_store(&entry->state, 0);\n    atomic_fetch_add(&entry->generation, 1);\n"),)),
        Broken("holds_nothing_for_the_child", "fork", "another object's", (
            Edit(TABLE, "    int place = claim(arena);\n    pyc_arena_each_block(arena, mark_held, place);\n",
                        "    int place = claim(arena);\n"),)),
    )),
    "queue": Model((
        FEW_SPINS,
        *SMALL_QUEUE,
    ), beside=("ipc/queue.c", "ipc/ring.c", "ipc/heap.c", "ipc/gate.c", "ipc/mutex.c", "ipc/sleep.c"), broken=(
        Broken("puts_without_the_mutex", "two_to_one", "failed|lost|twice|all sleep", (
            Edit("ipc/queue_put.c", "    pyc_mutex_lock(self->queue->shared.block.arena, &memory->putting);\n", ""),
            Edit("ipc/queue_put.c", "    pyc_mutex_unlock(&memory->putting);\n", ""))),
        Broken("gets_without_the_mutex", "one_to_two", "twice", (
            Edit("ipc/queue_get.c", "    pyc_ring_load(&memory->ring.out, &cursor);\n    int rc = pyc_queue_take",
                                    "    pyc_mutex_unlock(&memory->getting);\n"
                                    "    pyc_ring_load(&memory->ring.out, &cursor);\n    int rc = pyc_queue_take"),)),
        Broken("changes_an_end_in_place", "kill_consumer", "failed|twice|lost|fault", (
            Edit(RING, "(LOAD(end->word) & 1) ^ 1", "LOAD(end->word) & 1"),)),
        Broken("commits_before_the_rest", "kill_buffered", "failed|twice|lost|fault|all sleep", (
            Edit(RING, "cursor->number << 1 | place,\n                          memory_order_release",
                       "cursor->number << 1 | place,\n                          memory_order_relaxed"),)),
        Broken("frees_a_chunk_too_early", "one_to_one_chunks", "a chunk that is needed is free", (
            Edit(RING, "    cursor->left = cursor->chunk + 1;\n",
                       "    pyc_heap_free(&self->heap, (pyc_piece *)pyc_store_at(store, cursor->chunk, HEADER));\n"),)),
        Broken("reclaims_what_is_needed", "one_to_one_chunks", "failed|twice|lost|fault|needed", (
            Edit(RING, "(number <= out.first || number >= in.first)", "true"),)),
        Broken("tells_no_getter", "one_to_one", ALL_SLEEP, (
            Edit("ipc/queue_put.c", "        pyc_queue_tell_getters(self->queue, self->done - before);\n", ""),)),
        Broken("tells_no_putter", "one_to_one_small", ALL_SLEEP, (
            Edit("ipc/queue_get.c", "    pyc_gate_open(&memory->space, memory->max_bytes == 0 ? count : INT32_MAX);\n",
                                    ""),)),
        Broken("sleeps_without_a_look", "one_to_one", ALL_SLEEP, (
            Edit("ipc/queue.c", "    if (wish->is_ready(self, wish->what)) {\n        return 1;\n    }\n    int rc",
                                "    int rc"),)),
        Broken("forgets_who_sleeps", "one_to_two", ALL_SLEEP, (
            Edit("ipc/gate.c", "if (pyc_futex_wake_shared(&self->word, count) < count) {",
                               "if (pyc_futex_wake_shared(&self->word, count) <= count) {"),)),
        Broken("announces_nothing_new", "one_to_two", ALL_SLEEP, (
            Edit("ipc/gate.c", "&word, (word + 2) | 1)) {", "&word, word | 1)) {"),
            Edit("ipc/gate.c", "return (word + 2) | 1;", "return word | 1;"))),
    )),
    "channel": Model((
        FEW_SPINS,
        *SMALL_QUEUE,
        Edit(COLLECT, "#define BATCH_MOST 64", "extern int model_batch;\n#define BATCH_MOST model_batch"),
        Edit(COLLECT, "arrival arrivals[BATCH_MOST];", "arrival arrivals[2];"),
        Edit(COLLECT, "    if (ended > 0) {\n        trim(self->results);",
                      "    if (false) {\n        trim(self->results);"),
        Edit(COLLECT, "calls && pyc_load(self->deferred)",
                      "calls && atomic_load_explicit(&self->deferred, memory_order_relaxed)"),
        Edit(WAIT, "pyc_load(self->deferred)", "atomic_load_explicit(&self->deferred, memory_order_relaxed)"),
        Edit(WORK, "#define LOOK_AFTER_PARENT INT64_C(300000000)",
                   "extern int64_t model_parent;\n#define LOOK_AFTER_PARENT model_parent"),
        Edit(WORK, "getrusage(RUSAGE_SELF, &usage) == 0", "false && (usage = (struct rusage){0}, true)"),
        Edit("ipc/flat.h", "#define PYC_FLAT_MOST 1024", "#define PYC_FLAT_MOST 8"),
        # What only one process at a time can see: the model of the queue looks at that.
        Edit(RING, "#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)",
                   "#define LOAD(field) (field)"),
        Edit(RING, "    atomic_store_explicit(&(field), (value), memory_order_relaxed)", "    ((field) = (value))"),
        *(Edit(file, "#include <string.h>\n", "#include <string.h>\n#undef memcpy\n")
          for file in (RING, "ipc/queue_put.c", "ipc/queue_get.c")),
        Edit(MUTEX, "        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == 0 &&\n"
                    "            take(mutex, 0, mine)) {", "        if (take(mutex, 0, mine)) {"),
        Edit("ipc/mutex.h", "    atomic_store_explicit(&mutex->logged, 0, memory_order_release);",
                            "    mutex->logged = 0;"),
        # What a worker says of itself.
        Edit(WORK, "#include <limits.h>\n", "#include <limits.h>\n#undef atomic_store_explicit\n"
                   "#define atomic_store_explicit(at, value, order) (*(at) = (value))\n"),
    ), beside=(CHANNEL, COLLECT, "ipc/channel_type.c", WAIT, WORK, "ipc/board.c", "ipc/queue_put.c",
               "ipc/queue_get.c", "ipc/queue.c", "ipc/ring.c", "ipc/heap.c", "ipc/gate.c", "ipc/mutex.c",
               "ipc/sleep.c", FUTURE), broken=(
        Broken("claims_what_it_has_taken", "kill", "all sleep after the slices", (
            Edit(WORK, "        bool claimed = claim(self, worker, item);\n"
                       "        PYC_KILL_POINT(\"channel-claimed\");\n"
                       "        pyc_ring_commit_out(&memory->ring, &jobs->store, &cursor);\n",
                       "        pyc_ring_commit_out(&memory->ring, &jobs->store, &cursor);\n"
                       "        bool claimed = claim(self, worker, item);\n"),)),
        Broken("claims_what_was_revoked", "cancel", "run that was revoked", (
            Edit(WORK, "!pyc_board_move(self->board, task, PYC_QUEUED, PYC_BEGUN + worker)",
                       "(pyc_board_set(self->board, task, PYC_BEGUN + worker), false)"),)),
        Broken("revokes_what_is_run", "cancel", "revoked that is run|run that was revoked", (
            Edit(CHANNEL, "                   pyc_board_move(self->board, task, PYC_QUEUED, PYC_OVER) &&\n", ""),)),
        Broken("sends_what_is_not_queued", "one", ALL_SLEEP, (
            Edit(CHANNEL, "        pyc_board_set(self->board, task, PYC_QUEUED);\n"
                          "        rc = pyc_queue_put_message(self->jobs, &message);\n",
                          "        rc = pyc_queue_put_message(self->jobs, &message);\n"
                          "        pyc_board_set(self->board, task, PYC_QUEUED);\n"),)),
        Broken("tells_no_worker", "one", ALL_SLEEP, (
            Edit(CHANNEL, "        pyc_queue_tell_getters(self->jobs, 1);\n", "        rc = 1;\n"),)),
        Broken("tells_nobody", "one", ALL_SLEEP, (
            Edit(WORK, "        tell_parent(self);\n", ""),)),
        Broken("tells_what_is_not_there_yet", "one", ALL_SLEEP, (
            Edit(WORK, "        tell_parent(self);\n", ""),
            Edit(WORK, "        rc = pyc_queue_put_message(self->results, &message);\n",
                       "        tell_parent(self);\n"
                       "        rc = pyc_queue_put_message(self->results, &message);\n"))),
        Broken("tells_the_driver_alone", "collector", ALL_SLEEP, (
            Edit(WORK, "if (atomic_load(&self->board->driven)) {", "if (true) {"),)),
        Broken("tells_the_collector_alone", "one", ALL_SLEEP, (
            Edit(WORK, "if (atomic_load(&self->board->driven)) {", "if (false) {"),)),
        Broken("leaves_without_a_look", "driver_leaves", ALL_SLEEP, (
            Edit(WAIT, "    if (rc == 0 && !pyc_queue_is_empty(self->results) &&\n", "    if (rc == 0 && false &&\n"),
            Edit(WAIT, "    if (rc != 0 && !pyc_queue_is_empty(self->results)) {\n", "    if (false) {\n"))),
        Broken("looks_before_it_leaves", "driver_leaves", ALL_SLEEP, (
            Edit(WAIT, "    atomic_store(&self->board->driven, 0);\n    atomic_store(&self->driver, 0);\n", ""),
            Edit(WAIT, "        pyc_gate_open(&self->board->collector, 1);\n    }\n    return rc;\n",
                       "        pyc_gate_open(&self->board->collector, 1);\n    }\n"
                       "    atomic_store(&self->board->driven, 0);\n"
                       "    atomic_store(&self->driver, 0);\n    return rc;\n"))),
        Broken("leaves_nobody_the_rest", "driver_interrupted", ALL_SLEEP, (
            Edit(WAIT, "        rc = -ECANCELED;\n    }\n    if (rc != 0",
                       "        return -ECANCELED;\n    }\n    if (rc != 0"),)),
        Broken("watches_without_a_look", "collector", ALL_SLEEP, (
            Edit(WAIT, "    if (pyc_queue_is_empty(self->results) && !atomic_load(&self->called) &&\n",
                       "    if (!atomic_load(&self->called) &&\n"),)),
        Broken("watches_though_it_is_called", "deferred", ALL_SLEEP, (
            Edit(WAIT, " && !atomic_load(&self->called) &&\n", " &&\n"),)),
        Broken("forgets_a_call_that_it_has_not_heard", "deferred", ALL_SLEEP, (
            Edit(WAIT, "    atomic_exchange(&self->called, 0); /* what was left before it is seen */\n", ""),
            Edit(WAIT, "    return !pyc_queue_is_empty(self->results) ||\n",
                       "    bool any = atomic_load_explicit(&self->deferred, memory_order_relaxed) != NULL;\n"
                       "    atomic_exchange(&self->called, 0);\n"
                       "    return any || !pyc_queue_is_empty(self->results);\n"
                       "    return !pyc_queue_is_empty(self->results) ||\n"))),
        Broken("calls_nobody_for_callbacks", "deferred", ALL_SLEEP, (
            Edit(COLLECT, "    if (all->deferred) {\n", "    if (false) {\n"),)),
        Broken("ends_what_a_driver_waits_for_in_silence", "cancel", ALL_SLEEP, (
            Edit(FUTURE, "            source->kick(source);\n", ""),)),
        Broken("drives_without_a_look_at_its_word", "cancel", ALL_SLEEP, (
            Edit(WAIT, "    return has_changed((const change *)(uintptr_t)what) ||\n           !pyc_queue",
                       "    return !pyc_queue"),)),
        Broken("drives_without_a_look_at_results", "one", ALL_SLEEP, (
            Edit(WAIT, "    return has_changed((const change *)(uintptr_t)what) ||\n"
                       "           !pyc_queue_is_empty(results);",
                       "    return has_changed((const change *)(uintptr_t)what);"),)),
        Broken("buries_what_was_answered", "kill", "lost that was answered", (
            Edit("ipc/channel_type.c", "        pyc_channel_worker_of(self, number, &worker) < 0 ||\n"
                                       "        pyc_channel_collect(self, false) == -1) {\n",
                                       "        pyc_channel_worker_of(self, number, &worker) < 0) {\n"),)),
        Broken("marks_what_others_see_no_longer", "kill", "lost that was answered", (
            Edit(COLLECT, "        next->future = pyc_channel_arrive(self, next->taken.frame.task);\n", ""),
            Edit(COLLECT, "    pyc_mutex_unlock(&memory->getting);\n",
                          "    pyc_mutex_unlock(&memory->getting);\n    for (int i = 0; i < all->n; i++) {\n"
                          "        all->arrivals[i].future =\n"
                          "            pyc_channel_arrive(self, all->arrivals[i].taken.frame.task);\n    }\n"))),
        Broken("asks_for_no_room", "no_room", ALL_SLEEP, (
            Edit(CHANNEL, "        atomic_store(&self->wants_room, 1);\n", ""),)),
        Broken("forgets_who_had_no_room_again", "no_room", ALL_SLEEP, (
            Edit(COLLECT, "        atomic_store(&self->wants_room, 0);\n        call_refill(self, all);\n",
                          "        call_refill(self, all);\n        atomic_store(&self->wants_room, 0);\n"),)),
        Broken("retires_in_silence", "retire_one", ALL_SLEEP, (
            Edit("ipc/channel_type.c", "    pyc_queue_tell_getters(self->jobs, PY_SSIZE_T_MAX);\n", ""),)),
        Broken("sleeps_though_it_is_to_end", "retire_one", ALL_SLEEP, (
            Edit(WORK, "           atomic_load(&pyc_queue_shared(jobs)->shut) != 0 ||\n"
                       "           atomic_load(&((pyc_worker *)(uintptr_t)worker)->asked) != 0;",
                       "           atomic_load(&pyc_queue_shared(jobs)->shut) != 0;"),)),
        Broken("works_for_nobody", "kill_parent", "all sleep after the slices|nothing leads", (
            Edit(WORK, "was_shut || parent_is_gone(self)", "was_shut"),)),
    )),
    "barrier": Model((FEW_SPINS, NO_PAUSES, NO_YIELD), beside=("ipc/sleep.c", "ipc/mutex.c"), broken=(
        Broken("wakes_one", "three", ALL_SLEEP, (
            Edit(BARRIER, "pyc_wake(&ROUNDS->word, INT32_MAX);", "pyc_wake(&ROUNDS->word, 1);"),)),
        Broken("does_not_look_for_the_dead", "kill", "all sleep after the slices", (
            Edit(BARRIER, "            look_for_dead(self, number);\n            break;\n        case PYC_TOO_LATE",
                          "            break;\n        case PYC_TOO_LATE"),)),
        Broken("comes_without_the_mutex", "three", "same index|all sleep|before all", (
            Edit(BARRIER, "    int where = INSIDE;\n    lock(self);\n",
                          "    int where = INSIDE;\n    lock(self);\n    unlock(self);\n"),)),
        Broken("breaks_a_round_that_is_over", "late", "over and broken|it is broken|before all", (
            Edit(BARRIER, "if (end_round(self, number, 1 << PYC_FILLING, true, PYC_BROKEN)) {",
                          "if (end_round(self, number, 7, true, PYC_BROKEN) || true) {"),)),
    )),
    "rwlock": Model((Edit(RWLOCK, "#define READERS 900", "#define READERS 2"),), beside=("ipc/sleep.c",), broken=(
        Broken("asks_one_and_waits_for_another", "two_write", ALL_SLEEP, (
            Edit(RWLOCK, "*expected = pyc_word_ask(&MEMORY->word);",
                         "pyc_word_ask(&MEMORY->word);\n    *expected = pyc_word_look(&MEMORY->word);"),)),
        Broken("reads_without_a_second_look", "two_read", "one writes while another reads", (
            Edit(RWLOCK, "    if (atomic_load(&MEMORY->word) == 0) {\n", "    if (true) {\n"),)),
        Broken("writes_at_once", "two_read", "one writes while another reads", (
            Edit(RWLOCK, "        if (!is_read(self)) {\n            return TAKEN;", "        if (true) {\n"
                         "            return TAKEN;"),)),
        Broken("waits_for_dead_readers", "kill_readers", "all sleep after the slices", (
            Edit(RWLOCK, "        if (may_ask(self, end)) {\n            bury_readers(self);\n        }\n", ""),)),
    )),
    "semaphore": Model((NO_PAUSES, NO_YIELD), broken=(
        Broken("gives_up_without_a_second_look", "counts_late", ALL_SLEEP, (
            Edit("ipc/semaphore.c", "    else if (pyc_count_leave(&MEMORY->word)) {",
                                    "    else if (pyc_count_value(&MEMORY->word) == 0) {\n"
                                    "        pyc_count_doze(&MEMORY->word);\n    }\n    else {"),)),
        Broken("is_not_rung_for", "counts_tasks", ALL_SLEEP, (
            Edit("ipc/semaphore.c", "    } while (taken == 0 && !has_owners(MEMORY) &&\n"
                                    "             pyc_count_leave(&MEMORY->word));", "    } while (false);"),)),
        Broken("keeps_a_wake_for_itself", "counts_signal", ALL_SLEEP, (
            Edit("ipc/count.h", "*pass_on = slept && units > 1;", "*pass_on = false;"),)),
        Broken("takes_without_compare", "counts", "more have a unit", (
            Edit("ipc/count.h", "if (atomic_compare_exchange_weak(word, &now, left)) {",
                                "if (atomic_store(word, left), true) {"),)),
        Broken("forgets_others", "owned_signal", ALL_SLEEP, (
            Edit("ipc/semaphore.c", "        if (slept) {\n            care_for_others(self);\n        }\n", ""),)),
        Broken("sleeps_without_a_look", "owned", ALL_SLEEP, (
            Edit("ipc/semaphore.c", "        uint32_t expected = doze(self);\n        if (take(",
                                    "        uint32_t expected = doze(self);\n        if (slept && take("),)),
        Broken("leaves_the_dead_their_units", "owned_kill", "all sleep after the slices", (
            Edit("ipc/semaphore.c", "pyc_word_swap(&slots.units[at], owner, me)", "false"),)),
    )),
    "event": Model((NO_PAUSES, NO_YIELD), broken=(
        Broken("forgets_that_it_was_set", "late", "was set meanwhile", (
            Edit("ipc/flag.h", "return (now & PYC_SET) != 0 || ((now ^ before) & PYC_TIMES) != 0;",
                               "return (now & PYC_SET) != 0;"),)),
        Broken("wakes_one", "set", ALL_SLEEP, (
            Edit("ipc/event.c", "pyc_wake(&MEMORY->word, INT32_MAX);", "pyc_wake(&MEMORY->word, 1);"),)),
        Broken("says_nothing_of_its_sleep", "set", ALL_SLEEP, (
            Edit("ipc/flag.h", "*expected = now | PYC_SLEEPERS;", "*expected = now;"),)),
    )),
    "condition": Model((NO_PAUSES, NO_YIELD,
                        Edit("ipc/seats.h", "#define PYC_SEATS 120", "#define PYC_SEATS 2")),
                       beside=("ipc/lock.c",), broken=(
        Broken("notifies_the_dead", "inherit", "all sleep after the slices|more hear", (
            Edit("ipc/condition_type.c", "            pyc_condition_look(wait);\n", ""),)),
        Broken("hides_from_whom_it_wakes", "both", ALL_SLEEP, (
            Edit("ipc/condition.c", "    pyc_word_ask(word);\n", ""),)),
        Broken("says_nothing_of_its_sleep", "one", ALL_SLEEP, (
            Edit("ipc/condition_type.c", "            pyc_seat_doze(&seats->seats[wait->at], me);\n"
                                         "            expected = me | PYC_ASLEEP;\n", ""),)),
        Broken("forgets_those_who_were_moved_too", "both", ALL_SLEEP, (
            Edit("ipc/condition_type.c", "wait.who, wait.depth,\n                              wait.rest) < 0;",
                                         "wait.who, wait.depth, 0) < 0;"),
            Edit("ipc/lock.c", "bool slept = rest != PYC_STAYED_AWAKE;", "bool slept = false;"))),
        Broken("lets_go_before_it_has_a_seat", "one", ALL_SLEEP, (
            Edit("ipc/condition.c", "    wait->heir = -1;\n", "    wait->heir = -1;\n    pyc_lock_free(lock);\n"),
            Edit("ipc/condition.c", "                                     : &seats->seats[wait->at].number);\n"
                                    "    pyc_lock_free(lock);\n",
                                    "                                     : &seats->seats[wait->at].number);\n"))),
        Broken("loses_what_it_was_told_in_the_end", "passed_on", ALL_SLEEP, (
            Edit("ipc/condition.c", "if (passes_on || (wait->at >= 0 && wait->heir >= 0)) {", "if (false) {"),)),
    )),
    "lock": Model((NO_PAUSES,), (
        Broken("forgets_others", "three", ALL_SLEEP, (
            Edit(WORD, "slept ? me | PYC_SLEEPERS : me", "me"),)),
        Broken("is_not_rung_for", "tasks", ALL_SLEEP, (
            Edit("ipc/lock.c", "while (taken == 0 && pyc_word_ask(&PYC_LOCK_MEMORY(self)->word) == 0);",
                               "while (false);"),)),
        Broken("lets_go_in_two_steps", "two", ALL_SLEEP, (
            Edit(WORD, "return atomic_exchange(word, 0);",
                       "uint32_t was = atomic_load(word);\n    atomic_store(word, 0);\n    return was;"),)),
        Broken("takes_from_the_living", "kill_early_slices", "two have the lock|nobody has died", (
            Edit("ipc/lock.c", "pyc_arena_owner_is_dead(PYC_ARENA(self), owner) &&", "true &&"),)),
        Broken("takes_threads_of_two_processes_for_one", "threads", "has what it never took", (
            Edit("ipc/lock.h", "return here ^ (uint64_t)pyc_arena_me(PYC_ARENA(self)) << 34;", "return here;"),)),
        Broken("tells_nobody", "kill", "nobody is told", (
            Edit("ipc/lock.c", "if (died == 0 || pyc_owner_died((PyObject *)self, died, recover) == 0) {",
                               "if (true) {"),)),
    )),
}
