"""Replaces links into Snakemake's between-workflow cache by copies.

Snakemake moves an output into the cache and leaves a link to it, or links to a cached output
(`snakemake.caching.local`). A link can't be published, because it leads out of the job's directory.
And writing through it would change the output of every other job. A copy only costs disk space.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from snakemake.caching import LOCATION_ENVVAR


def part_from_cache(outputs: Iterable[str]) -> None:
    """Replace links into the cache by copies of their targets."""
    cache = os.environ.get(LOCATION_ENVVAR)
    if cache is None:
        return
    for link in _links(outputs):
        if Path(os.readlink(link)).is_relative_to(cache):
            partial = link.with_name(f".{link.name}.partial")
            if link.is_dir():
                shutil.copytree(
                    link, partial, symlinks=True, dirs_exist_ok=True
                )  # may exist, left by a killed process
                link.unlink()
                partial.rename(link)
            else:
                # The copy gets the current time, as the link did.
                shutil.copyfile(link, partial)
                partial.replace(link)


def _links(outputs: Iterable[str]) -> Iterator[Path]:
    """Outputs that are links, and links directly in outputs that are directories."""
    for output in map(Path, outputs):
        if output.is_symlink():
            yield output
        elif output.is_dir():
            yield from (entry for entry in list(output.iterdir()) if entry.is_symlink())
