"""Workflows from git: the commit that was meant, and nothing that a server or a repository smuggles in."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.contract.untrusted_tree import Refused
from flows.workspace.git import Checkout, CheckoutSettings, check_out
from tests.flows.git_servers import Repository, answering, self_signed, serving, serving_by_git

HELLO = b"rule all:\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
LINK = 0o120000
SUBMODULE = 0o160000
HERE = CheckoutSettings(
    git_allow_schemes=("http",), git_allow_private_hosts=("127.0.0.1",), git_timeout_seconds=20
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository.git")


@pytest.fixture(params=[serving_by_git, serving], ids=["git", "dulwich"])
def address(repository: Repository, request: pytest.FixtureRequest) -> Iterator[str]:
    """Of the repository, on two different git servers."""
    with request.param(repository) as address:
        yield address


CheckOut = Callable[..., Checkout]


@pytest.fixture
def fetched(address: str, tmp_path: Path) -> CheckOut:
    """Checks the repository out to `work`."""

    def fetch(ref: str | None = None, subdirectory: str = ".", settings: CheckoutSettings = HERE) -> Checkout:
        return check_out(address, ref, subdirectory, tmp_path / "work", settings, {".snakemake"})

    return fetch


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_the_head_is_checked_out_and_its_commit_told(
    repository: Repository, fetched: CheckOut, tmp_path: Path
) -> None:
    repository.commit({"Snakefile": b"old"})
    modes = {"scripts/map.sh": 0o100755, "latest": LINK}
    tree = {
        "Snakefile": HELLO,
        "scripts/map.sh": b"#!/bin/sh\n",
        "latest": b"scripts/map.sh",
        ".snakemake/x": b"",
    }
    commit = repository.commit(tree, modes)

    checkout = fetched()

    assert checkout == Checkout(commit, ())
    work = tmp_path / "work"
    assert files(work) == {"Snakefile", "scripts/map.sh", "latest"}
    assert (work / "Snakefile").read_bytes() == HELLO
    assert (work / "scripts" / "map.sh").stat().st_mode & 0o100
    assert (work / "latest").readlink() == Path("scripts/map.sh")
    assert not (tmp_path / "work.git").exists()


@pytest.mark.parametrize("kind", ["branch", "tag", "annotated tag", "commit", "old commit", "whole name"])
def test_a_ref_is_the_commit_that_was_meant(
    repository: Repository, fetched: CheckOut, tmp_path: Path, kind: str
) -> None:
    old = repository.commit({"Snakefile": b"old"})
    wanted = repository.commit({"Snakefile": HELLO}, branch="feature/x")
    repository.tag("v1", wanted, is_annotated=False)
    repository.tag("v2", wanted, is_annotated=True)
    repository.commit({"Snakefile": b"newest"})
    ref = {
        "branch": "feature/x",
        "tag": "v1",
        "annotated tag": "v2",
        "commit": wanted,
        "old commit": old,
        "whole name": "refs/heads/feature/x",
    }[kind]

    assert fetched(ref).commit == (old if kind == "old commit" else wanted)
    assert (tmp_path / "work" / "Snakefile").read_bytes() == (b"old" if kind == "old commit" else HELLO)


@pytest.mark.parametrize("ref", ["missing", "0" * 40])
def test_a_ref_that_is_not_there_is_refused(repository: Repository, fetched: CheckOut, ref: str) -> None:
    repository.commit({"Snakefile": HELLO})
    with pytest.raises(Refused) as refused:
        fetched(ref)
    assert ref in str(refused.value)
    assert "ref" in refused.value.resolution


def test_only_a_directory_of_the_repository_may_be_checked_out(
    repository: Repository, fetched: CheckOut, tmp_path: Path
) -> None:
    repository.commit({"README": HELLO, "a/workflow/Snakefile": HELLO, "a/workflow/rules/x.smk": HELLO})
    fetched(subdirectory="a/workflow")
    assert files(tmp_path / "work") == {"Snakefile", "rules/x.smk"}


@pytest.mark.parametrize("subdirectory", ["missing", "README", "a/missing"])
def test_a_directory_that_is_not_there_is_refused(
    repository: Repository, fetched: CheckOut, subdirectory: str
) -> None:
    repository.commit({"README": HELLO, "a/Snakefile": HELLO})
    with pytest.raises(Refused, match="no directory"):
        fetched(subdirectory=subdirectory)


def test_what_is_not_fetched_is_told(repository: Repository, fetched: CheckOut) -> None:
    repository.commit({"Snakefile": HELLO, "data.bam": POINTER, "lib/sub": b"1" * 40}, {"lib/sub": SUBMODULE})
    notes = " ".join(fetched().notes)
    assert "in Git LFS and is not fetched, they are pointers only: 'data.bam'." in notes
    assert "'lib/sub' is a submodule" in notes


def test_many_files_of_git_lfs_are_one_note(repository: Repository, fetched: CheckOut) -> None:
    repository.commit({"Snakefile": HELLO} | {f"reads/{number:02}.bam": POINTER for number in range(30)})
    (note,) = fetched().notes
    assert "'reads/00.bam', 'reads/01.bam'" in note
    assert "'reads/19.bam' and 10 more." in note


@pytest.mark.parametrize(
    ("tree", "modes", "reason"),
    [
        ({"x": b"/etc/passwd"}, {"x": LINK}, "outside"),
        ({"a/x": b"../../etc"}, {"a/x": LINK}, "points outside"),
        ({"a/b": b"..", "x": b"a/b/.."}, {"a/b": LINK, "x": LINK}, "points outside"),
        ({"..": HELLO}, {}, "'..'"),
        ({"a%2Fb": HELLO, "a": b"."}, {"a": LINK}, "not a directory|used twice"),
        ({"..%2Fx": HELLO}, {}, "'..'"),
        ({"\udcff": HELLO}, {}, "UTF-8"),
        ({"a\\b": HELLO}, {}, "backslash"),
    ],
)
def test_a_repository_that_leads_out_of_its_tree_is_refused(
    repository: Repository,
    fetched: CheckOut,
    tmp_path: Path,
    tree: dict[str, bytes],
    modes: dict[str, int],
    reason: str,
) -> None:
    repository.commit(tree, modes)
    with pytest.raises(Refused, match=reason):
        fetched()
    assert {path.name for path in tmp_path.iterdir()} == {"repository.git", "work"}
    assert not any(path.is_symlink() for path in (tmp_path / "work").rglob("*"))


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"git_max_bytes": 10_000}, "sends more than 10,000 bytes"),
        ({"workflow_max_bytes": 10_000}, "more than 10,000 bytes"),
        ({"workflow_max_entries": 3}, "more than 3 files"),
    ],
)
def test_too_much_is_refused(
    repository: Repository, fetched: CheckOut, limit: dict[str, int], reason: str
) -> None:
    repository.commit({f"f{number}": os.urandom(9000) for number in range(4)})
    with pytest.raises(Refused, match=reason) as refused:
        fetched(settings=HERE.model_copy(update=limit))
    assert "JOBS_" in refused.value.resolution


def test_a_commit_that_no_branch_leads_to_is_taken_where_the_server_gives_it(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"Snakefile": b"newest"})
    lonely = repository.commit({"Snakefile": HELLO}, branch=None)
    with serving_by_git(repository) as address:
        assert check_out(address, lonely, ".", tmp_path / "work", HERE).commit == lonely


def test_a_server_is_believed_by_its_certificate_only(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"Snakefile": HELLO})
    certificate = self_signed(tmp_path / "certificate.pem")
    settings = HERE.model_copy(update={"git_allow_schemes": ("https",)})
    with serving(repository, certificate) as address:
        assert "CERTIFICATE_VERIFY_FAILED" in refused(address, tmp_path, settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        check_out(address, None, ".", tmp_path / "work", settings)
    assert files(tmp_path / "work") == {"Snakefile"}


def refused(address: str, directory: Path, settings: CheckoutSettings = HERE) -> str:
    with pytest.raises(Refused) as refusal:
        check_out(address, None, ".", directory / "work", settings)
    assert list(directory.glob("work*")) == []
    return str(refusal.value)


def redirect_to(location: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "127.1", "2130706433", "[::ffff:127.0.0.1]"]
)
def test_a_server_of_this_machine_is_never_asked(tmp_path: Path, host: str) -> None:
    settings = CheckoutSettings(git_allow_schemes=("http",))
    with answering(redirect_to("/")) as (address, asked):
        port = urlsplit(address).port
        assert "not public" in refused(f"http://{host}:{port}/owner/repository", tmp_path, settings)
    assert asked == []


def test_a_name_that_leads_to_this_machine_is_never_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any name server may answer for a name of its own; here the resolver of this process does."""
    lead_to(monkeypatch, {"git.example.org": ["93.184.216.34", "127.0.0.1"]})
    settings = CheckoutSettings(git_allow_schemes=("http",))
    with answering(redirect_to("/")) as (address, asked):
        port = urlsplit(address).port
        assert "not public" in refused(f"http://git.example.org:{port}/x", tmp_path, settings)
    assert asked == []


def test_the_connection_goes_to_the_address_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers with a public address first, and with a private one a moment later."""
    answers = lead_to(monkeypatch, {"git.example.org": ["203.0.113.1"]}, then=["127.0.0.1"])
    monkeypatch.setattr("flows.workspace.git_client.is_public", lambda address: str(address) == "203.0.113.1")
    monkeypatch.setattr("flows.workspace.git_client._CONNECT_SECONDS", 0.2)
    settings = CheckoutSettings(git_allow_schemes=("http",), git_timeout_seconds=2)
    with answering(redirect_to("/")) as (address, asked):
        port = urlsplit(address).port
        refused(f"http://git.example.org:{port}/x", tmp_path, settings)
    assert asked == []
    assert answers


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://localhost:9/x", "not public"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("https://127.0.0.1/x", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://user:secret@127.0.0.1/x", "password"),
    ],
)
def test_a_redirect_is_looked_at_like_an_address(tmp_path: Path, location: str, reason: str) -> None:
    with answering(redirect_to(location)) as (address, asked):
        told = refused(address, tmp_path)
    assert reason in told
    assert "secret" not in told
    assert len(asked) == 1


def test_redirects_have_an_end(tmp_path: Path) -> None:
    with answering(lambda request: redirect_to(request.path)(request)) as (address, asked):
        assert "can't be fetched" in refused(address, tmp_path)
    assert len(asked) < 10


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_server_that_does_not_give_the_repository_is_told(tmp_path: Path, status: int) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with answering(answer) as (address, _):
        assert "127.0.0.1" in refused(address, tmp_path)


def test_a_server_that_speaks_no_git_is_refused(tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.end_headers()
        request.wfile.write(b"<html>hello</html>\n")

    with answering(answer) as (address, _):
        assert "127.0.0.1" in refused(address, tmp_path) or "dumb" in refused(address, tmp_path)


@pytest.mark.parametrize("limit", ["bytes", "seconds"])
def test_a_server_that_never_comes_to_an_end_is_left(tmp_path: Path, limit: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        request.end_headers()
        request.wfile.write(b"001e# service=git-upload-pack\n0000")
        while True:
            request.wfile.write(b"003f" + b"1" * 40 + b" refs/heads/" + b"x" * 6 + b"\n")
            time.sleep(0 if limit == "bytes" else 0.05)

    update = {"git_max_bytes": 50_000} if limit == "bytes" else {"git_timeout_seconds": 0.5}
    begin = time.monotonic()
    with answering(answer) as (address, _):
        told = refused(address, tmp_path, HERE.model_copy(update=update))
    assert ("50,000 bytes" if limit == "bytes" else "0.5 seconds") in told
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time(tmp_path: Path, part: str) -> None:
    """It is never silent for long, and what is read never comes to its end."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
        request.wfile.write(head + (b"X: " if part == "header" else b"\r\n"))
        while True:
            request.wfile.write(b"f")  # of a length that is read to its end
            time.sleep(0.05)

    begin = time.monotonic()
    with answering(answer) as (address, _):
        told = refused(address, tmp_path, HERE.model_copy(update={"git_timeout_seconds": 0.5}))
    assert "0.5 seconds" in told
    assert time.monotonic() - begin < 5


def lead_to(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]], then: list[str] | None = None
) -> list[str]:
    """Names that lead to these addresses, and to others when they are asked for once more."""
    real, asked = socket.getaddrinfo, list[str]()

    def resolve(host: str, port: int, *arguments: int, **keywords: int) -> list[object]:
        if host not in names:
            return list(real(host, port, *arguments, **keywords))
        addresses = names[host] if then is None or host not in asked else then
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked
