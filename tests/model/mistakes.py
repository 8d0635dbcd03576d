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
FEW_SPINS = Edit(MUTEX, "enum { SPINS = 100 };", "enum { SPINS = 1 };")
NO_PAUSES = Edit("ipc/word.h", "#define PYC_PAUSES 64", "#define PYC_PAUSES 0")
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
            Edit("ipc/mutex.h", "n + 1, memory_order_release);\n    atomic_thread_fence(memory_order_seq_cst); "
                                "/* the log, then the field */\n"
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
        Edit("ipc/ring.h", "#define PYC_CHUNK_SIZE (UINT64_C(65536) - PYC_PIECE_UNIT)",
                           "#define PYC_CHUNK_SIZE model_chunk\nextern uint64_t model_chunk;"),
        Edit("ipc/store.h", "#define PYC_EXTENTS 96", "#define PYC_EXTENTS 3"),
        Edit("ipc/store.c", "#define PAGE UINT64_C(4096)", "#define PAGE UINT64_C(64)"),
        Edit("ipc/heap.c", "#define SPLIT_LEAST 4096 ", "#define SPLIT_LEAST 64 "),
        Edit("ipc/heap.c", "#define LOOK_FIRST 32 ", "#define LOOK_FIRST 1 "),
        Edit("ipc/heap.c", "#define GROW_LEAST (UINT64_C(256) << 10)", "#define GROW_LEAST UINT64_C(64)"),
        Edit("ipc/queue.c", "if (spin(self, wish)) {", "if (false) {"),
    ), beside=("ipc/queue.c", "ipc/ring.c", "ipc/heap.c", "ipc/gate.c", "ipc/mutex.c", "ipc/sleep.c")),
    "semaphore": Model((NO_PAUSES,)),
    "event": Model((NO_PAUSES,)),
    "condition": Model((NO_PAUSES,
                        Edit("ipc/seats.h", "#define PYC_SEATS 120", "#define PYC_SEATS 2")),
                       beside=("ipc/lock.c",)),
    "lock": Model((NO_PAUSES,)),
}
