"""Paths of sockets: the address of a socket holds 107 bytes, and a home directory may be deeper."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

_LONGEST_PATH = 107  # sun_path in sockaddr_un, without the final zero


def short_path(directory: Path, socket: str, stack: ExitStack) -> Path:
    """A path of `directory` with which the address of `socket` in it fits; a link until `stack` ends."""
    if len(os.fsencode(directory / socket)) <= _LONGEST_PATH:
        return directory
    closed = stack.enter_context(tempfile.TemporaryDirectory(prefix="prefect-snakemake-"))
    link = Path(closed) / directory.name
    link.symlink_to(directory)
    return link
