"""Fetches the submodules of a git repository, from the places that their addresses lead to.

Their addresses are checked like that of the repository itself. One that can't be fetched is no error: the
workflow may not need it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from dulwich.config import ConfigFile, parse_submodules
from dulwich.objects import S_ISGITLINK, Blob, Commit, Tree
from dulwich.repo import Repo

from flows.contract.untrusted_tree import Refused, parts_of, shown
from flows.workspace.git_client import Transfer
from flows.workspace.git_fetching import fetch, translating_git_errors

MOST_SUBMODULES = 50
DEEPEST = 3
_LONGEST_FILE = 1 << 16
_WITH_USER = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^/].*)")
"""How git writes addresses for ssh: `git@host:owner/repository.git`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A directory of a repository, with what was fetched for its submodules."""

    repo: Repo
    tree: Tree
    submodules: Mapping[str, "Part | Refused"]
    """By path in the tree: the submodule, or why there is none."""


class Repositories:
    """The repositories of one checkout, below `directory`. Closes them at the end of its context."""

    def __init__(self, transfer: Transfer, directory: Path) -> None:
        self._transfer = transfer
        self._directory = directory
        self._numbers = count()
        self._submodules = count(1)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def fetch(self, address: str, ref: str | None, subdirectory: str, depth: int = 0) -> tuple[Commit, Part]:
        """The commit, and its `subdirectory` with all submodules. Raises `Refused`."""
        repo = self._open.enter_context(
            Repo.init_bare(self._directory / str(next(self._numbers)), mkdir=True)
        )
        commit = fetch(self._transfer, address, ref, repo)
        tree = _subtree(repo, commit, subdirectory)
        return commit, Part(repo, tree, dict(self._submodules_of(repo, commit, subdirectory, address, depth)))

    def _submodules_of(
        self, repo: Repo, commit: Commit, subdirectory: str, above: str, depth: int
    ) -> Iterator[tuple[str, Part | Refused]]:
        for path, url in _declared(repo, commit):
            place = "/".join(parts_of(path))
            inside = "".join(f"{part}/" for part in parts_of(subdirectory))
            linked = _linked(repo, commit, place)
            if linked is not None and place.startswith(inside):
                yield place.removeprefix(inside), self._fetched(above, url, linked, depth + 1)

    def _fetched(self, above: str, url: str, commit: str, depth: int) -> Part | Refused:
        try:
            if next(self._submodules) > MOST_SUBMODULES or depth > DEEPEST:
                raise Refused(f"a workflow can have {MOST_SUBMODULES} submodules, nested {DEEPEST} deep")
            address = address_of(url, above)
            with translating_git_errors(address, commit, self._transfer.credentials):
                return self.fetch(address, commit, ".", depth)[1]
        except Refused as refusal:
            return refusal


def address_of(url: str, above: str) -> str:
    """The address of a submodule, over https. `above` is that of its repository, for relative ones.

    Raises `Refused`.
    """
    if url.startswith(("./", "../")):
        base = urlsplit(above)
        parts = [part for part in base.path.split("/") if part]
        for part in url.split("/"):
            if part == ".." and not parts:
                raise Refused(f"its address {shown(url)} leads out of the server")
            parts = parts[:-1] if part == ".." else [*parts, *([part] if part not in ("", ".") else [])]
        return urlunsplit((base.scheme, base.netloc, "/" + "/".join(parts), "", ""))
    if (found := _WITH_USER.fullmatch(url)) is not None:
        return f"https://{found['host']}/{found['path']}"
    if url.startswith(("ssh://", "git://")):
        split = urlsplit(url)
        return f"https://{split.hostname}{split.path}"
    return url


def _declared(repo: Repo, commit: Commit) -> list[tuple[str, str]]:
    """Path and address of each submodule in `.gitmodules`; none if that file is malformed."""
    tree = repo[commit.tree]
    if not isinstance(tree, Tree) or b".gitmodules" not in tree:
        return []
    found = repo[tree[b".gitmodules"][1]]
    if not isinstance(found, Blob) or len(found.data) > _LONGEST_FILE:
        return []
    try:
        # Without includes: they would read files of this machine.
        config = ConfigFile.from_file(BytesIO(found.data), expand_includes=False)
        return [(path.decode(), url.decode()) for path, url, _ in parse_submodules(config)]
    except ValueError:
        return []


def _linked(repo: Repo, commit: Commit, path: str) -> str | None:
    """The commit that the repository names for the submodule at `path`."""
    directory, _, name = path.rpartition("/")
    tree = _tree_at(repo, commit, directory or ".")
    key = name.encode()
    if tree is None or key not in tree or not S_ISGITLINK(tree[key][0]):
        return None
    return tree[key][1].decode()


def _subtree(repo: Repo, commit: Commit, subdirectory: str) -> Tree:
    found = _tree_at(repo, commit, subdirectory)
    if found is None:
        raise Refused(
            f"the repository has no directory {shown(subdirectory)} at this commit",
            "Set `workflow.subdir` to the directory inside the repository that contains the workflow.",
        )
    return found


def _tree_at(repo: Repo, commit: Commit, path: str) -> Tree | None:
    found: object = repo[commit.tree]
    for part in parts_of(path):
        name = part.encode()
        is_there = isinstance(found, Tree) and name in found and S_ISDIR(found[name][0])
        found = repo[found[name][1]] if is_there and isinstance(found, Tree) else None
    return found if isinstance(found, Tree) else None
