/* SPDX-License-Identifier: MIT */
#include "ipc/ring.h"

#include <string.h>

/* What a record of kind PYC_RECORD_JUMP is followed by. */
typedef struct {
    pyc_record record;
    uint64_t chunk;
} jump;

#define HEADER PYC_PIECE_UNIT

static uint64_t
end_of(uint64_t chunk)
{
    return chunk + HEADER + PYC_CHUNK_SIZE;
}

int
pyc_ring_begin(pyc_ring *self, pyc_store *store)
{
    uint64_t chunk;
    int rc = pyc_heap_grow(&self->heap, store, 2 * PYC_CHUNK_SIZE);
    if (rc == 0) {
        rc = pyc_heap_take(&self->heap, store, PYC_CHUNK_SIZE,
                           PYC_STATE(PYC_CHUNK, 0), &chunk);
    }
    if (rc == 0) {
        atomic_store(&self->in.place[0].position, chunk + HEADER);
        atomic_store(&self->in.place[0].chunk, chunk);
        atomic_store(&self->out.place[0].position, chunk + HEADER);
        atomic_store(&self->out.place[0].chunk, chunk);
    }
    return rc;
}

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define STORE(field, value)                                                    \
    atomic_store_explicit(&(field), (value), memory_order_relaxed)

void
pyc_ring_load(pyc_ring_end *end, pyc_ring_cursor *cursor)
{
    uint64_t word = atomic_load_explicit(&end->word, memory_order_acquire);
    cursor->number = word >> 1;
    cursor->position = LOAD(end->place[word & 1].position);
    cursor->weight = LOAD(end->place[word & 1].weight);
    cursor->chunk = LOAD(end->place[word & 1].chunk);
    cursor->first = LOAD(end->place[word & 1].first);
    cursor->dropped = LOAD(end->place[word & 1].dropped);
    cursor->left = 0;
}

static void
commit(pyc_ring_end *end, const pyc_ring_cursor *cursor)
{
    uint64_t place = (LOAD(end->word) & 1) ^ 1;
    STORE(end->place[place].position, cursor->position);
    STORE(end->place[place].weight, cursor->weight);
    STORE(end->place[place].chunk, cursor->chunk);
    STORE(end->place[place].first, cursor->first);
    STORE(end->place[place].dropped, cursor->dropped);
    atomic_store_explicit(&end->word, cursor->number << 1 | place,
                          memory_order_release);
}

void
pyc_ring_commit_in(pyc_ring *self, const pyc_ring_cursor *cursor)
{
    commit(&self->in, cursor);
}

/* Room for this and for a jump behind it is always left. */
static int
go_on(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor)
{
    uint64_t chunk;
    jump *from = (jump *)pyc_store_at(store, cursor->position, sizeof(*from));
    if (from == NULL) {
        return PYC_CORRUPT;
    }
    int rc = pyc_heap_take(&self->heap, store, PYC_CHUNK_SIZE,
                           PYC_STATE(PYC_CHUNK, cursor->number), &chunk);
    if (rc < 0) {
        return rc;
    }
    from->record = (pyc_record){.size = sizeof(*from),
                                .number = (uint32_t)cursor->number,
                                .kind = PYC_RECORD_JUMP};
    from->chunk = chunk;
    cursor->chunk = chunk;
    cursor->first = cursor->number;
    cursor->position = chunk + HEADER;
    return 0;
}

static bool
is_within(const pyc_ring_cursor *cursor, uint64_t size)
{
    uint64_t start = cursor->chunk + HEADER;
    return cursor->position % 8 == 0 && cursor->position >= start &&
           cursor->position - start <= PYC_CHUNK_SIZE &&
           size <= end_of(cursor->chunk) - cursor->position;
}

int
pyc_ring_append(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor,
                pyc_record *record, char **where)
{
    if (!is_within(cursor, sizeof(jump))) {
        return PYC_CORRUPT;
    }
    if (!is_within(cursor, record->size + sizeof(jump))) {
        int rc = go_on(self, store, cursor);
        if (rc < 0) {
            return rc;
        }
    }
    *where = (char *)pyc_store_at(store, cursor->position, record->size);
    if (*where == NULL) {
        return PYC_CORRUPT;
    }
    record->number = (uint32_t)cursor->number;
    memcpy(*where, record, sizeof(*record));
    cursor->position += record->size;
    cursor->weight += record->weight;
    cursor->number++;
    return 0;
}

/* A record's header at the cursor, in bounds. */
static int
read_header(pyc_store *store, const pyc_ring_cursor *cursor, pyc_record *record,
            const char **where)
{
    if (!is_within(cursor, sizeof(*record))) {
        return PYC_CORRUPT;
    }
    *where =
        (const char *)pyc_store_at(store, cursor->position, sizeof(*record));
    if (*where == NULL) {
        return PYC_CORRUPT;
    }
    memcpy(record, *where, sizeof(*record));
    return record->number == (uint32_t)cursor->number &&
                   record->size >= sizeof(*record) && record->size % 8 == 0 &&
                   is_within(cursor, record->size) &&
                   pyc_store_at(store, cursor->position, record->size) != NULL
               ? 0
               : PYC_CORRUPT;
}

static int
follow(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor,
       const pyc_record *record, const char *where)
{
    jump to;
    if (record->size != sizeof(to)) {
        return PYC_CORRUPT;
    }
    memcpy(&to, where, sizeof(to));
    pyc_piece *chunk = pyc_heap_piece(store, to.chunk, PYC_CHUNK_SIZE);
    if (chunk == NULL || to.chunk == cursor->chunk ||
        atomic_load(&chunk->state) != PYC_STATE(PYC_CHUNK, cursor->number)) {
        return PYC_CORRUPT;
    }
    if (cursor->left != 0) {
        pyc_ring_commit_out(self, store, cursor);
    }
    cursor->left = cursor->chunk + 1;
    cursor->chunk = to.chunk;
    cursor->first = cursor->number;
    cursor->position = to.chunk + HEADER;
    return 0;
}

int
pyc_ring_next(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor,
              pyc_record *record, const char **where)
{
    if (cursor->number == pyc_ring_number(&self->in)) {
        return 0;
    }
    int rc = read_header(store, cursor, record, where);
    if (rc == 0 && record->kind == PYC_RECORD_JUMP) {
        rc = follow(self, store, cursor, record, *where);
        if (rc == 0) {
            rc = read_header(store, cursor, record, where);
        }
    }
    if (rc < 0) {
        return rc;
    }
    return record->kind == PYC_RECORD_JUMP ||
                   pyc_record_size(record->parts, 0) > record->size ||
                   record->length >
                       record->size - (sizeof(pyc_record) +
                                       record->parts * sizeof(pyc_ring_part))
               ? PYC_CORRUPT
               : 1;
}

void
pyc_ring_took(pyc_ring_cursor *cursor, const pyc_record *record)
{
    cursor->position += record->size;
    cursor->weight += record->weight;
    cursor->number++;
}

void
pyc_ring_commit_out(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor)
{
    commit(&self->out, cursor);
    if (cursor->left != 0) {
        pyc_piece *chunk =
            pyc_heap_piece(store, cursor->left - 1, PYC_CHUNK_SIZE);
        if (chunk != NULL &&
            PYC_STATE_IS(atomic_load(&chunk->state)) == PYC_CHUNK) {
            pyc_heap_free(&self->heap, chunk);
        }
        cursor->left = 0;
    }
}

pyc_piece *
pyc_ring_piece(pyc_store *store, const pyc_ring_part *part, uint64_t state)
{
    pyc_piece *piece = pyc_heap_piece(store, part->offset, part->length);
    return piece != NULL &&
                   atomic_load(&piece->generation) == part->generation &&
                   atomic_load(&piece->state) == state
               ? piece
               : NULL;
}

uint64_t
pyc_ring_count(pyc_ring *self)
{
    uint64_t out, in;
    do {
        out = atomic_load(&self->out.word);
        in = atomic_load(&self->in.word);
    } while (out != atomic_load(&self->out.word));
    return (in >> 1) - (out >> 1);
}

uint64_t
pyc_ring_weight(pyc_ring *self, const pyc_ring_cursor *in)
{
    uint64_t word, weight;
    do {
        word = atomic_load(&self->out.word);
        weight = atomic_load(&self->out.place[word & 1].weight);
    } while (word != atomic_load(&self->out.word));
    return in->weight - weight;
}

uint64_t
pyc_ring_dropped(pyc_ring *self)
{
    uint64_t word, dropped;
    do {
        word = atomic_load(&self->out.word);
        dropped = atomic_load(&self->out.place[word & 1].dropped);
    } while (word != atomic_load(&self->out.word));
    return dropped;
}

/* Who works at both ends has committed, so a record that is not between them is
 * a killed process's, or was taken by one. Each chunk has another first record:
 * the oldest one has `out.first`, the newest one `in.first`. */
bool
pyc_ring_is_left(pyc_ring *self, uint64_t state, uint64_t offset)
{
    pyc_ring_cursor in, out;
    pyc_ring_load(&self->in, &in);
    pyc_ring_load(&self->out, &out);
    uint64_t number = PYC_STATE_NUMBER(state);
    switch (PYC_STATE_IS(state)) {
    case PYC_CARRIED:
    case PYC_LENT:
        return number < out.number || number >= in.number;
    case PYC_CHUNK:
        return offset != in.chunk && offset != out.chunk &&
               (number <= out.first || number >= in.first);
    default:
        return false;
    }
}
