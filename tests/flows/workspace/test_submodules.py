"""Submodules are fetched from where their addresses lead, and named where that is not possible."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.contract.untrusted_tree import Refused
from flows.workspace.git import Checkout, CheckoutSettings, check_out
from flows.workspace.git_credentials import Credentials, GitCredential
from flows.workspace.submodules import address_of
from tests.flows.git_servers import Repository, self_signed, serving

SUBMODULE = 0o160000
HERE = CheckoutSettings(
    git_allow_schemes=("http", "https"), git_allow_private_hosts=("127.0.0.1",), git_timeout_seconds=20
)


def gitmodules(**addresses: str) -> bytes:
    return "".join(
        f'[submodule "{path}"]\n\tpath = {path.replace("__", "/")}\n\turl = {url}\n'
        for path, url in addresses.items()
    ).encode()


@pytest.fixture
def rules(tmp_path: Path) -> Repository:
    """A repository of rules, to be a submodule."""
    return Repository(tmp_path / "rules.git")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository.git")


@pytest.fixture
def address(repository: Repository, rules: Repository) -> Iterator[str]:
    with serving(repository, rules=rules) as address:
        yield address


def fetched(address: str, directory: Path, subdirectory: str = ".") -> Checkout:
    return check_out(address, None, subdirectory, directory / "work", HERE)


def test_a_submodule_has_the_files_of_the_commit_that_the_repository_names(
    repository: Repository, rules: Repository, address: str, tmp_path: Path
) -> None:
    named = rules.commit({"map.smk": b"named"})
    rules.commit({"map.smk": b"newer"})
    tree = {"Snakefile": b"", ".gitmodules": gitmodules(lib__rules="../rules"), "lib/rules": named.encode()}
    repository.commit(tree, {"lib/rules": SUBMODULE})

    checkout = fetched(address, tmp_path)

    assert (tmp_path / "work" / "lib" / "rules" / "map.smk").read_bytes() == b"named"
    assert checkout.notes == ()
    assert {path.name for path in tmp_path.iterdir()} == {"work", "repository.git", "rules.git"}


def test_a_submodule_below_the_workflows_directory_is_found_there(
    repository: Repository, rules: Repository, address: str, tmp_path: Path
) -> None:
    named = rules.commit({"map.smk": b"named"})
    files = gitmodules(workflow__rules="../rules", elsewhere="../rules")
    tree = {"workflow/Snakefile": b"", ".gitmodules": files, "workflow/rules": named.encode()}
    repository.commit(tree, {"workflow/rules": SUBMODULE})

    fetched(address, tmp_path, "workflow")

    assert (tmp_path / "work" / "rules" / "map.smk").read_bytes() == b"named"


def test_submodules_have_submodules_but_not_without_end(
    repository: Repository, address: str, tmp_path: Path
) -> None:
    deepest = repository.commit({"leaf": b"x"})
    for _ in range(5):
        tree = {".gitmodules": gitmodules(down="../repository"), "down": deepest.encode(), "Snakefile": b""}
        deepest = repository.commit(tree, {"down": SUBMODULE})

    checkout = fetched(address, tmp_path)

    assert (tmp_path / "work" / "down" / "down" / "down" / "Snakefile").exists()
    assert not (tmp_path / "work" / "down" / "down" / "down" / "down" / "Snakefile").exists()
    (note,) = checkout.notes
    assert note.startswith("'down/down/down/down' is a submodule and stays empty: ")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost/x", "not public"),
        ("file:///etc", "scheme"),
        ("../missing", "no public git repository"),
        ("../../../../x", "leads out of the server"),
        ("http://user:secret@127.0.0.1/x", "password"),
        ("/etc", "scheme"),
    ],
)
def test_one_that_cannot_be_fetched_stays_empty_and_is_named(
    repository: Repository, address: str, tmp_path: Path, url: str, reason: str
) -> None:
    tree = {"Snakefile": b"", ".gitmodules": gitmodules(sub=url), "sub": b"1" * 40}
    repository.commit(tree, {"sub": SUBMODULE})

    (note,) = fetched(address, tmp_path).notes

    assert note.startswith("'sub' is a submodule and stays empty: ")
    assert reason in note
    assert "secret" not in note
    assert list((tmp_path / "work" / "sub").iterdir()) == []


def test_the_file_of_submodules_reads_no_other_file(
    repository: Repository, address: str, tmp_path: Path
) -> None:
    (tmp_path / "more").write_bytes(gitmodules(sub="http://localhost/secret"))
    include = f"[include]\n\tpath = {tmp_path / 'more'}\n".encode()
    tree = {"Snakefile": b"", ".gitmodules": include, "sub": b"1" * 40}
    repository.commit(tree, {"sub": SUBMODULE})

    assert fetched(address, tmp_path).notes == (
        "'sub' is a submodule and stays empty: `.gitmodules` does not say where it is.",
    )


def test_a_private_submodule_is_fetched_with_the_credential_of_its_place(
    repository: Repository, rules: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = rules.commit({"map.smk": b"named"})
    tree = {"Snakefile": b"", ".gitmodules": gitmodules(rules="../rules"), "rules": named.encode()}
    repository.commit(tree, {"rules": SUBMODULE})
    certificate = self_signed(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(repository, certificate, "me:token", rules=rules) as address:
        bound = GitCredential(block="secret/lab", username="me", groups=("*",))
        place = address.removeprefix("https://").removesuffix("/repository")
        credentials = Credentials({place: bound}, "lab", lambda _kind, _name: "token")
        check_out(address, None, ".", tmp_path / "work", HERE, credentials=credentials)

    assert (tmp_path / "work" / "rules" / "map.smk").read_bytes() == b"named"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("../rules.git", "https://git.example.org/owner/rules.git"),
        ("./rules", "https://git.example.org/owner/repository.git/rules"),
        ("../../other/rules/", "https://git.example.org/other/rules"),
        ("git@git.example.com:owner/rules.git", "https://git.example.com/owner/rules.git"),
        ("ssh://git@git.example.com:2222/owner/rules", "https://git.example.com/owner/rules"),
        ("git://git.example.com/owner/rules", "https://git.example.com/owner/rules"),
        ("https://git.example.com/owner/rules", "https://git.example.com/owner/rules"),
    ],
)
def test_an_address_leads_where_git_would_go_but_over_https(url: str, address: str) -> None:
    assert address_of(url, "https://git.example.org/owner/repository.git") == address


def test_a_relative_address_stays_on_its_server() -> None:
    with pytest.raises(Refused, match="leads out of the server"):
        address_of("../../../x", "https://git.example.org/owner/repository")
