# SPDX-License-Identifier: MIT
"""multiprocessing.shared_memory: the same names, memory and layout, so that either side may be the standard library's.

What differs: only the process that creates memory has its resource tracker remove it (who attaches may come and go);
the memory is really there when it is created, so that a small /dev/shm means an OSError and no SIGBUS later; close()
with views of the memory in use changes nothing and says why; an array of numpy's keeps the memory mapped; memory gets
its name when somebody asks for it: a program that is killed before leaves nothing, whatever became of its tracker.
The items of a ShareableList are read and written in C.
"""
import _posixshmem
import errno
import os
import struct
import threading
import weakref
from functools import partial
from itertools import accumulate
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as _standard
from types import GenericAlias

from pyconc import _ipc

__all__ = ["SharedMemory", "ShareableList"]

_USE_POSIX = True
_O_CREX = os.O_CREAT | os.O_EXCL
_SHM_NAME_PREFIX = "/psm_"
_FOLDER = "/dev/shm"


def _make_filename():
    return _SHM_NAME_PREFIX + os.urandom(16).hex()


def _tell_tracker(command, name):
    """register() or unregister() of the resource tracker, in one write where it is running instead of two."""
    tracker = resource_tracker._resource_tracker
    if tracker._fd is not None and name.isascii() and ":" not in name and "\n" not in name and len(name) < 256:
        try:
            os.write(tracker._fd, f"{command}:{name}:shared_memory\n".encode())
            return
        except OSError:     # it died; what starts another one by itself does not tell that one, in 3.14
            tracker.ensure_running()
    (resource_tracker.register if command == "REGISTER" else resource_tracker.unregister)(name, "shared_memory")


_naming = threading.RLock()     # kept during a fork: no name is given, and no memory without one comes or goes
_nameless = weakref.WeakSet()


def _before_fork():
    """Parent and child must know the same name."""
    _naming.acquire()
    for memory in list(_nameless):
        try:
            memory._give_name()
        except OSError:
            pass


def _after_fork_in_parent():
    _naming.release()


def _after_fork_in_child():
    global _naming
    _naming = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class SharedMemory(_ipc.SharedMemory):
    """Memory that processes find by its name: created with `create` and `size`, else attached to.

    track: whether this process's resource tracker removes the name when the program ends without unlink(). None:
    when it creates the memory.
    """

    _path = None        # the name, once it has one
    _fd = -1            # of memory without a name
    _buf = None
    _size = 0
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _tracking = None        # as given
    _unlinked = False       # before it had a name
    _registered_by = None   # the process whose tracker was told

    def __init__(self, name=None, create=False, size=0, *, track=None):
        if not size >= 0:
            raise ValueError(f"'size' must be a positive integer, not {size!r}")
        if create:
            self._flags = _O_CREX | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._tracking = track
        fd = self._open_nameless() if name is None else self._open(name, create)
        try:
            self._buf = memoryview(self._map(fd, size if create else 0))
        except BaseException as error:
            if create:
                self.unlink()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, f"{_FOLDER} has no room for {size} bytes", name) from None
            raise
        finally:
            if self._path is not None:  # else it is needed to give it one
                os.close(fd)
        self._size = self._buf.nbytes
        if self._path is None:      # only now: a fork of another thread gives all of them their names
            with _naming:
                _nameless.add(self)

    def _open_nameless(self):
        """The descriptor of memory that gets its name later, where there is such a thing."""
        try:
            self._fd = os.open(_FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, self._mode)
            return self._fd
        except OSError:
            pass
        while True:
            try:
                return self._open(_make_filename()[1:], True)
            except FileExistsError:
                pass

    def _open(self, name, create):
        self._path = "/" + name if self._prepend_leading_slash else name
        _check(self._path)
        try:
            fd = _posixshmem.shm_open(self._path, self._flags, mode=self._mode)
        except OSError as error:
            if create and error.errno in (errno.ENOENT, errno.ENOSYS, errno.EROFS, errno.EACCES):
                raise OSError(error.errno, f"memory with a name needs {_FOLDER}, which this system lacks or keeps from "
                              f"this user ({os.strerror(error.errno)}); Value, Array and queues do without it",
                              self._path) from None
            raise
        if self._tracking if self._tracking is not None else create:
            try:
                self._register(self._path)
            except BaseException:   # a name that the tracker does not take
                os.close(fd)
                if create:
                    _posixshmem.shm_unlink(self._path)
                raise
        return fd

    def _give_name(self):
        with _naming:
            while self._path is None and (self._fd >= 0 or self._unlinked):
                path = _make_filename()
                if self._unlinked:
                    self._path = path
                    break
                # First the tracker, then the file system: whenever the process is killed, nothing stays.
                if self._tracking is not False:
                    self._register(path)
                try:
                    # A directory's descriptor, of no account here, makes os.link() follow the link.
                    os.link(f"/proc/self/fd/{self._fd}", _FOLDER + path, src_dir_fd=self._fd, follow_symlinks=True)
                except FileExistsError:
                    continue
                except OSError:
                    if self._tracking is not False:
                        _tell_tracker("UNREGISTER", path)
                        self._registered_by = None
                    raise
                self._path = path
                os.close(self._fd)
                self._fd = -1
                _nameless.discard(self)

    def _register(self, path):
        _tell_tracker("REGISTER", path)
        self._registered_by = os.getpid()

    def __del__(self):
        try:
            self.close()
        except (OSError, BufferError):  # the views keep the memory for themselves
            pass
        if self._fd >= 0:
            with _naming:
                os.close(self._fd)
                self._fd = -1
                _nameless.discard(self)

    def __reduce__(self):
        return self.__class__, (self.name, False, self.size)

    def __repr__(self):
        return f"{self.__class__.__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self):
        """A memoryview of the memory; None once it is closed."""
        return self._buf

    @property
    def _name(self):
        if self._path is None and (self._fd >= 0 or self._unlinked):
            self._give_name()
        return self._path

    @_name.setter
    def _name(self, name):
        self._path = name

    @property
    def name(self):
        """What other processes attach to it by."""
        name = self._name
        return name[1:] if self._prepend_leading_slash and name is not None and name.startswith("/") else name

    @property
    def size(self):
        """In bytes: what it was created with."""
        return self._size

    def close(self):
        """This object needs the memory no more; it stays for others. BufferError, and the object stays as it is, while
        there are views of `buf`."""
        if self._buf is None:
            return
        mapping = self._mmap
        try:
            self._buf.release()
        except BufferError:
            pass
        else:
            if not mapping.exports:
                self._buf = None
                self._unmap()
                return
            self._buf = memoryview(mapping)
        raise BufferError(f"{self!r} cannot be closed: there are views of its buf, such as slices or numpy arrays; "
                          "release or delete them first")

    def unlink(self):
        """Removes the name: to be called once, by whichever process. The memory goes with the last that has it."""
        with _naming:
            if self._path is None and self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                self._unlinked = True
                _nameless.discard(self)
                return
        name = self._name
        if not name:
            return
        _check(name)
        _posixshmem.shm_unlink(name)
        if self._registered_by == os.getpid():
            _tell_tracker("UNREGISTER", name)
        elif self._tracking is not False and resource_tracker._resource_tracker._fd is not None:
            # The creator may have the same tracker or another one: it is told what it forgets, lest it complains.
            _tell_tracker("REGISTER", name)
            _tell_tracker("UNREGISTER", name)


def _check(name):
    """Some releases of Python cut a name at the null."""
    if "\0" in name:
        raise ValueError("embedded null character")


class ShareableList(_ipc.ShareableList):
    """A list of int, float, bool, str, bytes and None in shared memory. It cannot grow, and neither can a string beyond
    the multiple of 8 bytes it was created with. Trailing zero bytes of a string are lost: the layout has no length."""

    def __init__(self, sequence=None, *, name=None):
        if name is not None and sequence is None:
            self._attach(SharedMemory(name))
            return
        items = [] if sequence is None else list(sequence)
        ends = [0, *accumulate(_room(item) for item in items)]
        header = struct.pack(f"{len(ends) + 1}q", len(items), *ends)
        shm = SharedMemory(name, create=True, size=len(header) + ends[-1] + 9 * len(items))
        try:
            shm.buf[:len(header)] = header
            self._attach(shm)
            for position, item in enumerate(items):
                self[position] = item
        except BaseException:
            shm.close()
            shm.unlink()
            raise

    def __reduce__(self):
        return partial(self.__class__, name=self.shm.name), ()

    def __repr__(self):
        return f"{self.__class__.__name__}({list(self)}, name={self.shm.name!r})"

    @property
    def format(self):
        """The items' formats, as struct knows them, one after the other."""
        return "".join(map(self._get_packing_format, range(len(self))))

    def count(self, value):
        """How many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value):
        """Where the first item is that equals `value`. ValueError when there is none."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} not in this container")

    __class_getitem__ = classmethod(GenericAlias)


def _room(item):
    """The bytes an item takes: a string can grow to the next multiple of 8, of its characters if they fit."""
    if not isinstance(item, (str, bytes)):
        return 8
    room = 8 * (len(item) // 8 + 1)
    size = len(item.encode()) if isinstance(item, str) else len(item)
    return room if size <= room else 8 * (size // 8 + 1)


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
