"""The distributions that have brought the module `faiss`: more than one, and they
have overwritten each other's files, which pip does not notice."""

from __future__ import annotations

import importlib.metadata
import pathlib


def owners(folder: pathlib.Path) -> list[tuple[str, str]]:
    """Names and versions of the installed distributions that have put files into
    this folder `faiss`. Only those of which the name begins so are looked at: an
    import is no time to read what all others have brought."""
    found = set()
    for path in folder.parent.glob("faiss*.dist-info"):
        distribution = importlib.metadata.PathDistribution(path)
        if any(str(file) == "faiss/__init__.py" for file in distribution.files or ()):
            metadata = distribution.metadata
            if metadata and "Name" in metadata and "Version" in metadata:
                found.add((metadata["Name"], metadata["Version"]))
    return sorted(found)


def mixture(folder: pathlib.Path) -> str | None:
    """One line that says that there are several, and the fix; None if not."""
    found = owners(folder)
    if len(found) < 2:
        return None
    told = " and ".join(map(" ".join, found))
    name, version = next((one for one in found if "gpu" in one[0]), found[0])
    return (
        f"{told} have put their files into the same folder, {folder}, and what came "
        f"later has overwritten the other's: `pip uninstall "
        f"{' '.join(name for name, _ in found)}`, then install the one that is "
        f"wanted, such as `pip install {name}=={version}`"
    )
