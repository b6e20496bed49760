"""What ptxas makes of the fused filter (compute capability 9.0).

Compiles the kernel anew, by the command that the build directory's
compile_commands.json has for it.
"""

from __future__ import annotations

import collections
import json
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from check_tools import ROOT

SOURCE = ROOT / "gpu/compute/kernels/ExactFusedFilterKernel.cu"
#: Instructions of the whole kernel. Of a score, whose comparison is written out
#: 128 times, it is two where nothing passes and three more where something does.
MOST_INSTRUCTIONS = 4600


def compile_command() -> list[str]:
    for commands in sorted((ROOT / "build").glob("*/compile_commands.json")):
        for command in json.loads(commands.read_text()):
            if pathlib.Path(command["file"]).resolve() == SOURCE:
                return shlex.split(command["command"])
    pytest.skip("no build directory knows how the kernel is compiled")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pathlib.Path]:
    """What ptxas says, and the code."""
    command = compile_command()
    nvcc = next(
        (word for word in command if pathlib.Path(word).name == "nvcc"), "nvcc")
    if not shutil.which(nvcc):
        pytest.skip("no nvcc")
    cubin = tmp_path_factory.mktemp("fused") / "fused.cubin"
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
         "-Xptxas", "-v", "-o", str(cubin), str(SOURCE)],
        capture_output=True, text=True, check=True,
    )
    return done.stdout + done.stderr, cubin


def test_nothing_is_spilled(compiled: tuple[str, pathlib.Path]):
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", compiled[0])
    assert spilled and set(spilled) == {"0"}


def test_products_are_not_made_one_after_the_other(
        compiled: tuple[str, pathlib.Path]):
    assert not re.search(r"C75\d\d|serializ", compiled[0])


def test_there_are_few_instructions(compiled: tuple[str, pathlib.Path]):
    disassembler = shutil.which("cuobjdump") or shutil.which(
        "cuobjdump", path="/usr/local/cuda/bin")
    if not disassembler:
        pytest.skip("no cuobjdump")
    code = subprocess.run(
        [disassembler, "-sass", str(compiled[1])],
        capture_output=True, text=True, check=True,
    ).stdout
    counts: dict[str, collections.Counter[str]] = {}
    for line in code.splitlines():
        if found := re.search(r"Function : (\S+)", line):
            counts[found[1]] = collections.Counter()
        elif counts and (found := re.match(
                r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)",
                line)):
            counts[list(counts)[-1]][found[1]] += 1
    assert counts
    for name, count in counts.items():
        if "fusedFilterKernel" in name:
            assert count["HGMMA"] > 0
            assert sum(count.values()) <= MOST_INSTRUCTIONS
