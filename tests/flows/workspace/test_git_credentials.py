"""Private repositories: a credential goes to the place that it is bound to, and nowhere else."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from flows.contract.untrusted_tree import Refused
from flows.secret_blocks import SecretUnusable
from flows.workspace.git import Checkout, CheckoutSettings, check_out
from flows.workspace.git_credentials import Credentials, GitCredential, GitCredentialSettings
from tests.flows.git_servers import Repository, answering, self_signed, serving

TOKEN = "the-token-of-the-lab"
HERE = CheckoutSettings(
    git_allow_schemes=("https", "http"), git_allow_private_hosts=("127.0.0.1",), git_timeout_seconds=20
)
OF_THE_LAB = GitCredential(block="secret/lab", groups=("lab",))


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a repository on a server that wants the token."""
    repository = Repository(tmp_path / "repository.git")
    repository.commit({"Snakefile": b"rule all:\n"})
    certificate = self_signed(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(repository, certificate, f"x-access-token:{TOKEN}") as address:
        yield address


def read_block(kind: str, name: str) -> str:
    assert (kind, name) == ("secret", "lab")
    return f"{TOKEN}\n"


def credentials(bound: dict[str, GitCredential], group: str = "lab") -> Credentials:
    return Credentials(bound, group, read_block)


def fetched(address: str, directory: Path, given: Credentials) -> Checkout:
    return check_out(address, None, ".", directory / "work", HERE, credentials=given)


def refused(address: str, directory: Path, given: Credentials) -> Refused:
    with pytest.raises(Refused) as refusal:
        fetched(address, directory, given)
    assert TOKEN not in f"{refusal.value} {refusal.value.resolution}"
    return refusal.value


@pytest.mark.parametrize("below", ["", "/owner", "/owner/repository"])
def test_a_private_repository_is_fetched_with_the_credential_of_its_place(
    private: str, tmp_path: Path, below: str
) -> None:
    fetched(private, tmp_path, credentials({f"{urlsplit(private).netloc}{below}": OF_THE_LAB}))

    assert (tmp_path / "work" / "Snakefile").read_bytes() == b"rule all:\n"


def test_a_token_file_is_as_good_as_a_block(private: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    credential = GitCredential(token_file=tmp_path / "token", username="x-access-token", groups=("*",))

    fetched(private, tmp_path, credentials({urlsplit(private).netloc: credential}))

    assert (tmp_path / "work" / "Snakefile").exists()


@pytest.mark.parametrize(
    ("place", "group"),
    [
        ("{host}/another", "lab"),
        ("{host}/own", "lab"),
        ("127.0.0.1", "lab"),
        ("{host}", "another"),
    ],
)
def test_without_a_credential_the_error_names_what_the_operator_sets(
    private: str, tmp_path: Path, place: str, group: str
) -> None:
    bound = {place.format(host=urlsplit(private).netloc): OF_THE_LAB}

    refusal = refused(private, tmp_path, credentials(bound, group))

    assert "no public git repository" in str(refusal)
    assert "JOBS_GIT_CREDENTIALS" in refusal.resolution


def test_a_credential_that_the_server_does_not_accept_is_told_as_such(private: str, tmp_path: Path) -> None:
    wrong = OF_THE_LAB.model_copy(update={"username": "somebody"})

    refusal = refused(private, tmp_path, credentials({urlsplit(private).netloc: wrong}))

    assert "to the credential of the service" in str(refusal)
    assert "JOBS_GIT_CREDENTIALS" in refusal.resolution


def test_a_token_file_that_is_missing_is_the_operators_to_correct(private: str, tmp_path: Path) -> None:
    credential = GitCredential(token_file=tmp_path / "missing", groups=("*",))

    with pytest.raises(SecretUnusable, match="missing"):
        fetched(private, tmp_path, credentials({urlsplit(private).netloc: credential}))


def test_a_credential_does_not_follow_a_redirect_to_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str | None]] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        seen.append((request.path.partition("?")[0], request.headers["Authorization"]))
        if request.path.startswith("/owner/repository"):
            request.send_response(302)
            request.send_header("Location", request.path.replace("/owner/", "/another/"))
        else:
            request.send_response(404)
        request.send_header("Content-Length", "0")
        request.end_headers()

    certificate = self_signed(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with answering(note, certificate) as (address, _):
        refused(address, tmp_path, credentials({f"{urlsplit(address).netloc}/owner": OF_THE_LAB}))

    assert [(path, header is not None) for path, header in seen] == [
        ("/owner/repository/info/refs", True),
        ("/another/repository/info/refs", False),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example.org/lab/x",
        "https://git.example.org:8443/lab/x",
        "https://git.example.org.evil.example/lab/x",
        "https://evil.example/git.example.org/lab/x",
        "https://git.example.org/laboratory/x",
        "https://git.example.org/lab/../another/x",
        "https://git.example.org/lab/%2e%2e/another/x",
        "https://git.example.org/lab/..%2fanother/x",
        "https://git.example.org/lab/..\\another/x",
    ],
)
def test_a_credential_is_for_no_other_place(url: str) -> None:
    given = credentials({"git.example.org/lab": OF_THE_LAB})

    assert given.header_for("https://GIT.example.org/lab/x.git/info/refs") is not None
    assert given.header_for(url) is None


def test_the_operator_writes_places_and_one_source_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "JOBS_GIT_CREDENTIALS", '{"github.com/lab": {"block": "github-credentials/lab", "groups": ["lab"]}}'
    )
    assert GitCredentialSettings().git_credentials["github.com/lab"].groups == ("lab",)
    for place, credential in (
        ("https://github.com", {"block": "secret/x", "groups": ["*"]}),
        ("github.com", {"groups": ["*"]}),
        ("github.com", {"block": "secret/x"}),
        ("github.com", {"token": TOKEN, "groups": ["*"]}),
    ):
        with pytest.raises(ValidationError) as refusal:
            GitCredentialSettings.model_validate({"git_credentials": {place: credential}})
        assert TOKEN not in str(refusal.value)
