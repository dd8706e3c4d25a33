"""`wrapper:` directives from a copy that the operator names, and from an address that is out of reach."""

from pathlib import Path

from flows import diagnosis
from flows.contract.environments import SoftwareSettings
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.snakemake_process.events import ErrorRaised
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, staged, write_workflow

WORKFLOW = """
    rule greet:
        output: "hello.txt"
        wrapper: "v1.0.0/bio/greeter"
"""


def run(workspace: Workspace, directory: Path, software: Software) -> Run:
    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        return Run(workspace, list(execution.events()))


def test_a_wrapper_comes_from_the_operators_copy(workspace: Workspace, tmp_path: Path) -> None:
    wrapper = tmp_path / "wrappers" / "v1.0.0" / "bio" / "greeter"
    wrapper.mkdir(parents=True)
    (wrapper / "wrapper.py").write_text("open(snakemake.output[0], 'w').write('Moin')\n")
    (wrapper / "environment.yaml").write_text("channels: [conda-forge]\ndependencies: [python]\n")
    settings = SoftwareSettings(wrapper_prefix=f"{(tmp_path / 'wrappers').as_uri()}/")
    told = run(
        workspace, write_workflow(tmp_path / "w", WORKFLOW), Software(settings, (), tmp_path / "group")
    )
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert (workspace.work / "hello.txt").read_text() == "Moin"


def test_an_address_that_is_out_of_reach_is_named_with_what_to_do(
    workspace: Workspace, tmp_path: Path
) -> None:
    settings = SoftwareSettings(wrapper_prefix="https://127.0.0.1:9/wrappers/raw/")
    told = run(
        workspace, write_workflow(tmp_path / "w", WORKFLOW), Software(settings, (), tmp_path / "group")
    )
    assert told.exit_code == 1
    error = diagnosis.of_workflow(told.of(ErrorRaised), 1, "")
    assert "127.0.0.1:9" in error.message
    assert "JOBS_WRAPPER_PREFIX" in error.resolution


def test_sources_that_snakemake_fetches_are_kept_for_the_group(tmp_path: Path) -> None:
    software = Software(SoftwareSettings(), (), tmp_path / "group")
    assert software.variables()["XDG_CACHE_HOME"] == str(tmp_path / "group" / "cache")
