"""`envmodules:` directives, with the real environment-modules of Debian."""

from pathlib import Path

import pytest

from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, staged, write_workflow

INIT = Path("/usr/share/modules/init/bash")

pytestmark = pytest.mark.skipif(
    not INIT.exists(), reason="environment-modules is not installed: make software, as root"
)


@pytest.fixture
def software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Software:
    """A module `greeter/1.0`."""
    tool = tmp_path / "opt" / "bin" / "greeter"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho Moin from $GREETER_HOME\n")
    tool.chmod(0o755)
    module = tmp_path / "modules" / "greeter" / "1.0"
    module.parent.mkdir(parents=True)
    module.write_text(f"#%Module1.0\nprepend-path PATH {tool.parent}\nsetenv GREETER_HOME the-module\n")
    monkeypatch.setenv("MODULEPATH", str(tmp_path / "modules"))
    methods = (SoftwareMethod.ENV_MODULES,)
    return Software(SoftwareSettings(modules_init=INIT), methods, tmp_path / "group")


def run(workspace: Workspace, directory: Path, software: Software) -> Run:
    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        return Run(workspace, list(execution.events()))


def workflow(directory: Path, module: str) -> Path:
    return write_workflow(
        directory,
        f"""
        rule greet:
            output: "hello.txt"
            envmodules: "{module}"
            shell: "greeter > {{output}}"
        """,
    )


def test_a_rule_runs_with_the_module_that_it_declares(
    workspace: Workspace, tmp_path: Path, software: Software
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", "greeter/1.0"), software)
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert (workspace.work / "hello.txt").read_text() == "Moin from the-module\n"


def test_a_module_that_is_missing_shows_in_the_output_of_the_rule(
    workspace: Workspace, tmp_path: Path, software: Software
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", "greeter/9"), software)
    assert told.exit_code == 1
    assert "greeter/9" in told.output_of("greet")
