"""The type stubs say what the module is."""

import ast
import builtins
import inspect
import pathlib
import pydoc

import pytest

STUBS = ast.parse(
    (pathlib.Path(__file__).resolve().parents[3] / "faiss_ext/__init__.pyi").read_text()
)
CLASSES = {n.name: n for n in STUBS.body if isinstance(n, ast.ClassDef)}
FUNCTIONS = {
    n.name: n
    for n in STUBS.body
    if isinstance(n, ast.FunctionDef) and not n.name.startswith("__")
}


def parameters(stub):
    """Names and defaults of a function in the stubs."""
    arguments = stub.args
    positional = [a.arg for a in arguments.args]
    values = [ast.literal_eval(d) for d in arguments.defaults]
    found = dict.fromkeys(positional, inspect.Parameter.empty)
    found.update(zip(positional[len(positional) - len(values):], values))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        found[argument.arg] = ast.literal_eval(default)
    return found


def has_python_signature(function):
    """SWIG's own wrappers take *args."""
    return inspect.isfunction(function) and not any(
        p.kind is p.VAR_POSITIONAL
        for p in inspect.signature(function).parameters.values()
    )


def check(stub, function):
    real = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert parameters(stub) == real


def test_everything_that_we_export_has_a_stub(faiss_ext):
    from faiss_ext import native

    named = {n.target.id for n in STUBS.body if isinstance(n, ast.AnnAssign)}
    assert set(native.__all__) <= (CLASSES.keys() | FUNCTIONS.keys())
    for name in named | CLASSES.keys() | FUNCTIONS.keys():
        assert hasattr(faiss_ext, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_as_their_stubs_say(faiss_ext, name):
    check(FUNCTIONS[name], getattr(faiss_ext, name))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_as_their_stubs_say(faiss_ext, resources, name):
    real, stub = getattr(faiss_ext, name), CLASSES[name]
    for base in stub.bases:
        assert issubclass(
            real, getattr(faiss_ext, base.id, None) or getattr(builtins, base.id)
        )
    for item in stub.body:
        if isinstance(item, ast.FunctionDef):
            # Faiss' own methods of other classes differ with its version.
            of = faiss_ext.GpuIndexFlat if name == "Index" else real
            function = inspect.getattr_static(of, item.name)
            if has_python_signature(function) and item.name != "__init__":
                check(item, function)


def test_our_methods_all_have_stubs(faiss_ext):
    written = {i.name for name in ("Index", "GpuIndexFlat") for i in CLASSES[name].body
               if isinstance(i, ast.FunctionDef)}
    ours = {
        name
        for name, value in vars(faiss_ext.GpuIndexFlat).items()
        if inspect.isfunction(value)
        and value.__module__.startswith("faiss_ext.")
        and value.__module__ != "faiss_ext.swigfaiss_ext"
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
    for item in CLASSES["Index"].body:
        if isinstance(item, ast.FunctionDef) and item.name not in ("__init__", "reset"):
            function = getattr(the_class, item.name)
            text = pydoc.render_doc(function, renderer=pydoc.plaintext)
            for parameter in inspect.signature(function).parameters:
                assert parameter in text
            assert len(function.__doc__.strip().splitlines()) > 2, item.name


def test_the_package_says_that_it_is_typed(faiss_ext):
    assert (pathlib.Path(faiss_ext.__file__).parent / "py.typed").exists()
