"""What ptxas makes of a kernel's file (compute capability 9.0), compiled anew by
the command that the build directory's compile_commands.json has for it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from check_tools import ROOT

KERNELS = ROOT / "gpu/compute/kernels"


@dataclasses.dataclass
class KernelCode:
    #: What ptxas says.
    output: str
    cubin: pathlib.Path

    def spilled(self) -> set[str]:
        """Bytes spilled, as each kernel says it."""
        return set(re.findall(r"(\d+) bytes spill (?:stores|loads)", self.output))

    def kernels(self) -> list[str]:
        return re.findall(r"Compiling entry function '(\S+)'", self.output)


def compile_command(source: pathlib.Path) -> list[str]:
    for commands in sorted((ROOT / "build").glob("*/compile_commands.json")):
        for command in json.loads(commands.read_text()):
            if pathlib.Path(command["file"]).resolve() == source:
                return shlex.split(command["command"])
    pytest.skip("no build directory knows how the kernel is compiled")


def compile_kernels(source: pathlib.Path, folder: pathlib.Path) -> KernelCode:
    command = compile_command(source)
    nvcc = next(
        (word for word in command if pathlib.Path(word).name == "nvcc"), "nvcc")
    if not shutil.which(nvcc):
        pytest.skip("no nvcc")
    cubin = folder / f"{source.stem}.cubin"
    kept = []
    words = iter(command[command.index(nvcc) + 1:])
    for word in words:
        if word in ("-o", "-MF", "-MT", "-x"):
            next(words)
        elif word not in ("-c", "-MD") and pathlib.Path(word).suffix != ".cu" \
                and not word.startswith("--generate-code"):
            kept.append(word)
    done = subprocess.run(
        [nvcc, *kept, "-gencode", "arch=compute_90a,code=sm_90a", "-cubin",
         "-Xptxas", "-v", "-o", str(cubin), str(source)],
        capture_output=True, text=True, check=True,
    )
    return KernelCode(done.stdout + done.stderr, cubin)
