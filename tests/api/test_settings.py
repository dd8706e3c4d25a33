"""The facade is set up by variables with the prefix `JOBS_`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import Settings


def test_workflow_roots_are_written_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_WORKFLOW_ROOTS", f"/srv/a{os.pathsep}/srv/b{os.pathsep}")

    assert Settings().workflow_roots == (Path("/srv/a"), Path("/srv/b"))


def test_help_lists_every_setting_with_its_default() -> None:
    command = [sys.executable, "-m", "api", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert [name for name in Settings.model_fields if f"  JOBS_{name.upper()}" not in shown] == []
    assert "  JOBS_API_HOST [127.0.0.1]\n      The address to listen on.\n" in shown
    assert "  JOBS_GIT_ALLOW_SCHEMES [https]\n" in shown
    assert "  JOBS_STORAGE_URL\n" in shown


def test_relative_directories_are_fixed_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_HOME", "here")
    monkeypatch.setenv("JOBS_WORKFLOW_ROOTS", "workflows")

    settings = Settings()

    assert settings.home == Path.cwd() / "here"
    assert settings.workflow_roots == (Path.cwd() / "workflows",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("JOBS_MAX_BODY_BYTES", "0"), ("JOBS_API_PORT", "70000"), ("JOBS_PUBLIC_PREFECT_UI_URL", "prefect")],
)
def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError):
        Settings()


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())
