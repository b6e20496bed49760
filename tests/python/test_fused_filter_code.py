"""What ptxas makes of the fused filter."""

from __future__ import annotations

import collections
import re
import shutil
import subprocess

import pytest

from kernel_code import KERNELS, KernelCode, compile_kernels

SOURCE = KERNELS / "ExactFusedFilterKernel.cu"
#: Instructions of the whole kernel. Of a score, whose comparison is written out
#: 128 times, it is two where nothing passes and three more where something does.
MOST_INSTRUCTIONS = 4600


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> KernelCode:
    return compile_kernels(SOURCE, tmp_path_factory.mktemp("fused"))


def test_nothing_is_spilled(compiled: KernelCode):
    assert compiled.spilled() == {"0"}


def test_products_are_not_made_one_after_the_other(compiled: KernelCode):
    assert not re.search(r"C75\d\d|serializ", compiled.output)


def test_there_are_few_instructions(compiled: KernelCode):
    disassembler = shutil.which("cuobjdump") or shutil.which(
        "cuobjdump", path="/usr/local/cuda/bin")
    if not disassembler:
        pytest.skip("no cuobjdump")
    code = subprocess.run(
        [disassembler, "-sass", str(compiled.cubin)],
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
