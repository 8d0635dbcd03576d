/* SPDX-License-Identifier: MIT */
/* An intrusive, circular, doubly linked list. A link that is in no list points
 * to itself. */
#ifndef PYC_BASE_LIST_H
#define PYC_BASE_LIST_H

#include <stddef.h>

typedef struct pyc_link {
    struct pyc_link *next;
    struct pyc_link *prev;
} pyc_link;

#define pyc_container(link, type, member)                                      \
    ((type *)((char *)(link) - offsetof(type, member)))

static inline void
pyc_link_init(pyc_link *link)
{
    link->next = link->prev = link;
}

static inline int
pyc_link_alone(const pyc_link *link)
{
    return link->next == link;
}

/* Puts `link`, which is in no list, before `at`: at the end of a list whose
 * head is `at`. */
static inline void
pyc_link_insert(pyc_link *at, pyc_link *link)
{
    link->next = at;
    link->prev = at->prev;
    at->prev->next = link;
    at->prev = link;
}

static inline void
pyc_link_remove(pyc_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    pyc_link_init(link);
}

/* Moves all of `from` to `to`, an empty head. */
static inline void
pyc_link_move(pyc_link *from, pyc_link *to)
{
    if (pyc_link_alone(from)) {
        pyc_link_init(to);
        return;
    }
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    pyc_link_init(from);
}

#endif
