"""Builds the package: everything that pyproject.toml cannot say.

One step is added to setuptools' build: CMake builds the native library, cffi translates its header, and both go into
localllm/_native with the header and the bundled model. An editable install puts library and translation into the
source tree and leaves header and model where they are. The wheel serves every Python 3 on its platform, since the
library is reached through its C ABI and not through Python's.

The build folder is new every time: a cache left by an earlier build names a compiler or a ninja in a temporary
environment that is gone. For quick rebuilds use cmake directly, see CONTRIBUTING.md.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).parent.resolve()
HEADER = ROOT / "native" / "include" / "localllm_abi.h"
MODEL = ROOT / "models" / "localllm-demo.gguf"


class NativeBuild(Command):
    description = "build the native library and what lies beside it"
    user_options: ClassVar[list] = []

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        package = (ROOT if self.editable_mode else Path(self.build_lib)) / "localllm"
        native = package / "_native"
        shutil.rmtree(native, ignore_errors=True)
        native.mkdir(parents=True)
        build_library(native / "liblocalllm.so")
        translate_header(native / "abi.py")
        if not self.editable_mode:
            shutil.copy(HEADER, native)
            (package / "models").mkdir(exist_ok=True)
            shutil.copy(MODEL, package / "models")

    def get_source_files(self):
        folders = ("native", "models", "cmake")
        return [str(p.relative_to(ROOT)) for f in folders for p in sorted((ROOT / f).rglob("*")) if p.is_file()]

    def get_outputs(self):
        package = Path(self.build_lib) / "localllm"
        native = [package / "_native" / name for name in ("liblocalllm.so", "abi.py", HEADER.name)]
        return [str(path) for path in [*native, package / "models" / MODEL.name]]

    def get_output_mapping(self):
        return {}


def build_library(target):
    """Configures and builds in a temporary folder; extra CMake options come from the variable CMAKE_ARGS."""
    ninja = shutil.which("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    with tempfile.TemporaryDirectory(prefix="localllm-build-") as folder:
        options = os.environ.get("CMAKE_ARGS", "").split()
        for command in (["-S", ROOT, "-B", folder, *generator, *options], ["--build", folder, "--parallel"]):
            if subprocess.run(["cmake", *command]).returncode:
                raise SystemExit("the native library was not built: the messages above say why")
        shutil.copy(Path(folder) / target.name, target)


def translate_header(target):
    """Writes the header as a Python module for cffi's ABI mode, stamped with the digest of what it was made from."""
    import cffi

    header = HEADER.read_bytes()
    ffi = cffi.FFI()
    ffi.cdef(header.decode())
    ffi.set_source("localllm._native.abi", None)
    ffi.emit_python_code(str(target))
    with target.open("a") as file:
        file.write(f'\nheader_sha256 = "{hashlib.sha256(header).hexdigest()}"\n')


class Build(build):
    sub_commands: ClassVar[list] = [*build.sub_commands, ("build_native", None)]

    def run(self):
        # What an earlier build left here would be packed again, modules deleted since included.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class Wheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build": Build, "build_native": NativeBuild, "bdist_wheel": Wheel},
)
