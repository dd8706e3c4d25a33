"""`python -m api tokens`: create, list and revoke API tokens."""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from api.auth.callers import TokenScope
from api.auth.tokens import Token, TokenFile, TokenRefused, TokensUnreadable

_FILE_MISSING = "Set JOBS_TOKENS_FILE to the path of the token file, for this command and for the service."


def add_token_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds `tokens create`, `tokens list` and `tokens revoke`."""
    tokens = commands.add_parser("tokens", help="Create, list and revoke API tokens.").add_subparsers(
        required=True, metavar="COMMAND"
    )

    create = tokens.add_parser("create", help="Create a token. It is printed once.")
    create.add_argument("name", help="The name of its owner or purpose.")
    create.add_argument(
        "--group",
        action="append",
        required=True,
        dest="groups",
        help="A group that it has access to. Repeat the option for more groups; '*' means all.",
    )
    create.add_argument(
        "--scope", type=TokenScope, choices=list(TokenScope), default=TokenScope.READ, help="Default: read."
    )
    create.add_argument("--days", type=_days, help="Days until it expires. By default, it does not expire.")
    create.set_defaults(command=_create)

    list_ = tokens.add_parser("list", help="List the tokens, without their secrets.")
    list_.set_defaults(command=_list)

    revoke = tokens.add_parser("revoke", help="Revoke a token at once: the next request with it is rejected.")
    revoke.add_argument("name")
    revoke.set_defaults(command=_revoke)


def run_token_command(arguments: argparse.Namespace, path: Path | None) -> int:
    """Runs the command on the file; returns the exit code."""
    if path is None:
        sys.stderr.write(f"{_FILE_MISSING}\n")
        return 1
    try:
        arguments.command(arguments, TokenFile(path))
    except (TokenRefused, TokensUnreadable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _create(arguments: argparse.Namespace, file: TokenFile) -> None:
    expires_at = datetime.now(UTC).replace(microsecond=0) + arguments.days if arguments.days else None
    secret = file.create(arguments.name, arguments.groups, arguments.scope, expires_at)
    sys.stderr.write("Copy the token now: only its hash is stored, so it can't be shown again.\n")
    sys.stdout.write(f"{secret}\n")


def _list(_: argparse.Namespace, file: TokenFile) -> None:
    now = datetime.now(UTC)
    rows = [("name", "scope", "groups", "created", "expires"), *(_row(token, now) for token in file.read())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _revoke(arguments: argparse.Namespace, file: TokenFile) -> None:
    file.revoke(arguments.name)


def _row(token: Token, now: datetime) -> tuple[str, str, str, str, str]:
    expires = f"{token.expires_at:%Y-%m-%d}" if token.expires_at else "never"
    return (
        token.name,
        token.scope,
        ",".join(token.groups),
        f"{token.created_at:%Y-%m-%d}",
        f"{expires} (expired)" if token.has_expired(now) else expires,
    )


def _days(value: str) -> timedelta:
    days = timedelta(days=float(value))
    if not timedelta(0) < days <= timedelta(days=3650):
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3650")
    return days
