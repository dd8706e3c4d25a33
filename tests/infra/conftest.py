"""Each settings file is synthesized once a session, by the CDK's own command line, strictly."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.deployment import Deployment

PROJECT = Path(__file__).parents[2]
INFRA = PROJECT / "infra"
ENVIRONMENT = PROJECT / ".venv"
SETTINGS = Path(__file__).parent / "settings"
KINDS = ("default", "existing", "instance")


def run_node(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of infra/package.json in infra/, with the node of the environment."""
    command = INFRA / "node_modules" / ".bin" / program
    assert command.exists(), f"There is no {command}: run `make cdk`."
    node = shutil.which("node", path=str(ENVIRONMENT / "bin"))
    assert node is not None, "There is no node in the environment: run `make env`."
    return subprocess.run(
        [node, str(command), *arguments],
        cwd=INFRA,
        env={**os.environ, "PATH": f"{Path(node).parent}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def synth(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_node("cdk", "synth", "--strict", "--quiet", "--output", str(output), *options)


@pytest.fixture(scope="session")
def assemblies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of templates, by the name of the settings file."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp(f"cdk-{kind}")
        done = synth(made[kind], "--context", f"settings={SETTINGS / kind}.toml")
        assert done.returncode == 0, f"{kind}: {done.stdout}{done.stderr}"
    return made


@pytest.fixture(scope="session")
def deployments(assemblies: dict[str, Path]) -> dict[str, Deployment]:
    return {kind: Deployment.read(directory) for kind, directory in assemblies.items()}


@pytest.fixture
def default(deployments: dict[str, Deployment]) -> Deployment:
    """A copy of what the least settings give, to be broken at will."""
    return deployments["default"].copy()


@pytest.fixture(params=KINDS)
def deployment(request: pytest.FixtureRequest, deployments: dict[str, Deployment]) -> Deployment:
    """Each deployment in turn."""
    kind: str = request.param
    return deployments[kind]
