"""Bundles: what goes in comes out, and what may not come in is refused, whether it is checked or unpacked."""

import gzip
import io
import os
import resource
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.contract.bundles import BundleLimits, NotAnArchive, check_bundle, unpack_bundle
from flows.contract.untrusted_tree import Contents, Refused
from tests.flows.archives import (
    ATTACKS,
    HELLO,
    encrypted,
    hard_link,
    link,
    member,
    tar,
    tar_gz,
    zip_entry,
    zip_link,
    zipped,
)

LIMITS = BundleLimits(workflow_max_entries=200, workflow_max_bytes=4 << 20, bundle_max_ratio=20)

NAMES = st.text("abcé .-_", min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=2000), st.booleans()), min_size=1, max_size=12)


def unpack(archive: bytes, directory: Path, limits: BundleLimits = LIMITS, **more: str) -> Contents:
    return unpack_bundle(io.BytesIO(archive), directory, limits, **more)


def check(archive: bytes, limits: BundleLimits = LIMITS) -> Contents:
    return check_bundle(io.BytesIO(archive), limits)


def tree(directory: Path) -> dict[str, tuple[bytes, bool]]:
    """Content and whether it is executable, of every file."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
        for path in directory.rglob("*")
        if path.is_file()
    }


def conflicts(paths: list[str]) -> bool:
    """Whether one of the paths lies below another."""
    known = {PurePosixPath(path) for path in paths}
    return any(above in known for path in known for above in path.parents)


@pytest.mark.parametrize("pack", ["tar", "tar.gz", "zip"])
@given(files=FILES)
def test_what_is_packed_comes_out_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, pack: str, files: dict[str, tuple[bytes, bool]]
) -> None:
    if conflicts(list(files)):
        return
    if pack == "zip":
        archive = zipped(
            *(
                (zip_entry(name, stat.S_IFREG | (0o755 if executable else 0o644)), content)
                for name, (content, executable) in files.items()
            )
        )
    else:
        archive = (tar if pack == "tar" else tar_gz)(
            *(
                member(name, content, mode=0o755 if executable else 0o644)
                for name, (content, executable) in files.items()
            )
        )
    directory = tmp_path_factory.mktemp("unpacked") / "work"

    assert check(archive) == unpack(archive, directory)
    assert tree(directory) == files


def test_what_tar_and_zip_pack_of_a_real_directory_comes_out_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "scripts").mkdir(parents=True)
    (source / "Snakefile").write_bytes(HELLO)
    (source / "scripts" / "map.sh").write_text("#!/bin/sh\n")
    (source / "scripts" / "map.sh").chmod(0o755)
    (source / "latest").symlink_to("scripts/map.sh")
    os.link(source / "Snakefile", source / "same")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(source, ".")

    assert unpack(packed.getvalue(), tmp_path / "work") == Contents(files=4, size_bytes=20)

    assert tree(tmp_path / "work") == tree(source)
    assert (tmp_path / "work" / "latest").readlink() == Path("scripts/map.sh")
    assert (tmp_path / "work" / "same").stat().st_nlink == 2


def test_neither_owners_nor_special_bits_come_out(tmp_path: Path) -> None:
    unpack(tar(member("tool", HELLO, mode=0o6777, uid=12345)), tmp_path / "work")

    status = (tmp_path / "work" / "tool").stat()
    assert status.st_uid == os.getuid()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)


def test_links_inside_the_tree_are_kept_even_if_they_lead_nowhere_yet(tmp_path: Path) -> None:
    unpack(tar(member("a/b/x", HELLO), link("a/up", "../a/b"), link("later", "results/x")), tmp_path / "tar")
    unpack(zipped(("a/b/x", HELLO), zip_link("a/up", "../a/b")), tmp_path / "zip")

    for kind in ("tar", "zip"):
        assert (tmp_path / kind / "a" / "up" / "x").read_bytes() == HELLO
    assert (tmp_path / "tar" / "later").readlink() == Path("results/x")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_when_it_is_checked_and_when_it_is_unpacked(tmp_path: Path, attack: str) -> None:
    make, reason = ATTACKS[attack]
    archive = make()

    with pytest.raises(Refused) as checked:
        check(archive)
    assert reason in str(checked.value)
    assert checked.value.resolution
    assert str(checked.value).isprintable()
    if "no file at all" in attack or "empty" in attack:
        return  # harmless to write
    with pytest.raises(Refused) as unpacked:
        unpack(archive, tmp_path / "work")
    assert str(unpacked.value) == str(checked.value)
    assert {path.name for path in tmp_path.iterdir()} == {"work"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"x", b"#!/bin/sh\n", b"7z\xbc\xaf\x27\x1c", bytes(2000)])
def test_what_is_no_archive_is_told_apart(content: bytes) -> None:
    with pytest.raises(NotAnArchive):
        check(content)


@pytest.mark.parametrize("pack", ["tar", "zip"])
def test_too_many_entries_are_refused(pack: str) -> None:
    names = [f"f{number}" for number in range(201)]
    archive = (
        tar(*(member(name) for name in names)) if pack == "tar" else zipped(*((name, b"") for name in names))
    )
    with pytest.raises(Refused, match="more than 200 files"):
        check(archive)


def test_directories_that_are_only_implied_count_as_well() -> None:
    with pytest.raises(Refused, match="more than 200 files"):
        check(tar(*(member(f"d{number}/" + "x/" * 40 + "f") for number in range(6))))


def test_a_long_table_of_contents_is_refused_before_it_is_read() -> None:
    limits = LIMITS.model_copy(update={"workflow_max_entries": 10})
    with pytest.raises(Refused, match="central directory"):
        check(zipped(*((f"f{number:0100}", b"") for number in range(2000))), limits)


@pytest.mark.parametrize("pack", ["tar", "zip"])
def test_files_that_take_too_much_room_are_refused(pack: str) -> None:
    content = os.urandom(1 << 20) * 5
    archive = (
        tar(member("x", content)) if pack == "tar" else zipped(("x", content), method=zipfile.ZIP_STORED)
    )
    with pytest.raises(Refused, match="more than 4,194,304 bytes"):
        check(archive)


@pytest.mark.parametrize("pack", ["tar.gz", "zip"])
def test_a_bomb_is_refused_long_before_it_goes_off(pack: str) -> None:
    content = bytes(200 << 20)
    archive = tar_gz(member("x", content)) if pack == "tar.gz" else zipped(("x", content))
    limits = BundleLimits(bundle_max_ratio=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(Refused, match="20 times its size"):
        check(archive, limits)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_bomb_behind_the_end_of_the_tar_file_is_refused_as_well() -> None:
    with pytest.raises(Refused, match="20 times its size"):
        check(gzip.compress(tar(member("x", HELLO)) + bytes(50 << 20)))


def test_only_a_directory_of_the_bundle_may_be_unpacked(tmp_path: Path) -> None:
    archive = tar(
        member("repo-1.0/README", HELLO),
        member("repo-1.0/workflow/Snakefile", HELLO),
        member("repo-1.0/workflow/rules/map.smk", HELLO),
        hard_link("./repo-1.0/workflow/same", "repo-1.0/workflow/Snakefile"),
    )
    unpack(archive, tmp_path / "work", subdirectory="./repo-1.0/workflow/")

    assert set(tree(tmp_path / "work")) == {"Snakefile", "rules/map.smk", "same"}


@pytest.mark.parametrize("subdirectory", ["missing", "repo/Snakefile", "latest"])
def test_a_directory_that_the_bundle_does_not_have_is_refused(tmp_path: Path, subdirectory: str) -> None:
    archive = tar(member("repo/Snakefile", HELLO), link("latest", "repo"))
    with pytest.raises(Refused, match="no directory"):
        unpack(archive, tmp_path / "work", subdirectory=subdirectory)


def test_a_link_out_of_the_unpacked_directory_is_refused_even_if_the_bundle_has_its_target(
    tmp_path: Path,
) -> None:
    archive = tar(
        member("data/x", HELLO), member("workflow/Snakefile", HELLO), link("workflow/x", "../data/x")
    )
    check(archive)
    with pytest.raises(Refused, match="points outside"):
        unpack(archive, tmp_path / "work", subdirectory="workflow")


def test_what_is_left_out_is_not_unpacked(tmp_path: Path) -> None:
    archive = tar(member("Snakefile", HELLO), member(".git/config", HELLO), member("a/.snakemake/x", HELLO))
    unpack_bundle(io.BytesIO(archive), tmp_path / "work", LIMITS, left_out={".git", ".snakemake"})
    assert set(tree(tmp_path / "work")) == {"Snakefile"}


@pytest.mark.parametrize("pack", ["tar", "tar.gz", "zip", "encrypted zip"])
@given(data=st.data())
def test_any_damage_is_refused_in_words_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, pack: str, data: st.DataObject
) -> None:
    members = (member("Snakefile", HELLO), link("a", "b/c"), member("b/c", bytes(700)))
    archive = {
        "tar": lambda: tar(*members),
        "tar.gz": lambda: tar_gz(*members),
        "zip": lambda: zipped(("Snakefile", HELLO), zip_link("a", "b/c"), ("b/c", bytes(700))),
        "encrypted zip": lambda: encrypted(zipped(("x", HELLO))),
    }[pack]()
    damaged = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 2600)))] = data.draw(st.integers(0, 255))
    directory = tmp_path_factory.mktemp("damaged")
    try:
        contents = check(bytes(damaged))
    except Refused:
        return
    assert unpack(bytes(damaged), directory / "work") == contents
    assert [path.name for path in directory.iterdir()] == ["work"]
