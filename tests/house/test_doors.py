"""Who may import whom, and what may be done where: the rooms of docs/architecture.md, asserted."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("api", "deployments", "flows", "infra", "tests")
NOT_OURS = ("flows/examples", "tests/workflows", "infra/node_modules", "infra/cdk.out")
MEASURE_PROCESSES = ("flows/snakemake_process/capture.py", "flows/snakemake_process/usage.py")
"""They stand in for what Snakemake starts; they decide nothing."""
STARTS_PROCESSES = (
    "flows/environments/",
    "flows/engines/cluster.py",
    "flows/snakemake_process/cluster/slurm.py",
    "flows/worker/",
    "deployments/",
)


def modules(room: str) -> Iterator[Path]:
    for path in sorted((PROJECT / room).rglob("*.py")):
        if not str(path.relative_to(PROJECT)).startswith(NOT_OURS):
            yield path


def imports(path: Path) -> set[str]:
    """Every module that the file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def importers(package: str, *rooms: str) -> set[str]:
    """The files of `rooms` that import `package` or something in it."""
    return {
        str(path.relative_to(PROJECT))
        for room in rooms
        for path in modules(room)
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }


def test_from_flows_the_facade_enters_the_contract_only() -> None:
    for path in modules("api"):
        entered = {name for name in imports(path) if name.split(".")[0] == "flows"}
        rooms = {name.split(".")[1] for name in entered if "." in name}
        assert rooms <= {"contract"}, f"{path} imports {entered}"


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("api", ("flows", "deployments", "infra")),
        ("deployments", ("api", "flows", "infra")),
        ("flows", ("infra",)),
        ("fastapi", ("flows", "deployments", "infra")),
        ("dulwich", ("api", "deployments", "infra")),
        ("aws_cdk", ("api", "flows", "deployments")),
        ("boto3", ("flows",)),
        ("prefect_aws", ("api", "flows", "infra")),
        ("tests", ("api", "deployments", "flows", "infra")),
    ],
)
def test_rooms_that_do_not_know_each_other(package: str, rooms: tuple[str, ...]) -> None:
    assert importers(package, *rooms) == set()


def test_what_is_for_aws_only_is_imported_in_one_place_of_each_program() -> None:
    """The packages are optional."""
    assert importers("boto3", "api") == {"api/gateway/role_sessions.py"}
    assert importers("prefect_aws", "deployments") == {"deployments/ecs_worker.py"}


def test_snakemake_is_imported_inside_its_own_process_only() -> None:
    inside = {path for path in importers("snakemake", *ROOMS) if not path.startswith("tests/")}
    assert all(path.startswith("flows/snakemake_process/") for path in inside)
    assert inside, "the check looks at nothing"


def test_processes_are_started_in_few_places() -> None:
    starters = {
        path
        for path in importers("subprocess", "api", "deployments", "flows", "infra")
        if path not in MEASURE_PROCESSES and not path.endswith("executor_plugin_prefect/__init__.py")
    }
    assert all(path.startswith(STARTS_PROCESSES) for path in starters), starters
    assert starters


def test_the_contract_and_the_protocol_are_pure() -> None:
    standard = {"collections", "dataclasses", "datetime", "enum", "hashlib", "json"}
    standard |= {"pathlib", "re", "typing", "uuid"}
    pure = ("control_characters", "field_types", "options", "registered", "sources", "spec", "variables")
    models = {f"contract/{name}": {"packaging", "pydantic", "flows"} for name in pure}
    for module, more in (models | {"snakemake_process/events": set()}).items():
        names = set(imports(PROJECT / "flows" / f"{module}.py"))
        ours = [name for name in names if name.startswith("flows.")]
        assert all(f"{name}.".startswith(tuple(f"flows.contract.{each}." for each in pure)) for name in ours)
        roots = {name.split(".")[0] for name in names}
        assert roots <= standard | more, f"flows/{module}.py imports {roots - standard - more}"


def test_every_exception_from_a_rule_carries_its_reason() -> None:
    reasons = {"# noqa:": " - ", "# type: ignore[": "]  # "}
    for path in (path for room in ROOMS for path in modules(room) if path != Path(__file__)):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for mark, separator in reasons.items():
                if mark in line:
                    assert separator in line.split(mark, 1)[1], f"{path}:{number} gives no reason"


def test_every_package_of_the_service_is_in_the_wheel() -> None:
    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(PROJECT).parts)
        for room in ("api", "deployments", "flows")
        for path in modules(room)
        if path.name == "__init__.py" and "plugin" not in path.parent.name
    }
    assert there == {name for name in listed if "plugin" not in name}
