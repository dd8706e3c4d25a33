"""What the settings file may say, and how a mistake is answered."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from infra.settings.fargate import FARGATE_MEMORY_MIB, Size
from infra.settings.file import Settings, read_settings
from infra.settings.strict import SettingsRefused
from tests.infra.conftest import INFRA, SETTINGS

EXAMPLE = INFRA / "settings.example.toml"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_example_is_a_settings_file_and_names_every_setting() -> None:
    read_settings(EXAMPLE)
    text = EXAMPLE.read_text()

    def names(model: Any) -> set[str]:
        found = set(model.model_fields)
        for field in model.model_fields.values():
            for part in getattr(field.annotation, "__args__", (field.annotation,)):
                if hasattr(part, "model_fields"):
                    found |= names(part)
        return found

    absent = {setting for setting in names(Settings) if setting not in text}
    assert absent == set()


def test_defaults_that_the_example_shows_are_the_defaults(tmp_path: Path) -> None:
    defaults = [
        line.split("#")[1].strip()
        for line in EXAMPLE.read_text().splitlines()
        if line.startswith(("# replicas", "# reconcile", "# monthly", "# log_days = 30"))
    ]
    shown = tomllib.loads("\n".join(dict.fromkeys(defaults)))
    settings = read_settings(EXAMPLE)
    assert shown == {
        "replicas": settings.facade.replicas,
        "reconcile_seconds": settings.worker.reconcile_seconds,
        "monthly_budget_usd": settings.watch.monthly_budget_usd,
        "log_days": settings.watch.log_days,
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('region = "eu-central-1"', "", "region: Field required"),
        ('region = "eu-central-1"', 'regoin = "eu-central-1"', "regoin: Extra inputs are not permitted"),
        ('account = "111122223333"', 'account = "1"', "account: String should match pattern"),
        ('kind = "pushed"', 'kind = "pulled"', "image: Input tag 'pulled'"),
        ('hosted_zone_name = "example.org"', "", "hosted_zone_id and hosted_zone_name go together"),
        ("[watch]", '[database]\nkind = "aurora"\nmin_capacity = 16\n[watch]', "max_capacity is below"),
        ("[watch]", "[server]\nreplicas = 11\n[watch]", "server.replicas: Input should be less than"),
        (
            "[watch]",
            '[server.messaging]\nnode_type = "t4g.small"\n[watch]',
            "server.messaging.node_type: String should match pattern",
        ),
        ("[watch]", '[network]\nkind = "new"\ncidr = "8.8.0.0/16"\n[watch]', "must be private"),
        ("[watch]", '[cluster]\nkind = "existing"\ncluster_name = "c"\n[watch]', "network.kind = 'existing'"),
        ("[watch]", "[worker]\nsize = { cpu = 1000, memory_mib = 2048 }\n[watch]", "CPU units, not 1000"),
        ("[watch]", "[worker]\nsize = { cpu = 1024, memory_mib = 1024 }\n[watch]", "the nearest is 2048"),
        ("[image]", "[image", "is not valid TOML"),
        ("tokens-AbCdEf", "tokens", "facade.tokens_secret_arn: String should match pattern"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SETTINGS / "default.toml").read_text()
    assert old in text
    with pytest.raises(SettingsRefused, match=re.escape(message)):
        read_settings(written(tmp_path / "settings.toml", text.replace(old, new)))


def test_without_a_file_the_answer_says_which_to_copy(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match=r"Copy infra/settings.example.toml"):
        read_settings(tmp_path / "settings.toml")


def test_an_image_without_a_dockerfile_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    text = (SETTINGS / "instance.toml").read_text().replace('"Dockerfile"', '"Elsewhere"')
    settings = read_settings(written(tmp_path / "settings.toml", text))
    with pytest.raises(SettingsRefused, match="Elsewhere"):
        _ = settings.image.context  # type: ignore[union-attr]  # the file says that it is built


def test_a_digest_on_the_command_line_wins() -> None:
    settings = read_settings(SETTINGS / "default.toml").with_image("sha256:" + "1" * 64)
    assert settings.image.model_dump()["digest"] == "sha256:" + "1" * 64


@pytest.mark.parametrize("cpu", FARGATE_MEMORY_MIB)
def test_every_size_of_fargate_can_be_asked_for(cpu: int) -> None:
    for memory in FARGATE_MEMORY_MIB[cpu]:
        assert Size(cpu=cpu, memory_mib=memory).memory_mib == memory
