"""Folders in which a `faiss` lies that distributions say they have brought."""

from __future__ import annotations

import importlib.util
import pathlib

#: A module `faiss` that goes on as the Faiss of this machine, in another folder.
FAISS = f"""
__path__ = {list(importlib.util.find_spec("faiss").submodule_search_locations)!r}
with open(__path__[0] + "/__init__.py") as text:
    exec(compile(text.read(), text.name, "exec"))
"""


def install(
    site: pathlib.Path, name: str, version: str, file: str = "faiss/__init__.py"
) -> None:
    """Let a distribution say that it has brought a file."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{file},,\n")
