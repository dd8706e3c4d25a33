"""Links that lead out of a workflow's directory.

`workflow/data/reads -> ../../reads` works where the workflow lies, but not in a copy. So a copy gets a
link to the same place, if jobs may read there.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import root_above

_LOOKED_AT = 50_000


class LinkRefused(Refused):
    """A link leads to a place that jobs may not read."""


def outside_target(link: Path, tree: Path, roots: Sequence[Path]) -> Path | None:
    """Where a relative link leads, if that is outside `tree`; None if a copy of the link works as it is.

    Raises `LinkRefused` if it leads out of all `roots`.
    """
    target = os.readlink(link)
    if os.path.isabs(target):
        return None
    lexically = Path(os.path.normpath(link.parent / target))
    if lexically.is_relative_to(tree):
        return None
    real = Path(os.path.realpath(link))
    if root_above(real, roots) is None:
        raise LinkRefused(
            f"the link '{link.relative_to(tree)}' leads to {real}, where jobs may not read",
            "Replace it by its content, or ask the operator to allow the place with JOBS_DATA_ROOTS.",
        )
    return real


def check_links(tree: Path, roots: Sequence[Path], skipped: frozenset[str]) -> None:
    """Raises `LinkRefused` for the first link that leads out of all `roots`.

    Looks at the first 50,000 entries only; staging looks at all.
    """
    for count, entry in enumerate(_entries(tree, skipped)):
        if count == _LOOKED_AT:
            return
        if entry.is_symlink():
            outside_target(Path(entry.path), tree, roots)


def _entries(directory: Path, skipped: frozenset[str]) -> Iterator["os.DirEntry[str]"]:
    waiting = [str(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = [entry for entry in entries if entry.name not in skipped]
        except OSError:  # staging names it
            continue
        yield from found
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
