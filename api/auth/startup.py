"""Checks whether the service may start: with this address, and these tokens."""

from pathlib import Path

from pydantic import SecretStr

from api.auth.callers import is_loopback
from api.auth.tokens import TokenFile, TokenSource, TokensUnreadable, TokenVariable


class StartupRefused(RuntimeError):
    """The service does not start; the message says why and what to do."""


def token_source(tokens: SecretStr | None, tokens_file: Path | None) -> TokenSource | None:
    """Where the tokens are stored; none if tokens are off."""
    if tokens is not None:
        return TokenVariable(tokens.get_secret_value())
    return TokenFile(tokens_file) if tokens_file is not None else None


def check_startup(api_host: str, tokens: TokenSource | None) -> None:
    """Raises `StartupRefused` if everybody could use the service, or nobody."""
    if tokens is None:
        if not is_loopback(api_host):
            raise StartupRefused(
                f"Other machines can reach JOBS_API_HOST={api_host}, and tokens are off. Create a token with "
                "`JOBS_TOKENS_FILE=tokens.json python -m api tokens create NAME --group '*' --scope admin` "
                "and set JOBS_TOKENS_FILE for the service too; or set JOBS_API_HOST=127.0.0.1."
            )
        return
    try:
        known = tokens.read()
    except TokensUnreadable as error:
        raise StartupRefused(str(error)) from error
    if not known:
        raise StartupRefused(
            "There is no token, so nobody could use the service. Create one with "
            "`python -m api tokens create NAME --group GROUP --scope submit`."
        )
