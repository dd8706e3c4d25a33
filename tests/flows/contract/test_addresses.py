"""Git addresses: which may be named, told without asking the network."""

import ipaddress

import pytest
from pydantic import ValidationError

from api.settings import Settings
from flows.contract.addresses import AddressRefused, GitSettings, check_git_address, is_public
from flows.workspace.settings import WorkspaceSettings

ANYWHERE = GitSettings()


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/owner/repository",
        "https://github.com/owner/repository.git",
        "https://git.example.org:8443/group/sub/repository",
        "https://8.8.8.8/repository",
        "https://[2606:4700::1111]/repository",
    ],
)
def test_a_public_address_is_taken(address: str) -> None:
    check_git_address(address, ANYWHERE)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://github.com/owner/repository", "scheme"),
        ("ssh://git@github.com/owner/repository", "contains a user name"),
        ("git@github.com:owner/repository", "scheme"),
        ("git://github.com/owner/repository", "scheme"),
        ("file:///etc", "scheme"),
        ("/srv/repository", "scheme"),
        ("ext::sh -c touch% /x", "blanks"),
        ("https://user:secret@github.com/owner/repository", "contains a user name"),
        ("https://secret@github.com/owner/repository", "contains a user name"),
        ("https://github.com", "no path"),
        ("https:///owner/repository", "no host"),
        ("https://github.com/owner/repository?token=secret", "query"),
        ("https://github.com/owner/repository#main", "fragment"),
        ("https://github.com\\@127.0.0.1/x", "backslash"),
        ("https://github.com/x\r\nHost: y", "blanks"),
        ("https://github.com:99999/x", "not a valid URL"),
        ("https://[::1/x", "not a valid URL"),
        ("https://gíthub.com/x", "ASCII"),
    ],
)
def test_what_is_no_address_for_everybody_is_refused_without_repeating_secrets(
    address: str, reason: str
) -> None:
    with pytest.raises(AddressRefused, match=reason) as refused:
        check_git_address(address, ANYWHERE)
    assert "secret" not in f"{refused.value} {refused.value.resolution}"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "git.localhost",
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:10.0.0.1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[3fff:123::1]",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[64:ff9b::192.0.0.192]",
        "[2002:7f00:1::]",
        "[ff02::1]",
    ],
)
def test_an_address_of_the_machines_own_network_is_refused_in_any_spelling(host: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        check_git_address(f"https://{host}/owner/repository", ANYWHERE)


def test_listed_hosts_are_the_only_ones_and_a_dot_means_all_below() -> None:
    settings = GitSettings(git_allow_hosts=("github.com", ".example.org"))
    for host in ("github.com", "GitHub.com", "git.example.org", "a.b.example.org"):
        check_git_address(f"https://{host}/x", settings)
    for host in ("gitlab.com", "notgithub.com", "github.com.evil.net", "example.org", "badexample.org"):
        with pytest.raises(AddressRefused, match="not allowed"):
            check_git_address(f"https://{host}/x", settings)


def test_a_private_host_is_taken_if_it_is_listed_as_one() -> None:
    settings = GitSettings(git_allow_hosts=("github.com",), git_allow_private_hosts=("10.0.0.7", ".corp"))
    for host in ("10.0.0.7", "git.corp", "github.com"):
        check_git_address(f"https://{host}/x", settings)
    with pytest.raises(AddressRefused):
        check_git_address("https://10.0.0.8/x", settings)


@pytest.mark.parametrize("program", [GitSettings, WorkspaceSettings, Settings])
def test_lists_are_separated_by_commas_for_facade_and_worker_alike(
    monkeypatch: pytest.MonkeyPatch, program: type[GitSettings]
) -> None:
    monkeypatch.setenv("JOBS_GIT_ALLOW_SCHEMES", "https, http")
    monkeypatch.setenv("JOBS_GIT_ALLOW_HOSTS", "GitHub.com, .example.org,")
    settings = program()
    assert settings.git_allow_schemes == ("https", "http")
    assert settings.git_allow_hosts == ("github.com", ".example.org")
    monkeypatch.setenv("JOBS_GIT_ALLOW_SCHEMES", "ssh")
    with pytest.raises(ValidationError):
        GitSettings()


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
