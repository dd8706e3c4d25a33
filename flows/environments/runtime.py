"""Puts our part of Snakemake's process where every workflow environment finds it.

It is a copy of `flows.snakemake_process` in a directory of its own: on the `sys.path` of an
environment, the service's own directory would offer `api`, `tests` and all else to a Snakefile.
"""

import shutil
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

_FLOWS = Path(__file__).parents[1]


@cache
def runtime_in(directory: Path) -> Path:
    """The copy below `directory`, named by its content. Made if it is not there."""
    files = [_FLOWS / "__init__.py", *sorted((_FLOWS / "snakemake_process").rglob("*.py"))]
    checksum = sha256()
    for file in files:
        checksum.update(f"{file.relative_to(_FLOWS)}\0".encode() + file.read_bytes())
    runtime = directory / f"runtime-{checksum.hexdigest()[:16]}"
    if not runtime.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="runtime.", dir=directory))
        partial.chmod(0o755)
        for file in files:
            copy = partial / "flows" / file.relative_to(_FLOWS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        try:
            partial.rename(runtime)
        except OSError:  # another process was quicker
            shutil.rmtree(partial)
    return runtime
