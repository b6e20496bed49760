"""A short run of the fuzzer of the array entry, always with the same inputs; `make
fuzz` makes long ones with others (tests/fuzz)."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FUZZER = HERE.parents[1] / "fuzz" / "fuzz_array_entry.py"


def test_the_array_entry_takes_or_refuses_whatever_it_is_given():
    # A process of its own: what it might find would end this one.
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, FUZZER, "--rounds", "2", "--seed", "1"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "(seeds 1 to 2)" in ran.stdout
