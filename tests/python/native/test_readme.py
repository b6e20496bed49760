"""The examples of the README run as they stand there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[3]


def blocks(language):
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} example in the README"
    return found


def test_python_examples_run(capsys):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "example"})
    assert "bytes_to_host" in capsys.readouterr().out


def test_the_cpp_example_is_the_program_that_the_consumer_test_runs():
    def words(text):
        # How lines are broken is clang-format's business.
        return re.sub(r"\s+", "", text)

    program = words((ROOT / "tests/consumer/consumer.cpp").read_text())
    for block in blocks("cpp"):
        assert words(block) in program
