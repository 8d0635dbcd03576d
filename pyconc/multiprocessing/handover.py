# SPDX-License-Identifier: MIT
"""How an object in shared memory gets into another process.

Under fork a child has it already. Otherwise its pickle says in which process's memory it lies, and who unpickles it
opens that memory by /proc/PID/fd: any process of the same user can, at any time. A child that is just being spawned
gets the descriptors themselves, so that its parent may end meanwhile.
"""
from multiprocessing.context import get_spawning_popen

from pyconc import _ipc


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
    if child is None:
        return receive, (type(shared), sent, extra)
    if hasattr(shared, "descriptors"):
        arena, memory = shared.descriptors()
        return receive_given, (type(shared), sent, extra, _given_to(child, arena), _given_to(child, memory))
    return receive_given, (type(shared), sent, extra, _given_to(child, shared.descriptor()))


def receive(kind, sent, extra):
    return kind.receive(sent, extra)


def receive_given(kind, sent, extra, arena, memory=None):
    _ipc.adopt(arena.detach())
    if memory is not None:
        sent = (sent[0], 0, memory.detach(), *sent[3:])
    return kind.receive(sent, extra)
