"""The examples run, in a process of their own, on stand-ins of the libraries that
they are about (stand_ins/). What stands in for the GPU is the simulator."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "examples"


@pytest.mark.parametrize("library", ["cupy", "torch", "jax"])
def test_arrays_of_a_library_are_searched_where_they_are(library):
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{library}_search.py", "300", "20", "8"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(HERE / "stand_ins"), str(HERE), os.environ["PYTHONPATH"]]),
            "CUDA_SIM_STRICT": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    said = done.stdout
    assert "20 queries among 300 vectors of 8 dimensions, k = 1" in said
    assert re.search(r"^\d+\.\d{3} ms per search$", said, re.MULTILINE)
    assert "0 bytes over the link per search" in said
    assert "100.0% of the queries, themselves vectors, found themselves" in said
    assert ("of PyTorch's memory Faiss holds {0: {'FlatData': (2, " in said) == (
        library == "torch")
