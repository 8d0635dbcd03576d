"""Builds the extension modules from csrc/; everything else is in pyproject.toml.

PYCONC_DEBUG=1     -O0 -g3 and asserts on
PYCONC_WERROR=1    warnings are errors (CI)
PYCONC_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer; =thread: ThreadSanitizer
PYCONC_LTO=0       no link-time optimisation
"""
import glob
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = {
    # module: (folders and files of csrc it is built from, library: pkg-config name and least version)
    "_core": (("base", "py", "sync", "pool", "loop", "net", "proc"), ("libuv", "1.44")),
    "_hash": (("base", "crew", "hash"), ("libcrypto", "3.0")),
    "_native": (("base", "crew", "native"), None),
    "_ipc": (("base", "py/arguments", "ipc"), None),
}
INSTALL_LINES = """\
    Debian, Ubuntu:  apt-get install build-essential pkg-config python3-dev libuv1-dev libssl-dev
    Fedora:          dnf install gcc pkgconf-pkg-config python3-devel libuv-devel openssl-devel
    macOS:           brew install pkgconf libuv openssl@3"""


def flag(name, default="0"):
    return os.environ.get(name, default) not in ("", "0")


def pkg_config(library, version):
    """Compiler and linker flags of a library, or an end with the line that installs it."""
    command = ["pkg-config", "--print-errors", f"{library} >= {version}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"pyconc: pkg-config is missing. Install it and the libraries with\n{INSTALL_LINES}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"pyconc needs {library} {version} or newer: {error.stderr.strip()}\n{INSTALL_LINES}")

    def ask(option):
        return shlex.split(subprocess.run(["pkg-config", option, library], check=True,
                                          capture_output=True, text=True).stdout)
    return ask("--cflags"), ask("--libs")


def compile_args():
    args = ["-std=gnu11", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra",
            "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wstrict-prototypes",
            "-Wmissing-prototypes"]
    if flag("PYCONC_SANITIZE"):
        args += ["-O1", "-g", "-UNDEBUG", f"-fsanitize={sanitizers()}", "-fno-omit-frame-pointer"]
    elif flag("PYCONC_DEBUG"):
        args += ["-O0", "-g3", "-UNDEBUG"]
    else:
        args += ["-O2", "-g1"]
        if flag("PYCONC_LTO", "1"):
            args.append("-flto=auto")
    if flag("PYCONC_WERROR"):
        args.append("-Werror")
    return args


def sanitizers():
    return "thread" if os.environ["PYCONC_SANITIZE"] == "thread" else "address,undefined"


def link_args():
    if flag("PYCONC_SANITIZE"):
        return [f"-fsanitize={sanitizers()}"]
    if flag("PYCONC_DEBUG") or not flag("PYCONC_LTO", "1"):
        return []
    return ["-flto=auto", "-O2"]


def extension(name, folders, library):
    cflags, libs = pkg_config(*library) if library else ([], [])
    sources = [f"csrc/mod/{name.lstrip('_')}.c"]
    for folder in folders:
        sources += sorted(glob.glob(f"csrc/{folder}/**/*.c", recursive=True)) or [f"csrc/{folder}.c"]
    return Extension(f"pyconc.{name}", sources, depends=glob.glob("csrc/**/*.h", recursive=True), include_dirs=["csrc"],
                     extra_compile_args=compile_args() + cflags, extra_link_args=link_args() + libs)


class ParallelBuild(build_ext):
    """setuptools compiles one file after the other; here all cores do."""

    def build_extensions(self):
        compile_one = self.compiler._compile

        def compile_all(sources, output_dir=None, macros=None, include_dirs=None, debug=0,
                        extra_preargs=None, extra_postargs=None, depends=None):
            macros, objects, extra, preprocess, todo = self.compiler._setup_compile(
                output_dir, macros, include_dirs, sources, depends, extra_postargs)
            flags = self.compiler._get_cc_args(preprocess, debug, extra_preargs)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for done in [pool.submit(compile_one, obj, *todo[obj], flags, extra, preprocess)
                             for obj in objects if obj in todo]:
                    done.result()
            return objects

        self.compiler.compile = compile_all
        super().build_extensions()


setup(ext_modules=[extension(name, *rest) for name, rest in MODULES.items()
                   if os.path.exists(f"csrc/mod/{name.lstrip('_')}.c")],
      cmdclass={"build_ext": ParallelBuild})
