"""Copies our code for Snakemake's process to a directory for the `sys.path` of workflow environments.

The directory only contains `flows.snakemake_process`. The service's own directory on `sys.path` would
let a Snakefile import `api`, `tests` and everything else.
"""

import shutil
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

_FLOWS = Path(__file__).parents[1]


@cache
def runtime_in(directory: Path) -> Path:
    """The copy below `directory`, named by a hash of its content. Created if necessary."""
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
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return runtime
