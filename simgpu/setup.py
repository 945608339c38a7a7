"""Builds simgpu._C, the C++ half of the simulated card, against the torch that is installed here (no CUDA toolkit)."""

import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

os.environ.setdefault("MAX_JOBS", "2")

HERE = Path(__file__).parent
SOURCES = sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").glob("*.cpp"))

setup(
    ext_modules=[
        CppExtension(
            "simgpu._C",
            SOURCES,
            include_dirs=[str(HERE / "csrc")],
            # torch's headers warn by the page; the warnings kept are the ones our own files can cause.
            extra_compile_args=[
                "-O2",
                "-g0",
                "-fvisibility=hidden",
                "-Wall",
                "-Wno-unknown-pragmas",
                "-Wno-interference-size",
            ],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
