"""A conda channel in a directory, made by the standard library alone.

`greeter` 1.0 and 2.0: a shell tool that holds its prefix, which an installer must replace, and is
activated by a script. `dictionary`: its dependency. `impossible`: needs what no channel has.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLACEHOLDER = "/opt/" + "placehold_" * 9


def write_channel(directory: Path) -> Path:
    noarch, native = directory / "noarch", directory / "linux-64"
    for subdirectory in (noarch, native):
        subdirectory.mkdir(parents=True)
    packages = dict(
        [
            _package(noarch, "dictionary", "1.0", {"share/dictionary/hello": "Moin\n"}),
            *(_greeter(noarch, version) for version in ("1.0", "2.0")),
            _package(noarch, "impossible", "1.0", {"share/impossible": "\n"}, ["nowhere-to-be-had >=3"]),
        ]
    )
    for name, found in (("noarch", packages), ("linux-64", {})):
        index = {"info": {"subdir": name}, "packages": found, "packages.conda": {}, "repodata_version": 1}
        (directory / name / "repodata.json").write_text(json.dumps(index))
    return directory


def _greeter(noarch: Path, version: str) -> tuple[str, dict[str, Any]]:
    files = {
        "bin/greeter": f"#!/bin/sh\nexec cat {_PLACEHOLDER}/share/dictionary/$1\n",
        "share/greeter/version": f"{version}\n",
        "etc/conda/activate.d/greeter.sh": f"export GREETER_HOME={_PLACEHOLDER}/share/greeter\n",
    }
    return _package(noarch, "greeter", version, files, ["dictionary >=1"])


def _package(
    noarch: Path, name: str, version: str, files: Mapping[str, str], depends: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Write it; its file name, and its record in the channel's index."""
    index = {
        **{"arch": None, "build": "0", "build_number": 0, "depends": list(depends), "license": "MIT"},
        **{"name": name, "noarch": "generic", "platform": None, "subdir": "noarch"},
        **{"timestamp": 1_700_000_000_000, "version": version},
    }
    info = {
        "info/index.json": json.dumps(index),
        "info/files": "\n".join(files) + "\n",
        "info/paths.json": json.dumps(
            {"paths": [_path(path, text) for path, text in files.items()], "paths_version": 1}
        ),
        "info/about.json": "{}",
    }
    archive = noarch / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for path, text in {**info, **files}.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    data = archive.read_bytes()
    sums = {name: hashlib.new(name, data).hexdigest() for name in ("md5", "sha256")}
    return archive.name, index | sums | {"size": len(data)}


def _path(path: str, text: str) -> dict[str, Any]:
    data = text.encode()
    entry = {"_path": path, "path_type": "hardlink", "size_in_bytes": len(data)}
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    if _PLACEHOLDER in text:
        entry |= {"file_mode": "text", "prefix_placeholder": _PLACEHOLDER}
    return entry
