"""The wheel without the native part, the source distribution, the metadata.

What is in the wheel that lies beside Faiss', and that it works, is seen by `make
test-wheel` (tests/wheel).
"""

from __future__ import annotations

import ast
import email.message
import email.parser
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable

import pytest

from conftest import ROOT

VERSION = (ROOT / "VERSION").read_text().strip()


def build(kind: str, source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Let the build backend make what pip would ask it for, without CMake."""
    folder.mkdir()
    call = f"build_{kind}({os.fspath(folder)!r}, {{'wheel.cmake': 'false'}})"
    subprocess.run(
        [sys.executable, "-c", f"from scikit_build_core.build import *; {call}"],
        cwd=source,
        check=True,
    )
    (made,) = folder.iterdir()
    return made


def files(folder: str, *patterns: str) -> set[str]:
    """Files of the checkout, as paths in it. What a link leads to is there under
    the name of the link."""
    found = set()
    for top, _, names in os.walk(ROOT / folder, followlinks=True):
        if not top.endswith("__pycache__"):
            found |= {pathlib.Path(top, name) for name in names}
    return {
        str(path.relative_to(ROOT))
        for path in found
        if any(path.match(pattern) for pattern in patterns)
    }


def contents(wheel: pathlib.Path) -> set[str]:
    """Files of a wheel, but not those about it."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def requirement_name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel") / "made")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist") / "made")


@pytest.fixture(scope="module")
def metadata(wheel: pathlib.Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"faiss_ext-{VERSION}.dist-info/METADATA").decode()
    return email.parser.Parser().parsestr(text)


def test_without_its_native_part_it_is_for_every_machine(wheel):
    assert wheel.name == f"faiss_ext-{VERSION}-py3-none-any.whl"


def test_the_wheel_holds_the_python_package_and_nothing_else(wheel):
    expected = files("faiss_ext", "*.py", "*.pyi", "py.typed") | {
        f"faiss_ext/{name}" for name in files("contrib", "*.py")
    }
    assert "faiss_ext/contrib/__init__.py" in expected
    assert contents(wheel) == expected


def test_the_source_distribution_holds_what_a_build_needs_and_nothing_else(sdist):
    top = f"faiss_ext-{VERSION}/"
    names = {name.removeprefix(top) for name in tarfile.open(sdist).getnames()}
    alone = ("CHANGELOG.md", "CMakeLists.txt", "CONTRIBUTING.md", "LICENSE", "README.md", "VERSION",
             "pyproject.toml")
    sources = {name for folder in ("contrib", "docs", "faiss_ext", "gpu")
               for name in files(folder, "*")}
    cmake = {p for p in files("cmake", "*") if not re.match("cmake/(setup|conda)/", p)}
    assert names == {"PKG-INFO", *alone} | sources | cmake


def test_the_source_distribution_builds_the_same_wheel(sdist, wheel, tmp_path):
    tarfile.open(sdist).extractall(tmp_path)
    again = build("wheel", tmp_path / f"faiss_ext-{VERSION}", tmp_path / "made")
    assert again.name == wheel.name and contents(again) == contents(wheel)


def test_the_metadata_tell_what_it_is(metadata):
    assert metadata["Name"] == "faiss_ext" and metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()


def test_the_licence_goes_along(wheel, metadata):
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"faiss_ext-{VERSION}.dist-info/licenses/LICENSE")
    assert text == (ROOT / "LICENSE").read_bytes()
    assert b"Copyright (c) the faiss_ext authors" in text


def test_the_metadata_name_nobody_and_no_address_that_is_not_there(metadata):
    assert metadata["Author"] == "the faiss_ext authors"
    for field in ("Author-email", "Maintainer", "Project-URL", "Home-page"):
        assert metadata[field] is None


def test_the_command_is_a_script_too(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"faiss_ext-{VERSION}.dist-info/entry_points.txt").decode()
    assert "".join(text.split()) == (
        "[console_scripts]faiss-ext=faiss_ext.__main__:main")


def test_every_library_that_is_imported_is_required(metadata):
    required, optional = set(), set()
    for text in metadata.get_all("Requires-Dist"):
        (optional if "extra ==" in text else required).add(requirement_name(text))
    trees = [ast.parse(p.read_text()) for folder in ("faiss_ext", "contrib")
             for p in (ROOT / folder).rglob("*.py")]
    always = {name for tree in trees for name in libraries(tree.body)}
    somewhere = {name for tree in trees for name in libraries(ast.walk(tree))}
    assert "numpy" in always and always <= required
    assert somewhere <= required | optional


def libraries(nodes: Iterable[ast.AST]) -> set[str]:
    """What these statements import that is neither Python's nor Faiss."""
    imported = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(node.module.partition(".")[0])
    return imported - sys.stdlib_module_names - {"faiss", "faiss_ext"}


def test_the_recipe_for_conda_is_of_this_version():
    recipe = (ROOT / "cmake" / "conda" / "recipe.yaml").read_text()
    (version,) = re.findall(r'^  version: "(.*)"$', recipe, re.MULTILINE)
    assert version == (ROOT / "VERSION").read_text().strip()
