"""What is public, what is encrypted, who may what; and that each check sees a planted defect."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from flows.contract.job_tokens import GATEWAY_PATH
from tests.infra.deployment import (
    Deployment,
    name,
    neglected,
    public,
    secret_literals,
    unencrypted,
    unexplained_wildcards,
    unheld,
    unprotected,
    unweighed,
)

JOB_ROLES = {"JobsJobDefinitionTaskRole", "JobsJobDefinitionExecutionRole"}
WORKER = "WorkerDefinitionTaskRole"
FACADE = "FacadeApiDefinitionTaskRole"
JOB = "JobsJobDefinitionTaskRole"
FILES_OF_JOBS = "FacadeFilesOfJobs"


def test_the_load_balancer_is_the_only_public_thing(default: Deployment) -> None:
    assert public(default) == {
        "AWS::ElasticLoadBalancingV2::LoadBalancer DoorBalancer",
        "AWS::EC2::SecurityGroup DoorSecurityGroup port 443",
    }


def test_an_internal_facade_leaves_nothing_public(deployments: dict[str, Deployment]) -> None:
    assert public(deployments["instance"]) == set()


def test_a_setting_narrows_who_may_connect(deployments: dict[str, Deployment]) -> None:
    door = deployments["existing"].one("AWS::EC2::SecurityGroup", "DoorSecurityGroup")
    assert [rule["CidrIp"] for rule in door.properties["SecurityGroupIngress"]] == ["198.51.100.0/24"]


def test_there_is_one_listener_for_clients_and_it_is_https(deployment: Deployment) -> None:
    assert deployment.one("AWS::ElasticLoadBalancingV2::Listener", "Door").properties["Port"] == 443


@pytest.mark.parametrize(
    ("kind", "in_clear"),
    [
        ("default", []),
        # As without a balancer, the Prefect server speaks plain HTTP to the service's own tasks.
        ("existing", ["AWS::ElasticLoadBalancingV2::Listener PrefectBalancerHttp speaks less than TLS 1.2"]),
        ("instance", []),
    ],
)
def test_everything_is_encrypted_where_it_lies_and_on_its_way(
    deployments: dict[str, Deployment], kind: str, in_clear: list[str]
) -> None:
    assert list(unencrypted(deployments[kind])) == in_clear


def test_no_secret_stands_in_a_template(deployment: Deployment) -> None:
    assert list(secret_literals(deployment)) == []


def test_every_wildcard_has_a_written_reason(deployment: Deployment) -> None:
    assert list(unexplained_wildcards(deployment)) == []


def test_no_right_is_given_in_a_way_that_is_not_looked_at(deployment: Deployment) -> None:
    assert list(unweighed(deployment)) == []


def test_rights_that_reach_far_are_held_by_a_condition(deployment: Deployment) -> None:
    assert list(unheld(deployment)) == []


@pytest.mark.parametrize(
    ("action", "roles"),
    [
        ("ecs:RunTask", {WORKER}),
        ("ecs:StopTask", {WORKER}),
        ("iam:PassRole", {WORKER}),
        ("sqs:ReceiveMessage", {WORKER}),
        ("s3:GetObject", {FACADE, FILES_OF_JOBS}),
        ("s3:PutObject", {FACADE, FILES_OF_JOBS}),
        ("s3:DeleteObject", {FACADE}),
        ("s3:ListBucket", {FACADE}),
    ],
)
def test_who_may(default: Deployment, action: str, roles: set[str]) -> None:
    assert default.who_may(action) == roles


def test_a_rule_finds_neither_rights_nor_secrets_in_its_task(deployment: Deployment) -> None:
    """It runs as the same user as the rest of the task, and reads whatever is there."""
    assert [statement for statement in deployment.statements() if name(statement.role) == JOB] == []
    assert dict(deployment.containers())["job"].get("Secrets", []) == []
    roles = {name(role.id): role.properties for role in deployment.all("AWS::IAM::Role")}
    assert not {"Policies", "ManagedPolicyArns"} & roles[JOB].keys()


@pytest.mark.parametrize(
    ("kind", "roles"),
    [
        ("default", {FILES_OF_JOBS}),
        ("existing", {FILES_OF_JOBS, "FacadeHeadsOfnight"}),
        ("instance", {FILES_OF_JOBS, "FacadeHeadsOflarge"}),
    ],
)
def test_only_the_facade_makes_credentials_of_jobs(
    deployments: dict[str, Deployment], kind: str, roles: set[str]
) -> None:
    deployment = deployments[kind]
    facade = deployment.one("AWS::IAM::Role", FACADE)
    for role in roles:
        assume = deployment.one("AWS::IAM::Role", role).properties["AssumeRolePolicyDocument"]
        [trusted] = assume["Statement"]
        assert trusted["Principal"] == {"AWS": {"Fn::GetAtt": [facade.id, "Arn"]}}
    assumed = [
        name(resource.strip("<>").removesuffix(".Arn"))
        for statement in deployment.statements()
        if "sts:AssumeRole" in statement.actions and name(statement.role) == FACADE
        for resource in statement.resources
    ]
    assert sorted(assumed) == sorted(roles)


def test_the_world_does_not_reach_the_gateway_of_tasks(deployment: Deployment) -> None:
    rule = deployment.one("AWS::ElasticLoadBalancingV2::ListenerRule").properties
    assert rule["Priority"] == 1
    assert rule["Actions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == [GATEWAY_PATH, f"{GATEWAY_PATH}/*"]


def test_only_ecs_itself_reads_secrets_to_inject_them(deployment: Deployment) -> None:
    readers = deployment.who_may("secretsmanager:GetSecretValue")
    assert readers
    assert all(reader.endswith("ExecutionRole") for reader in readers), readers


def test_the_worker_hands_on_the_two_roles_of_a_job_and_no_other(deployment: Deployment) -> None:
    [passed] = [statement for statement in deployment.statements() if "iam:PassRole" in statement.actions]
    assert {name(role.strip("<>").removesuffix(".Arn")) for role in passed.resources} == JOB_ROLES


def test_the_worker_starts_tasks_of_the_family_of_jobs_only(default: Deployment) -> None:
    [run] = [statement for statement in default.statements() if "ecs:RunTask" in statement.actions]
    assert run.resources == (
        "arn:<AWS::Partition>:ecs:eu-central-1:111122223333:task-definition/prefect-snakemake-job:*",
    )


def test_the_server_lets_in_its_own_tasks_and_the_database_the_server(default: Deployment) -> None:
    reached: dict[int, set[str]] = {}
    for rule in default.all("AWS::EC2::SecurityGroupIngress"):
        source = rule.properties["SourceSecurityGroupId"]["Fn::GetAtt"][0]
        reached.setdefault(rule.properties["FromPort"], set()).add(name(source))
    assert reached == {
        4200: {"WorkerSecurityGroup", "FacadeApiSecurityGroup"},
        5432: {"PrefectServerSecurityGroup"},
        8000: {"DoorSecurityGroup", "JobsJobSecurityGroup"},
    }


def test_github_pushes_from_its_branch_and_deploys_from_its_environment(
    deployments: dict[str, Deployment],
) -> None:
    roles = {
        name(role.id): role.properties["AssumeRolePolicyDocument"]["Statement"][0]["Condition"][
            "StringEquals"
        ]
        for role in deployments["instance"].all("AWS::IAM::Role")
        if role.stack == "delivery"
    }
    issuer = "token.actions.githubusercontent.com"
    assert {id: condition[f"{issuer}:sub"] for id, condition in roles.items()} == {
        "GitHubPush": "repo:institute/prefect-snakemake:ref:refs/heads/main",
        "GitHubDeploy": "repo:institute/prefect-snakemake:environment:production",
    }
    assert {condition[f"{issuer}:aud"] for condition in roles.values()} == {"sts.amazonaws.com"}
    assert deployments["instance"].who_may("sts:AssumeRole") == {"GitHubDeploy", FACADE}
    assert deployments["instance"].who_may("ecr:PutImage") == {"GitHubPush"}


def test_only_the_rule_sends_to_the_queue(deployment: Deployment) -> None:
    rule = deployment.one("AWS::Events::Rule")
    senders = [
        (statement["Principal"], statement["Condition"])
        for policy in deployment.all("AWS::SQS::QueuePolicy")
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
    held = {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule.id, "Arn"]}}}
    assert senders == [({"Service": "events.amazonaws.com"}, held)] * 2


def test_nothing_fills_up_stays_unseen_or_fails_for_good(deployment: Deployment) -> None:
    assert list(neglected(deployment)) == []


def test_data_outlive_their_stack_unless_the_settings_say_otherwise(
    deployments: dict[str, Deployment],
) -> None:
    assert list(unprotected(deployments["default"])) == []
    assert {finding.split()[0] for finding in unprotected(deployments["instance"])} == {
        "StorageBucket",
        "RuleJobFileslargeBucket",
        "AccessLogsBucket",
        "DatabaseInstance",
    }


def open_the_database(deployment: Deployment) -> None:
    deployment.one("AWS::RDS::DBInstance").properties["PubliclyAccessible"] = True


def open_a_port(deployment: Deployment) -> None:
    group = deployment.one("AWS::EC2::SecurityGroup", "PrefectServer")
    group.properties["SecurityGroupIngress"] = [{"CidrIp": "0.0.0.0/0", "FromPort": 4200, "ToPort": 4200}]


def give_a_task_a_public_address(deployment: Deployment) -> None:
    service = deployment.one("AWS::ECS::Service", "Worker")
    service.properties["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] = "ENABLED"


def open_the_bucket(deployment: Deployment) -> None:
    bucket = deployment.one("AWS::S3::Bucket", "Storage")
    bucket.properties["PublicAccessBlockConfiguration"]["BlockPublicPolicy"] = False


def store_in_clear(deployment: Deployment) -> None:
    deployment.one("AWS::RDS::DBCluster").properties["StorageEncrypted"] = False


def speak_http(deployment: Deployment) -> None:
    deployment.one("AWS::ElasticLoadBalancingV2::Listener").properties["Protocol"] = "HTTP"


def speak_old_tls(deployment: Deployment) -> None:
    listener = deployment.one("AWS::ElasticLoadBalancingV2::Listener")
    listener.properties["SslPolicy"] = "ELBSecurityPolicy-2016-08"


def forget_tls_of_the_queue(deployment: Deployment) -> None:
    for policy in deployment.all("AWS::SQS::QueuePolicy"):
        statements = policy.properties["PolicyDocument"]["Statement"]
        statements[:] = [statement for statement in statements if statement["Effect"] != "Deny"]


def allow_every_role(deployment: Deployment) -> None:
    for statement in deployment.one("AWS::IAM::Policy", WORKER).properties["PolicyDocument"]["Statement"]:
        if statement["Action"] == "iam:PassRole":
            statement["Resource"] = "arn:aws:iam::111122223333:role/*"


def allow_every_action(deployment: Deployment) -> None:
    [statement, *_] = statements_of(deployment, FILES_OF_JOBS)
    statement["Action"] = "s3:*"


def statements_of(deployment: Deployment, role: str) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = deployment.one("AWS::IAM::Policy", role).properties["PolicyDocument"][
        "Statement"
    ]
    return statements


def allow_more_on_everything(deployment: Deployment) -> None:
    actions = ["s3:DeleteObject", "ecs:DeleteCluster"]
    statements_of(deployment, WORKER).append({"Effect": "Allow", "Action": actions, "Resource": "*"})


def allow_another_action_on_all_tasks(deployment: Deployment) -> None:
    for statement in statements_of(deployment, WORKER):
        if statement["Action"] == ["ecs:DescribeTasks", "ecs:StopTask"]:
            statement["Action"].append("ecs:ExecuteCommand")


def allow_all_but(deployment: Deployment) -> None:
    statements_of(deployment, WORKER).append({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})


def allow_everywhere_but(deployment: Deployment) -> None:
    statements_of(deployment, FACADE).append(
        {"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "a"}
    )


def make_an_administrator(deployment: Deployment) -> None:
    arn = "arn:aws:iam::aws:policy/AdministratorAccess"
    deployment.one("AWS::IAM::Role", JOB).properties["ManagedPolicyArns"] = [arn]


def write_a_policy_of_another_kind(deployment: Deployment) -> None:
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    properties = {"RoleName": {"Ref": JOB}, "PolicyName": "more", "PolicyDocument": everything}
    resource = {"Type": "AWS::IAM::RolePolicy", "Properties": properties}
    deployment.templates["service"]["Resources"]["More"] = resource


def drop_a_reason(deployment: Deployment) -> None:
    del deployment.one("AWS::IAM::Policy", WORKER).body["Metadata"]["cdk_nag"]


def drop_the_conditions(deployment: Deployment) -> None:
    for resource in deployment.all("AWS::IAM::Policy"):
        for statement in resource.properties["PolicyDocument"]["Statement"]:
            statement.pop("Condition", None)


def write_the_password(deployment: Deployment) -> None:
    definition = deployment.one("AWS::ECS::TaskDefinition", "Jobs")
    [container] = definition.properties["ContainerDefinitions"]
    container["Environment"].append({"Name": "PREFECT_API_AUTH_STRING", "Value": "planted"})


def choose_the_password(deployment: Deployment) -> None:
    deployment.one("AWS::RDS::DBCluster").properties["MasterUserPassword"] = "planted"


def keep_logs_for_ever(deployment: Deployment) -> None:
    del deployment.one("AWS::Logs::LogGroup", "Jobs").properties["RetentionInDays"]


def lose_dead_letters(deployment: Deployment) -> None:
    del deployment.one("AWS::SQS::Queue", "CrashDetectionQueue").properties["RedrivePolicy"]


def silence_an_alarm(deployment: Deployment) -> None:
    del deployment.one("AWS::CloudWatch::Alarm", "AlarmsServerDown").properties["AlarmActions"]


def let_data_go(deployment: Deployment) -> None:
    deployment.one("AWS::S3::Bucket", "Storage").body["DeletionPolicy"] = "Delete"


def unprotect_the_database(deployment: Deployment) -> None:
    deployment.one("AWS::RDS::DBCluster").properties["DeletionProtection"] = False


@pytest.mark.parametrize(
    ("plant", "check", "named"),
    [
        (open_the_database, public, "DatabaseClusterWriter"),
        (open_a_port, public, "PrefectServerSecurityGroup port 4200"),
        (give_a_task_a_public_address, public, "WorkerService"),
        (open_the_bucket, public, "StorageBucket"),
        (store_in_clear, unencrypted, "DatabaseCluster stores in clear"),
        (speak_http, unencrypted, "less than TLS 1.2"),
        (speak_old_tls, unencrypted, "less than TLS 1.2"),
        (forget_tls_of_the_queue, unencrypted, "CrashDetectionQueue can be spoken to without TLS"),
        (allow_every_role, unexplained_wildcards, "role/*"),
        (allow_every_action, unexplained_wildcards, "s3:*"),
        (drop_a_reason, unexplained_wildcards, "ecs:ListTasks on *"),
        (allow_more_on_everything, unexplained_wildcards, "s3:DeleteObject on *"),
        (allow_more_on_everything, unexplained_wildcards, "ecs:DeleteCluster on *"),
        (allow_another_action_on_all_tasks, unexplained_wildcards, "ecs:ExecuteCommand on arn:"),
        (allow_all_but, unweighed, "WorkerDefinitionTaskRoleDefaultPolicy has a NotAction"),
        (allow_everywhere_but, unweighed, "FacadeApiDefinitionTaskRoleDefaultPolicy has a NotResource"),
        (make_an_administrator, unweighed, "JobsJobDefinitionTaskRole has managed policies"),
        (write_a_policy_of_another_kind, unweighed, "More is an AWS::IAM::RolePolicy"),
        (drop_the_conditions, unheld, "iam:PassRole without a condition"),
        (drop_the_conditions, unheld, "ecs:RunTask without a condition"),
        (write_the_password, secret_literals, "job has PREFECT_API_AUTH_STRING in clear"),
        (choose_the_password, secret_literals, "MasterUserPassword"),
        (keep_logs_for_ever, neglected, "JobsJobLogs is kept for ever"),
        (lose_dead_letters, neglected, "CrashDetectionQueue has no dead-letter queue"),
        (silence_an_alarm, neglected, "AlarmsServerDown tells nobody"),
        (let_data_go, unprotected, "StorageBucket goes with its stack"),
        (unprotect_the_database, unprotected, "DatabaseCluster can be deleted by mistake"),
    ],
)
def test_a_planted_defect_is_found(
    default: Deployment,
    plant: Callable[[Deployment], None],
    check: Callable[[Deployment], Iterable[str]],
    named: str,
) -> None:
    before = set(check(default))
    plant(default)
    new = set(check(default)) - before
    assert any(named in finding for finding in new), new
