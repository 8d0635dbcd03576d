"""Puts the implementation that CONFORMANCE_IMPL names (see impls.json) in the place of asyncio's loop or of the modules
concurrent.futures, multiprocessing, threading and queue: in the workers and, through sitecustomize, in every
interpreter the tests start."""
import importlib
import importlib.abc
import importlib.util
import json
import os
import sys
import types

NAME = os.environ.get("CONFORMANCE_IMPL", "asyncio")
WHAT = os.environ.get("CONFORMANCE_PATCH", "").split(",")
HERE = os.path.dirname(os.path.abspath(__file__))
loops_made = 0


def spec(name=None):
    with open(os.path.join(HERE, "..", "impls.json")) as f:
        table = json.load(f)
    try:
        return table[name or NAME]
    except KeyError:
        raise SystemExit(f"conformance: no implementation named {name or NAME!r}") from None


def first_module(names):
    err = None
    for n in names:
        try:
            return importlib.import_module(n)
        except ImportError as e:
            err = err or e
    raise err


def loop_factory(new, cls):
    """A class that stands for SelectorEventLoop: calling it makes a loop with new()."""
    class Meta(type):
        def __instancecheck__(self, instance):
            return isinstance(instance, cls)

        def __subclasscheck__(self, sub):
            return isinstance(sub, type) and (sub is self or issubclass(sub, cls))

    class LoopFactory(metaclass=Meta):
        def __new__(self, selector=None):
            global loops_made
            loops_made += 1
            return new()
    return LoopFactory


def patch_asyncio():
    """Makes asyncio's ways to a loop make one of the implementation, which has `new_event_loop` and `Loop`."""
    import asyncio
    from asyncio import unix_events
    module = importlib.import_module(spec()["loop"])
    factory = loop_factory(module.new_event_loop, module.Loop)
    for place in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(place, name):
                setattr(place, name, factory)
    policy = getattr(unix_events, "_UnixDefaultEventLoopPolicy", None)
    if policy is not None:
        policy._loop_factory = factory
    else:  # 3.16 has none
        asyncio.new_event_loop = asyncio.events.new_event_loop = lambda: factory()
    loop = asyncio.new_event_loop()
    loop.close()
    if not isinstance(loop, module.Loop):
        raise SystemExit(f"conformance: substitution failed, made a {type(loop)}")
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


def patch_test_asyncio():
    """test_asyncio's own tearDown reads loop._default_executor: says the same with public calls, or nearly every test
    would err on any other loop."""
    from test.test_asyncio import utils
    theirs = utils.TestCase.close_loop

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            return theirs(loop)
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    utils.TestCase.close_loop = staticmethod(close_loop)


class Overlay(types.ModuleType):
    """Names of the implementation's modules `layers` where they have them, else of the standard module."""

    def __init__(self, name, layers, std):
        super().__init__(name, std.__doc__)
        d = self.__dict__
        for k in ("__file__", "__path__", "__spec__", "__package__",
                  "__loader__", "__all__"):
            if hasattr(std, k):
                d[k] = getattr(std, k)
        d["_conformance_layers"] = layers
        d["_conformance_std"] = std
        for lay in layers:
            for k, v in vars(lay).items():
                if not k.startswith("_") and not isinstance(
                        v, types.ModuleType):
                    d.setdefault(k, v)

    def __getattr__(self, k):
        if not k.startswith("__"):
            for lay in self._conformance_layers:
                if k.startswith("_"):
                    break
                try:
                    v = getattr(lay, k)
                except AttributeError:
                    continue
                if not isinstance(v, types.ModuleType):
                    return v
        return getattr(self.__dict__["_conformance_std"], k)

    def __dir__(self):
        return sorted(set(dir(self._conformance_std)) | set(self.__dict__))


STD_SUBS = {
    "concurrent.futures": ["_base", "thread", "process", "interpreter"],
    "multiprocessing": ["pool", "queues", "synchronize", "shared_memory",
                        "connection", "sharedctypes", "managers", "context",
                        "process", "util", "heap", "dummy", "reduction",
                        "resource_tracker"],
    "threading": [], "queue": [],
}


_done = None


def patch_modules():
    """Puts overlays into sys.modules: {standard module: the implementation's}."""
    if _done is not None:
        return _done
    done = {}
    loaded = []
    wanted = STD_SUBS.keys() & WHAT     # "modules,queue": only queue
    for std, cands in spec().get("modules", {}).items():
        if wanted and std not in wanted:
            continue
        try:
            x = first_module(cands)
        except ImportError:
            continue
        stdmod = importlib.import_module(std)
        if not any(hasattr(x, n) for n in vars(stdmod)
                   if n[:1].isupper()):
            continue            # the fallback module has nothing of this kind
        for sub in STD_SUBS[std]:
            try:
                importlib.import_module(f"{std}.{sub}")
            except ImportError:
                pass
        loaded.append((std, x, stdmod))
    for std, x, stdmod in loaded:
        top = Overlay(std, [x], stdmod)
        for sub in STD_SUBS[std]:
            stdsub = sys.modules.get(f"{std}.{sub}")
            if stdsub is None:
                continue
            xsub = None
            try:
                xsub = importlib.import_module(f"{x.__name__}.{sub}")
            except ImportError:
                pass
            layers = [m for m in (xsub,) if m is not None]
            if std == "concurrent.futures":
                # only names which that stdlib submodule has itself
                only = types.ModuleType("only")
                for k in vars(stdsub):
                    if not k.startswith("_") and k in vars(x):
                        setattr(only, k, vars(x)[k])
                layers.append(only)
            if layers:
                ov = Overlay(f"{std}.{sub}", layers, stdsub)
                sys.modules[f"{std}.{sub}"] = ov
                top.__dict__[sub] = ov
            else:
                top.__dict__[sub] = stdsub
        sys.modules[std] = top
        parent, _, leaf = std.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, top)
        done[std] = x.__name__
    globals()["_done"] = done
    return done


class _AsyncioHook(importlib.abc.MetaPathFinder):
    """Patches asyncio right after its first import (child interpreters)."""

    def find_spec(self, name, path=None, target=None):
        if name != "asyncio":
            return None
        sys.meta_path.remove(self)
        s = importlib.util.find_spec(name)
        orig = s.loader.exec_module

        def exec_module(module):
            orig(module)
            patch_asyncio()
        s.loader.exec_module = exec_module
        return s


def install(child=False):
    info = {"impl": NAME}
    if "loop" in WHAT and "loop" in spec():
        if child and "asyncio" not in sys.modules:
            sys.meta_path.insert(0, _AsyncioHook())
        else:
            info["loop"] = patch_asyncio()
    if "modules" in WHAT and spec().get("modules"):
        info["modules"] = patch_modules()
    return info
