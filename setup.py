"""Builds csrc/ with ninja; everything else is in pyproject.toml.

The kernels do not know torch, so this works under pip's build isolation. On x86 the CPU kernels are
compiled for AVX2, AVX-512 and AVX-512 with bfloat16, and the package loads the one that fits; CUDA
kernels are compiled where nvcc is found (MCLR_FAST_CUDA=0 leaves them out, =1 insists on them). Without
a compiler the package still installs and runs on plain torch; build.json says why. It also says what the
functions of mclr_fast.h take, so that Python's declarations are those of the libraries beside it.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CSRC = Path(__file__).parent.resolve() / "csrc"
LIB = Path("mclr_fast/ops/lib")
INCLUDE = [f"-I{CSRC / folder}" for folder in (".", "include", "common")]
CPU_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-fPIC",
    "-fno-math-errno",
    "-Wall",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
]
CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC", "--threads=2"]
CUDA_ARCHITECTURES = ("80", "90", "100")
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
}
if platform.machine().lower() not in ("x86_64", "amd64"):
    INSTRUCTION_SETS = {"generic": []}


def signatures() -> dict[str, str]:
    """name -> kinds of the result and the arguments of every C function: void, pointer, int64_t or float."""
    text = re.sub("//.*", "", (CSRC / "include/mclr_fast.h").read_text())
    found = {}
    for result, name, arguments in re.findall(r"(\w+) mclr_(\w+)\(([^)]*)\);", text):
        kinds = ["pointer" if "*" in a else a.split()[0] for a in arguments.split(",")]
        found[name] = " ".join([result, *kinds])
    return found


def ninja_file(compiler: str, flags: list[str], sources: list[Path], target: Path, link: list[str]) -> str:
    """One library: every source compiled by itself, then linked."""
    objects = [f"{source.stem}.o" for source in sources]
    lines = [
        "rule compile",
        f"  command = {compiler} {' '.join(flags + INCLUDE)} -c $in -o $out",
        "rule link",
        f"  command = {compiler} -shared $in -o $out {' '.join(link)}",
    ]
    lines += [f"build {name}: compile {source}" for name, source in zip(objects, sources, strict=True)]
    lines += [f"build {target}: link {' '.join(objects)}", ""]
    return "\n".join(lines)


def build(target: Path, compiler: str, flags: list[str], sources: list[Path], link: list[str]) -> str:
    """Build one library; an empty string, or what went wrong."""
    ninja = shutil.which("ninja")
    if ninja is None:
        return "ninja was not found"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "build.ninja").write_text(ninja_file(compiler, flags, sources, target, link))
        run = subprocess.run([ninja, "-C", folder], capture_output=True, text=True)
    return "" if run.returncode == 0 else run.stdout[-4000:]


class BuildKernels(build_ext):
    """The libraries of csrc/ and build.json, into mclr_fast/ops/lib/."""

    def build_extension(self, ext: Extension) -> None:
        folder = Path(self.build_lib, LIB).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        report = {"cpu": self._build_cpu(folder), "cuda": self._build_cuda(folder), "functions": signatures()}
        (folder / "build.json").write_text(json.dumps(report, indent=1) + "\n")

    def get_outputs(self) -> list[str]:
        return [str(path) for path in Path(self.build_lib, LIB).glob("*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {path: str(LIB / Path(path).name) for path in self.get_outputs()} if self.inplace else {}

    def copy_extensions_to_source(self) -> None:  # pip install -e
        shutil.rmtree(LIB, ignore_errors=True)
        LIB.mkdir(parents=True)
        for built, place in self.get_output_mapping().items():
            shutil.copy2(built, place)

    def _build_cpu(self, folder: Path) -> str:
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            return "no C++ compiler was found (looked for g++ and c++; CXX names another)"
        sources = sorted(CSRC.glob("*/*_cpu.cpp"))
        for name, flags in INSTRUCTION_SETS.items():
            target = folder / f"libmclr_fast_{name}.so"
            if problem := build(target, compiler, CPU_FLAGS + flags, sources, ["-fopenmp"]):
                return f"{compiler} failed: {problem}"
        return ""

    def _build_cuda(self, folder: Path) -> str:
        wish = os.environ.get("MCLR_FAST_CUDA", "")
        if wish not in ("", "0", "1"):
            raise SystemExit(f"MCLR_FAST_CUDA={wish!r} must be 0, 1 or unset.")
        if wish == "0":
            return "left out: MCLR_FAST_CUDA=0"
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            problem = "nvcc was not found"
        else:
            flags = CUDA_FLAGS + [f"-gencode=arch=compute_{a},code=sm_{a}" for a in CUDA_ARCHITECTURES]
            sources = sorted(CSRC.glob("*/*_cuda.cu"))
            target = folder / "libmclr_fast_cuda.so"
            # The CUDA runtime is linked in, so that the library needs nothing but the driver.
            problem = build(target, nvcc, flags, sources, ["-cudart=static"])
        if problem and wish == "1":
            raise SystemExit(f"MCLR_FAST_CUDA=1, but the CUDA kernels cannot be built: {problem}")
        return problem


class AnyPython(bdist_wheel):
    """A wheel for every Python: the libraries are loaded by ctypes and know neither it nor torch."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[Extension("mclr_fast.ops.lib.kernels", sources=[])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
)
