# SPDX-License-Identifier: MIT
"""How an object in shared memory gets into another process.

Under fork a child has it already. Otherwise its pickle says in which process's memory it lies, and who unpickles it
opens that memory by /proc/PID/fd: any process of the same user can, at any time. A child that is just being spawned
gets the descriptors themselves, so that its parent may end meanwhile.
"""
import os
from multiprocessing.context import get_spawning_popen
from weakref import WeakValueDictionary

from pyconc import _ipc

# Objects with memory of their own that this process has sent or received, by what they are. One that arrives (again)
# is the same object, as another one would be another mapping. Two threads that receive one for the first time at once
# may have two.
_known = WeakValueDictionary()


def _identity(sent):
    cookie, _, _, offset, generation = sent[0]
    return cookie, offset, generation


def _is_open(shared):
    return not getattr(shared, "_closed", False)


def _given_to(child, fd):
    """What the child finds the descriptor by; once for each, as a child can be given none twice."""
    given = child.__dict__.setdefault("_pyconc_given", {})
    if fd not in given:
        given[fd] = child.DupFd(child.duplicate_for_child(fd))
    return given[fd]


def reduce(shared, extra=None):
    """The __reduce__ of all types of pyconc._ipc."""
    child = get_spawning_popen()
    sent = shared.send()
    if not hasattr(shared, "descriptors"):
        if child is None:
            return receive, (type(shared), sent, extra)
        return receive_given, (type(shared), sent, extra, _given_to(child, shared.descriptor()))
    if _is_open(shared):
        _known[_identity(sent)] = shared
    if child is None:
        return receive, (type(shared), sent, extra)
    arena, memory = shared.descriptors()
    return receive_given, (type(shared), sent, extra, _given_to(child, arena), _given_to(child, memory))


def receive(kind, sent, extra):
    if not hasattr(kind, "descriptors"):
        return kind.receive(sent, extra)
    key = _identity(sent)
    known = _known.get(key)
    if type(known) is not kind or not _is_open(known):
        known = _known[key] = kind.receive(sent, extra)
        return known
    known._arrived()
    _, pid, fd = sent
    if pid == 0 and fd != known.descriptors()[1]:   # it was given, and is needed no longer
        os.close(fd)
    return known


def receive_given(kind, sent, extra, arena, memory=None):
    fd = None if memory is None else memory.detach()
    try:
        _ipc.adopt(arena.detach())
    except BaseException:
        if fd is not None:
            os.close(fd)
        raise
    return receive(kind, sent if fd is None else (sent[0], 0, fd), extra)
