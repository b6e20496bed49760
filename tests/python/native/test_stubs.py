"""The type stubs say what the module is."""

import ast
import inspect
import os
import pathlib
import pydoc
import re
import subprocess
import sys

import faiss
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "faiss_ext"
STUBS = {
    name: ast.parse((FOLDER / f"{name}.pyi").read_text())
    for name in ("__init__", "_with_native", "_native/swigfaiss_ext")
}
CLASSES = {
    node.name: node
    for name in ("_with_native", "_native/swigfaiss_ext")
    for node in STUBS[name].body
    if isinstance(node, ast.ClassDef)
}
#: What stubtest may say: what stubs need not tell, or cannot for each Faiss.
EXPECTED = (
    # Of the class that lets Faiss' objects count as ours (_index/classes.py).
    r"_with_native\.\w+ is inconsistent, metaclass differs",
    # Faiss' own have no use for users.
    r"_with_native\.GpuIndex(IVF)?\.__init__ is inconsistent, stub does not have \*args .*",
    # Flat ones take them by place too, as contrib.torch_utils does.
    r"_with_native\.GpuIndexFlat\w*\.search_and_reconstruct is inconsistent, "
    r"runtime parameter \"[DIR]\" is not keyword-only",
    # Tuples of classes of Faiss, of which its stubs do not know the metaclass.
    r"[\w.]+\._[A-Z]+ variable differs from runtime type tuple\[type, type\]",
    # Faiss 1.7.3 has none.
    r"_with_native\.GpuIndex\w*\.reconstruct_n is inconsistent, stub parameter \"n[0i]\" "
    "has a default value but runtime parameter does not",
    r"contrib\.(cupy|rmm|torch)_interop failed to import\..*",
    # What a functools.cache takes.
    r"_gpus\._count_once is inconsistent, runtime does not have \*.*",
)


def shown_by(module):
    """The names that a stub of the package shows."""
    shown = set()
    for node in STUBS[module].body:
        if isinstance(node, ast.ImportFrom) and node.module == "_with_native":
            shown |= shown_by("_with_native")
        elif isinstance(node, ast.ImportFrom):
            shown |= {alias.asname for alias in node.names} - {None}
        elif isinstance(node, ast.AnnAssign):
            shown.add(node.target.id)
        elif isinstance(node, ast.Assign):
            shown |= {target.id for target in node.targets}
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            shown.add(node.name)
    return {n for n in shown if not n.startswith("_") or n == "__version__"}


def run_stubtest(folder, *modules, **environment):
    """What stubtest says of the modules, line by line."""
    settings = folder / "mypy.ini"
    # The other two are said of stubs that use an untyped Faiss, about Faiss.
    settings.write_text(
        "[mypy]\nignore_missing_imports = True\n"
        "disable_error_code = overload-cannot-match, misc\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *modules, "--concise",
         "--ignore-missing-stub", "--mypy-config-file", settings],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, **environment},
    )
    assert not done.stderr or "Warning" in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_module_is_what_the_stubs_say(faiss_ext, in_own_folder):
    wrong = [
        line for line in run_stubtest(in_own_folder, "faiss_ext")
        if not any(
            re.fullmatch(rf"faiss_ext\.{expected}", line) for expected in EXPECTED
        )
        # Faiss' own stubs, where it has some, are Faiss' business.
        and not is_of_faiss(line)
    ]
    assert not wrong, "\n".join(wrong)


def is_of_faiss(line):
    """Whether it is about a class, or a method of one of ours, that our stubs
    leave to those of Faiss."""
    name, _, member = re.match(
        r"faiss_ext\.(?:_with_native\.)?(\w+)(\.(\w+))?", line
    ).groups(default="")
    if name in CLASSES:
        methods = (i for c in CLASSES.values() for i in c.body)
        return hasattr(faiss, name) and member not in {
            i.name for i in methods if isinstance(i, ast.FunctionDef)
        } | {""}
    return hasattr(faiss, name) and name not in shown_by("__init__")


def test_stubtest_sees_what_is_wrong(in_own_folder):
    # (Not of the package: a made-up module of one function.)
    (in_own_folder / "lies.py").write_text("def search(x, k): ...\n")
    (in_own_folder / "lies.pyi").write_text("def search(x: int, n: int) -> None: ...\n")
    said = run_stubtest(in_own_folder, "lies", PYTHONPATH=str(in_own_folder))
    assert any("lies.search is inconsistent" in line for line in said), said


def test_everything_that_we_export_has_a_stub(faiss_ext):
    ours = {
        name for name in faiss_ext._ours._names
        # What Faiss has, and its stubs with it, is typed by these.
        if not hasattr(faiss, name)
    } | {"has_native", "native_problem", "__version__"}
    assert ours <= shown_by("__init__")
    for name in shown_by("__init__"):
        assert hasattr(faiss_ext, name), name


def test_our_methods_all_have_stubs(faiss_ext):
    written = {
        item.name
        for name in ("GpuIndex", "GpuIndexFlat")
        for item in CLASSES[name].body
        if isinstance(item, ast.FunctionDef)
    }
    ours = {
        name
        for name, value in vars(faiss_ext.GpuIndexFlat).items()
        if inspect.isfunction(value)
        and value.__module__.startswith("faiss_ext.")
        and value.__module__ != "faiss_ext._native.swigfaiss_ext"
    }
    assert ours > {"search", "transfer_stats", "reconstruct"}
    assert ours <= written


def test_every_member_of_the_config_has_a_stub(faiss_ext):
    told = {n.target.id for n in CLASSES["StagedConfig"].body
            if isinstance(n, ast.AnnAssign)}
    made = {name for name, member in vars(faiss_ext.StagedConfig).items()
            if isinstance(member, property) and name not in ("this", "thisown")}
    assert told == made


@pytest.mark.parametrize("name", ["GpuIndexFlatL2", "GpuIndexIVFFlat", "IndexFlatL2"])
def test_every_method_has_help_that_names_its_arguments(faiss_ext, name):
    the_class = getattr(faiss_ext, name)
    for item in CLASSES["GpuIndex"].body:
        if isinstance(item, ast.FunctionDef) and item.name not in ("__init__", "reset"):
            function = getattr(the_class, item.name)
            text = pydoc.render_doc(function, renderer=pydoc.plaintext)
            for parameter in inspect.signature(function).parameters:
                assert parameter in text
            assert len(function.__doc__.strip().splitlines()) > 2, item.name
