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


def first_attr(mod, names):
    for n in names:
        if hasattr(mod, n):
            return getattr(mod, n)
    return None


class LoopSpec:
    """new(): a loop; cls: its class; policy: a policy class or None."""

    def __init__(self, name=None):
        import asyncio
        s = spec(name).get("loop")
        if s is None:                                   # plain asyncio
            self.module, self.new = asyncio, asyncio.SelectorEventLoop
            self.cls = asyncio.SelectorEventLoop
            self.policy = first_attr(asyncio, ["_DefaultEventLoopPolicy",
                                               "DefaultEventLoopPolicy"])
            return
        self.module = first_module(s["module"])
        self.new = first_attr(self.module, s["new"])
        self.cls = first_attr(self.module, s["class"])
        self.policy = first_attr(self.module, s["policy"])
        if self.new is None and self.cls is not None:
            self.new = self.cls
        if self.new is None:
            raise SystemExit(f"conformance: {self.module.__name__} has no way to "
                             f'make a loop (tried {s["new"]}, {s["class"]})')
        if not isinstance(self.cls, type):
            loop = self.new()
            self.cls = type(loop)
            loop.close()


def make_factory(ls):
    """A class standing for SelectorEventLoop: calling it makes an X loop."""
    class _Meta(type):
        def __instancecheck__(cls, obj):
            return isinstance(obj, ls.cls)

        def __subclasscheck__(cls, sub):
            return isinstance(sub, type) and (
                sub is cls or issubclass(sub, ls.cls))

    class LoopFactory(metaclass=_Meta):
        def __new__(cls, selector=None):
            global loops_made
            loops_made += 1
            return ls.new()
    return LoopFactory


def patch_asyncio():
    import asyncio
    import asyncio.unix_events as ue
    if "loop" not in spec():
        return None
    ls = LoopSpec()
    fac = make_factory(ls)
    pol = getattr(ue, "_UnixDefaultEventLoopPolicy", None)
    if pol is not None:
        pol._loop_factory = fac
    for mod in (asyncio, ue):
        for n in ("SelectorEventLoop", "EventLoop"):
            if hasattr(mod, n):
                setattr(mod, n, fac)
    if pol is None:             # 3.16 and later: no policies
        def new_event_loop():
            return fac()
        asyncio.new_event_loop = asyncio.events.new_event_loop = new_event_loop
    loop = asyncio.new_event_loop()
    got = type(loop)
    loop.close()
    if not isinstance(loop, ls.cls):
        raise SystemExit(f"conformance: substitution failed, made a {got}")
    return got.__module__ + "." + got.__qualname__


def patch_test_asyncio():
    """test_asyncio's own tearDown reads loop._default_executor: say the same
    with public calls, or nearly every test errs on any other loop."""
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
    """Names from X where X has them, else from the stdlib module."""

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
    """sys.modules substitution.  Returns {stdlib name: X module name}."""
    if _done is not None:
        return _done
    done = {}
    loaded = []
    for std, cands in spec().get("modules", {}).items():
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
