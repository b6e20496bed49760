"""`python -m faiss_ext profile` where it cannot do its work: one line, before
any time is spent."""

from __future__ import annotations

import builtins
import os

import pytest

from faiss_ext.cli.commands import profile


def one_line(outcome) -> str:
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    return outcome.err


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(profile, "gpu_count", lambda: (0, "there is no GPU"))


@pytest.fixture
def never_measures(monkeypatch):
    def measured(*_):
        pytest.fail("time was spent")

    monkeypatch.setattr(profile, "_check_machine", lambda device: None)
    monkeypatch.setattr(profile, "_measure", measured)


def test_without_a_gpu(cli, no_gpu):
    line = one_line(cli("profile", "--json", "x.json"))
    assert line == "error: profile times searches on a GPU: there is no GPU\n"
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("argument", "value", "found"),
    [
        ("--n", "1,0", "got '1,0'"),
        ("--nb", "1e6", "got '1e6'"),
        ("--k", "", "got ''"),
        ("--d", "k", "got 'k'"),
        ("--metric", "l1", "expected l2 or ip"),
        ("--storage", "float32,half", "expected float32 or float16"),
        ("--device", "-1", "number of a GPU"),
        ("--repetitions", "0", "at least 1"),
        ("--seconds", "nan", "above 0"),
        ("--seconds", "soon", "above 0"),
    ],
)
def test_a_bad_argument(cli, argument, value, found):
    line = one_line(cli("profile", f"{argument}={value}"))
    assert argument in line and found in line


def test_a_picture_without_matplotlib(cli, monkeypatch, never_measures):
    import_module = builtins.__import__

    def no_matplotlib(name, *args, **options):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name, name="matplotlib")
        return import_module(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    line = one_line(cli("profile", "--picture", "x.png"))
    assert "needs Matplotlib" in line and "pip install matplotlib" in line


def test_a_picture_of_an_unknown_format(cli, never_measures):
    line = one_line(cli("profile", "--picture", "x.docx"))
    assert "'.docx'" in line and ".png" in line and ".svg" in line


@pytest.mark.parametrize("output", ["--json", "--trace", "--picture"])
def test_an_output_in_no_folder(cli, never_measures, output):
    line = one_line(cli("profile", output, "none/x.png"))
    assert line.startswith("error: cannot write none/x.png")


def test_lists_make_every_combination_by_database():
    from faiss_ext.cli.arguments import counts
    from faiss_ext.profiling.cases import Case, all_cases

    assert counts("1,100,10k,2M") == [1, 100, 10_000, 2_000_000]
    cases = all_cases([5, 6], [8], ["l2"], ["float32"], [1, 2], [3])
    assert [(c.nb, c.n, c.k) for c in cases] == [
        (5, 1, 3), (5, 2, 3), (6, 1, 3), (6, 2, 3)
    ]
    assert str(cases[0]) == "n 1, k 3, nb 5, d 8, l2, float32"
    # What a database is made for comes first.
    assert Case._fields[:4] == ("nb", "d", "metric", "storage")
