"""Archives as an attacker, a careless packer or `tar` and `zip` themselves would make them."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping

HELLO = b"rule all:\n"


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar file; `fields` are those of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def tar_gz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return gzip.compress(tar(*members), mtime=0)


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for entry, content in entries:
            archive.writestr(entry, content, compress_type=method)
    return packed.getvalue()


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    """An entry that is what `mode` says, in the words of `stat`."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix
    info.external_attr = mode << 16
    return info


def zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    return zip_entry(name, stat.S_IFLNK | 0o777), target.encode()


def renamed(archive: bytes, name: str, other: str) -> bytes:
    """The archive with a name put in the place of another one of the same length, as packers would not."""
    assert len(name) == len(other)
    assert name.encode() in archive
    return archive.replace(name.encode(), other.encode())


def encrypted(archive: bytes) -> bytes:
    """A zip file whose entries say that they are encrypted."""
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.index(signature) + offset
        archive = archive[:at] + bytes([archive[at] | 1]) + archive[at + 1 :]
    return archive


def workflow(files: Mapping[str, str]) -> bytes:
    """A bundle of these files."""
    return tar_gz(*(member(name, content.encode()) for name, content in files.items()))


_GOOD = member("Snakefile", HELLO)
_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000"}

ATTACKS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "a name from the root (tar)": (lambda: tar(member("/etc/cron.d/x", HELLO)), "absolute"),
    "a name from the root (zip)": (lambda: zipped(("/etc/cron.d/x", HELLO)), "absolute"),
    "a name with '..' (tar)": (lambda: tar(member("a/../../x", HELLO)), "'..'"),
    "a name with '..' (zip)": (lambda: zipped(("../x", HELLO)), "'..'"),
    "a directory with '..'": (lambda: tar(member("..", type=tarfile.DIRTYPE)), "'..'"),
    "a name with a backslash": (lambda: tar(member("..\\x", HELLO)), "backslash"),
    "a name with a backslash (zip)": (lambda: zipped(("..\\x", HELLO)), "backslash"),
    "a name with a NUL (zip)": (
        lambda: renamed(zipped(("Snakefile_x", HELLO)), "file_x", "file\0x"),
        "UTF-8",
    ),
    "a name with a NUL (tar)": (
        lambda: renamed(tar(member("a" * 101 + "b" * 5, HELLO)), "ab", "a\0"),
        "UTF-8",
    ),
    "a name with a line break": (lambda: tar(member("a\nb", HELLO)), "UTF-8"),
    "a name that is no UTF-8": (lambda: tar(member("\udcff", HELLO), format=tarfile.GNU_FORMAT), "UTF-8"),
    "a name that is too long": (lambda: tar(member("x" * 300, HELLO)), "too long"),
    "a name that is too deep": (lambda: tar(member("x/" * 100 + "x", HELLO)), "too deeply"),
    "a link to a place from the root": (lambda: tar(_GOOD, link("x", "/etc/passwd")), "outside"),
    "a link out of the tree": (lambda: tar(_GOOD, link("a/x", "../../etc")), "points outside"),
    "a link out of the tree (zip)": (lambda: zipped(zip_link("a/x", "../../etc")), "points outside"),
    "a link out of the tree by way of one that leads nowhere further": (
        lambda: tar(_GOOD, link("a", "."), link("b", "a/a/a/a/../../../..")),
        "points outside",
    ),
    "a link out of the tree by way of another": (
        lambda: tar(_GOOD, link("a/b/c", "../.."), link("x/y", "../a/b/c/..")),
        "points outside",
    ),
    "a link that a later one turns round": (
        lambda: tar(_GOOD, link("x/y", "../a/b/c/.."), link("a/b/c", "../..")),
        "points outside",
    ),
    "links in a circle": (lambda: tar(_GOOD, link("a", "b"), link("b", "a")), "loop"),
    "a link with a backslash": (lambda: tar(_GOOD, link("x", "..\\..\\etc")), "outside"),
    "a link to nothing": (lambda: zipped(zip_link("x", "")), "is empty"),
    "a file below a link": (lambda: tar(link("a", "."), member("a/x", HELLO)), "not a directory"),
    "a link in the place of a directory": (lambda: tar(member("a/x", HELLO), link("a", "b")), "used twice"),
    "a file through its own link": (lambda: tar(link("a", "b"), member("a", HELLO)), "used twice"),
    "a hard link out of the tree": (lambda: tar(_GOOD, hard_link("x", "/etc/passwd")), "absolute"),
    "a hard link out of the tree by dots": (lambda: tar(_GOOD, hard_link("x", "../../x")), "'..'"),
    "a hard link to a link": (lambda: tar(link("a", "b"), hard_link("x", "a")), "not an earlier file"),
    "a hard link to what comes later": (
        lambda: tar(hard_link("x", "a"), member("a", HELLO)),
        "not an earlier file",
    ),
    "a character device": (lambda: tar(member("x", type=tarfile.CHRTYPE, devmajor=1)), "not a regular file"),
    "a block device": (lambda: tar(member("x", type=tarfile.BLKTYPE, devmajor=8)), "not a regular file"),
    "a pipe": (lambda: tar(member("x", type=tarfile.FIFOTYPE)), "not a regular file"),
    "a pipe (zip)": (lambda: zipped((zip_entry("x", stat.S_IFIFO | 0o644), b"")), "not a regular file"),
    "a device (zip)": (lambda: zipped((zip_entry("x", stat.S_IFCHR | 0o644), b"")), "not a regular file"),
    "a sparse file": (
        lambda: tar(member("x", b"1\n0\n1000\n".ljust(512, b"\0"), pax_headers=_SPARSE)),
        "sparse",
    ),
    "a directory with content": (lambda: zipped(("a/", HELLO)), "do not match"),
    "the same name twice": (lambda: tar(_GOOD, member("./Snakefile", HELLO)), "used twice"),
    "a file that is a directory as well": (
        lambda: tar(member("a", HELLO), member("a/b", HELLO)),
        "not a directory",
    ),
    "an encrypted zip file": (lambda: encrypted(zipped(("x", HELLO))), "encrypted"),
    "another compression": (lambda: zipped(("x", HELLO), method=zipfile.ZIP_LZMA), "deflate"),
    "a tar file that was cut off in a file": (lambda: tar(member("x", bytes(2000)))[:1500], "truncated"),
    "a tar file that was cut off between files": (lambda: tar(_GOOD)[:1024], "truncated"),
    "a gzipped tar file that was cut off": (lambda: tar_gz(_GOOD)[:-9], "truncated"),
    "a zip file that was cut off": (lambda: zipped(("x", HELLO))[:-30], "truncated"),
    "damage in the middle": (
        lambda: tar(_GOOD, member("a" * 50, HELLO)).replace(b"a" * 50, b"b" * 50),
        "damaged",
    ),
    "a wrong checksum": (
        lambda: zipped(("x", HELLO), method=zipfile.ZIP_STORED).replace(HELLO, HELLO.upper()),
        "damaged",
    ),
    "something behind the end": (lambda: tar(_GOOD) + tar(_GOOD), "after its end"),
    "a header that claims to be endless": (
        lambda: tar(member("x", bytes(40_000), type=tarfile.GNUTYPE_LONGNAME)),
        "is too long",
    ),
    "no file at all": (lambda: tar(member("a", type=tarfile.DIRTYPE)), "no file"),
    "an empty zip file": (lambda: zipped(), "no file"),
}
"""What is refused by what it is: how it is made, and a word of the answer. Sizes are apart."""
