"""Runs the facade (`python -m api`), and manages its tokens (`python -m api tokens`)."""

import argparse
import sys

import uvicorn

from api.app import create_app
from api.auth.startup import StartupRefused, check_startup, token_source
from api.auth.token_commands import add_token_commands, run_token_command
from api.operation.connections import protocol_of
from api.operation.logs import configure_logs
from api.settings import Settings, described


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m api",
        description=__doc__,
        epilog=described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_token_commands(parser.add_subparsers(metavar="COMMAND"))
    arguments = parser.parse_args()
    settings = Settings()
    if "command" in arguments:
        return run_token_command(arguments, settings.tokens_file)
    return serve(settings)


def serve(settings: Settings) -> int:
    try:
        check_startup(settings.api_host, token_source(settings.tokens, settings.tokens_file))
        app = create_app(settings)
    except StartupRefused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    configure_logs(settings.log_format)
    uvicorn.run(
        app,
        http=protocol_of(settings.request_head_seconds, settings.unread_seconds),
        host=settings.api_host,
        port=settings.api_port,
        timeout_keep_alive=settings.keep_alive_seconds,
        log_config=None,
        access_log=False,  # `api.operation.observation` writes these lines
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
