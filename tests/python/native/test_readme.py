"""The C++ example of the README is a program that runs; those in Python are run by
test_every_machine.py."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_the_cpp_example_is_the_program_that_the_consumer_test_runs():
    def words(text):
        # How lines are broken is clang-format's business.
        return re.sub(r"\s+", "", text)

    program = words((ROOT / "tests/consumer/consumer.cpp").read_text())
    blocks = re.findall(
        r"^```cpp\n(.*?)^```", (ROOT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        assert words(block) in program
