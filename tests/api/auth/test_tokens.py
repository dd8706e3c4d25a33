"""`python -m api tokens`, and the door that opens only to what it has made."""

import json
import re
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from api.__main__ import main
from api.auth.callers import Caller, TokenScope, is_loopback
from api.auth.startup import StartupRefused, check_startup, token_source
from api.auth.tokens import Expired, TokenFile, TokensUnreadable, find
from api.settings import Settings
from tests.api.support import facade

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "tokens.json"


@pytest.fixture
def command(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m api …`: its exit code, and what it has written."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("JOBS_TOKENS_FILE", str(path))
        monkeypatch.setattr(sys, "argv", ["api", *arguments])
        code = main()
        return code, *capsys.readouterr()

    return run


def found(secret: str, path: Path) -> Caller | Expired | None:
    return find(secret, TokenFile(path).read(), datetime.now(UTC))


class TestTheCommand:
    def test_prints_a_token_once_and_keeps_its_hash(self, command: Command, path: Path) -> None:
        code, out, _ = command("tokens", "create", "ci", "--group", "default", "--scope", "submit")

        secret = out.strip()
        (kept,) = json.loads(path.read_text())["tokens"]
        assert code == 0
        assert re.fullmatch(r"jobs_[\w-]{43}", secret)
        assert secret not in path.read_text()
        assert kept["sha256"] == sha256(secret.encode()).hexdigest()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert found(secret, path) == Caller("ci", TokenScope.SUBMIT, frozenset({"default"}))

    def test_makes_readers_unless_told_otherwise(self, command: Command, path: Path) -> None:
        _, out, _ = command("tokens", "create", "ci", "--group", "a", "--group", "b")

        assert found(out.strip(), path) == Caller("ci", TokenScope.READ, frozenset({"a", "b"}))

    def test_lists_everything_but_the_tokens(self, command: Command) -> None:
        _, secret, _ = command("tokens", "create", "ci", "--group", "*", "--days", "30")

        _, out, _ = command("tokens", "list")

        expires = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
        assert out.splitlines()[1].split() == ["ci", "read", "*", f"{datetime.now(UTC):%Y-%m-%d}", expires]
        assert secret.strip() not in out
        assert sha256(secret.strip().encode()).hexdigest() not in out

    def test_revokes_one_and_leaves_the_others(self, command: Command, path: Path) -> None:
        gone, stays = (command("tokens", "create", name, "--group", "*")[1].strip() for name in ("a", "b"))

        code, _, _ = command("tokens", "revoke", "a")

        assert code == 0
        assert found(gone, path) is None
        assert found(stays, path) == Caller("b", TokenScope.READ, None)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("create", "ci", "--group", "*"), "A token 'ci' already exists."),
            (("create", "not a name", "--group", "*"), "name: "),
            (("revoke", "ic"), "There is no token 'ic'. Tokens: ci."),
        ],
    )
    def test_says_in_one_line_what_it_refuses(
        self, command: Command, path: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        command("tokens", "create", "ci", "--group", "default")
        before = path.read_text()

        code, out, error = command("tokens", *arguments)

        assert (code, out) == (1, "")
        assert message in error
        assert len(error.splitlines()) == 1
        assert path.read_text() == before

    def test_wants_to_know_the_file(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("JOBS_TOKENS_FILE", raising=False)
        monkeypatch.setattr(sys, "argv", ["api", "tokens", "list"])

        assert main() == 1
        assert "Set JOBS_TOKENS_FILE" in capsys.readouterr().err


class TestTheFile:
    def test_is_read_again_when_it_has_changed(self, path: Path) -> None:
        running = TokenFile(path)
        first = TokenFile(path).create("first", ["*"], TokenScope.READ)
        assert find(first, running.read(), datetime.now(UTC))

        TokenFile(path).revoke("first")

        assert find(first, running.read(), datetime.now(UTC)) is None

    def test_that_others_may_write_is_not_trusted(self, path: Path) -> None:
        TokenFile(path).create("ci", ["*"], TokenScope.READ)
        path.chmod(0o620)

        with pytest.raises(TokensUnreadable, match="chmod 600"):
            TokenFile(path).read()

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            '{"tokens": [{"name": "x"}]}',
            '{"tokens": [{"name": "x", "secret": "jobs_oh-no"}]}',
            '{"version": 2, "tokens": []}',
        ],
    )
    def test_that_holds_something_else_is_refused_without_repeating_it(
        self, path: Path, content: str
    ) -> None:
        path.parent.mkdir()
        path.write_text(content)
        path.chmod(0o600)

        with pytest.raises(TokensUnreadable) as refused:
            TokenFile(path).read()

        assert str(path) in str(refused.value)
        assert "oh-no" not in str(refused.value)

    def test_may_be_the_content_of_a_variable_instead(self, path: Path) -> None:
        secret = TokenFile(path).create("ci", ["*"], TokenScope.READ)

        source = token_source(SecretStr(path.read_text()), None)

        assert source is not None
        assert find(secret, source.read(), datetime.now(UTC))

    def test_and_the_variable_are_not_mixed(self, path: Path) -> None:
        with pytest.raises(ValidationError, match="unset one of them"):
            Settings(tokens=SecretStr("{}"), tokens_file=path)


class TestTheDoor:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "jobs.example.org"])
    def test_stays_closed_to_other_machines_without_tokens(
        self, host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("JOBS_API_HOST", host)
        monkeypatch.setattr(sys, "argv", ["api"])

        assert main() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"JOBS_API_HOST={host}" in line
        assert "tokens create" in line

    @pytest.mark.anyio
    async def test_stays_closed_however_the_application_is_started(self, prefect_api_url: str) -> None:
        with pytest.raises(StartupRefused, match="tokens are off"):
            async with facade(prefect_api_url, Settings(api_host="0.0.0.0")):
                pass

    def test_opens_to_other_machines_with_a_token(self, path: Path) -> None:
        TokenFile(path).create("ci", ["*"], TokenScope.READ)
        settings = Settings(api_host="0.0.0.0", tokens_file=path)

        check_startup(settings.api_host, token_source(settings.tokens, settings.tokens_file))

    def test_stays_closed_when_nobody_could_come_in(self, path: Path) -> None:
        TokenFile(path).create("ci", ["*"], TokenScope.READ)
        TokenFile(path).revoke("ci")
        settings = Settings(tokens_file=path)

        with pytest.raises(StartupRefused, match="no token"):
            check_startup(settings.api_host, token_source(settings.tokens, settings.tokens_file))

    def test_stays_closed_when_the_file_is_not_there(self, tmp_path: Path) -> None:
        settings = Settings(tokens_file=tmp_path / "missing.json")

        with pytest.raises(StartupRefused, match="tokens create"):
            check_startup(settings.api_host, token_source(settings.tokens, settings.tokens_file))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_these_are_of_the_machine_itself(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "127.0.0.1.x"])
def test_these_are_not(host: str) -> None:
    assert not is_loopback(host)
