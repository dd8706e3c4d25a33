"""Workflows from git repositories, without the `git` program: checks out a commit.

`flows.contract.addresses` checks the URL, `flows.contract.untrusted_tree` the files, and
`flows.workspace.git_client` what only a connection shows.
"""

import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_IXUSR

from dulwich.objects import S_ISGITLINK, Blob, Tree

from flows.contract.addresses import GitSettings
from flows.contract.untrusted_tree import (
    Directory,
    Entry,
    File,
    Refused,
    Symlink,
    TreeLimits,
    shown,
    write_tree,
)
from flows.workspace.git_client import Transfer
from flows.workspace.git_credentials import NO_CREDENTIALS, Credentials
from flows.workspace.git_fetching import translating_git_errors
from flows.workspace.submodules import Part, Repositories

LFS_POINTER = "version https://git-lfs.github.com/spec/"
_NAMED = 20


class CheckoutSettings(GitSettings, TreeLimits):
    """The limits of a checkout."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit whose files were written."""

    commit: str
    notes: tuple[str, ...]
    """Differences from the repository."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """What a checkout lacks."""

    submodules: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    """Files whose content is in Git LFS."""

    def notes(self) -> tuple[str, ...]:
        if not self.pointers:
            return tuple(self.submodules)
        named = ", ".join(map(shown, self.pointers[:_NAMED]))
        others = f" and {len(self.pointers) - _NAMED} more" if len(self.pointers) > _NAMED else ""
        lfs = (
            f"The content of these files is in Git LFS and is not fetched, they are pointers only: {named}"
            f"{others}. Send the workflow as a bundle (PUT /bundles) if it needs them."
        )
        return (*self.submodules, lfs)


def check_out(
    address: str,
    ref: str | None,
    subdirectory: str,
    directory: Path,
    settings: CheckoutSettings,
    left_out: Container[str] = (),
    credentials: Credentials = NO_CREDENTIALS,
) -> Checkout:
    """Write the files of a commit to `directory`, which must not exist yet. Leaves no files of git.

    Raises `Refused`, and `flows.secret_blocks.SecretUnusable` for a credential.
    """
    repositories = directory.with_suffix(".git")
    shutil.rmtree(repositories, ignore_errors=True)
    repositories.mkdir()
    try:
        transfer = Transfer(settings, credentials)
        with (
            translating_git_errors(address, ref, credentials),
            Repositories(transfer, repositories) as fetched,
        ):
            with transfer:
                commit, part = fetched.fetch(address, ref, subdirectory)
            missing = _Missing()
            write_tree(_entries(part, part.tree, "", "", missing), directory, settings, left_out)
            return Checkout(commit.id.decode(), missing.notes())
    finally:
        shutil.rmtree(repositories, ignore_errors=True)


def _entries(part: Part, tree: Tree, path: str, above: str, missing: _Missing) -> Iterator[Entry]:
    """What is in `tree`, which is at `path` of the part; `above` comes before it in the workflow."""
    for item in tree.iteritems():
        place = path + item.path.decode(errors="surrogateescape")
        name = above + place
        if S_ISGITLINK(item.mode):
            yield Directory(name)
            yield from _entries_of_submodule(part.submodules.get(place), name, missing)
            continue
        found = part.repo[item.sha]
        if S_ISDIR(item.mode) and isinstance(found, Tree):
            yield Directory(name)
            yield from _entries(part, found, f"{place}/", above, missing)
        elif S_ISLNK(item.mode) and isinstance(found, Blob):
            yield Symlink(name, found.data.decode(errors="surrogateescape"))
        elif isinstance(found, Blob):
            if found.data.startswith(LFS_POINTER.encode()):
                missing.pointers.append(name)
            yield File(name, bool(item.mode & S_IXUSR), partial(iter, found.chunked))
        else:
            raise Refused(f"{shown(name)} has another type than the repository states")


def _entries_of_submodule(submodule: Part | Refused | None, name: str, missing: _Missing) -> Iterator[Entry]:
    if isinstance(submodule, Part):
        yield from _entries(submodule, submodule.tree, "", f"{name}/", missing)
    else:
        reason = submodule or "`.gitmodules` does not say where it is"
        missing.submodules.append(f"{shown(name)} is a submodule and stays empty: {reason}.")
