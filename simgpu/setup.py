"""Builds simgpu._C, the torch half of the simulated card, against the torch that is installed here (no CUDA toolkit),
and the card's NVML library, which knows nothing of torch: ``setup.py build_nvml --inplace`` builds that alone."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup  # before distutils, which it brings
from setuptools.command.build import build

from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip
from torch.utils.cpp_extension import BuildExtension, CppExtension

os.environ.setdefault("MAX_JOBS", "2")

HERE = Path(__file__).parent
PROFILES = HERE / "src" / "simgpu" / "profiles"
EXPORTS = HERE / "csrc" / "nvml" / "exports.map"  # NVML's names and ours, not the standard library's templates
# torch's headers warn by the page; the warnings kept are the ones our own files can cause.
FLAGS = ["-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas", "-Wno-interference-size"]


def sources(*folders: str) -> list[str]:
    return sorted(str(path.relative_to(HERE)) for folder in folders for path in (HERE / folder).glob("*.cpp"))


def table() -> Iterator[str]:
    """The built-in profiles, as initialisers of ``simgpu::nvml::Profile``."""
    for path in sorted(PROFILES.glob("*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        texts = ", ".join(json.dumps(text, ensure_ascii=False) for text in (path.stem, card["name"]))
        link = card["link"]
        numbers = [link["generation"], link["width"], card["power_limit_mw"], *card["compute_capability"]]
        yield f"{{{texts}, {card['memory_bytes']}ull, {', '.join(map(str, numbers))}}},\n"


class BuildNVML(Command):
    """Builds simgpu/lib/libnvidia-ml.so.1, which is no Python module and so no extension."""

    user_options: ClassVar = [("inplace", "i", "put the library into the source tree")]
    boolean_options: ClassVar = ["inplace"]

    def initialize_options(self) -> None:
        self.inplace = False
        self.editable_mode = False
        self.build_lib = None
        self.build_temp = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"), ("build_temp", "build_temp"))

    def get_source_files(self) -> list[str]:
        headers = [str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob("*.h")]
        return [*sources("csrc/nvml", "csrc/shared"), *headers, str(EXPORTS.relative_to(HERE))]

    def get_outputs(self) -> list[str]:
        return [str(self.folder() / "libnvidia-ml.so.1")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def folder(self) -> Path:
        base = HERE / "src" if self.inplace or self.editable_mode else Path(self.build_lib)
        return base / "simgpu" / "lib"

    def run(self) -> None:
        made = Path(self.build_temp) / "nvml"
        self.mkpath(str(made))
        (made / "profiles.inc").write_text("".join(table()), encoding="utf-8")
        tool = new_compiler()
        customize_compiler(tool)
        objects = tool.compile(
            sources("csrc/nvml", "csrc/shared"),
            output_dir=str(made),
            include_dirs=[str(HERE / "csrc"), str(made)],
            extra_postargs=["-std=c++17", "-Wextra", *FLAGS],
        )
        self.mkpath(str(self.folder()))
        tool.link_shared_object(
            objects,
            self.get_outputs()[0],
            target_lang="c++",
            extra_postargs=[
                "-Wl,-soname,libnvidia-ml.so.1",
                f"-Wl,--version-script={EXPORTS}",
                "-Wl,-z,defs",
                "-pthread",
            ],
        )


class Build(build):
    sub_commands: ClassVar = [*build.sub_commands, ("build_nvml", None)]


setup(
    ext_modules=[
        CppExtension(
            "simgpu._C",
            sources("csrc", "csrc/shared"),
            include_dirs=[str(HERE / "csrc")],
            extra_compile_args=FLAGS,
        )
    ],
    cmdclass={"build": Build, "build_ext": BuildExtension, "build_nvml": BuildNVML},
)
