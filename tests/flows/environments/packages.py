"""Packages that no index has, as a wheel or as source in a directory."""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path


def write_wheel(directory: Path, name: str, version: str, source: str) -> Path:
    """A wheel of one module, by the standard library alone."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{info}/RECORD,,"]
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join(lines) + "\n"
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


_NOSY_BACKEND = """
import os, zipfile

def build_wheel(directory, *_):
    name = "house_nosy-1.0-py3-none-any.whl"
    info = "house_nosy-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("house_nosy.py", f"SEEN = {sorted(os.environ)!r}")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: house_nosy\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
_NOSY_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "house_nosy"
version = "1.0"
"""


def write_nosy_source(directory: Path) -> None:
    """A package that must be built; its module lists the variables that the build has seen."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = "Metadata-Version: 2.1\nName: house_nosy\nVersion: 1.0\n"
    files = {"backend.py": _NOSY_BACKEND, "pyproject.toml": _NOSY_PROJECT, "PKG-INFO": metadata}
    with tarfile.open(directory / "house_nosy-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"house_nosy-1.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
