"""What ptxas makes of the exact engine's kernels, but for the fused filter's."""

from __future__ import annotations

import pathlib

import pytest

from kernel_code import KERNELS, compile_kernels

#: Kernels of a file: each takes seconds to compile.
MOST_KERNELS = {
    "ExactLossesKernel": 4,
    "ExactSelectLossesKernel": 1,
    "ExactScanCutKernel": 17,
    "ExactScanKernel": 14,
    "ExactScanResultsKernel": 4,
    "ExactTensorScanKernel": 9,
}


@pytest.mark.parametrize("name", MOST_KERNELS)
def test_nothing_is_spilled_and_kernels_are_few(name: str, tmp_path: pathlib.Path):
    code = compile_kernels(KERNELS / f"{name}.cu", tmp_path)
    assert code.spilled() == {"0"}
    assert 0 < len(code.kernels()) <= MOST_KERNELS[name]
