"""A synthesized deployment as facts that tests ask for: who may what, what is public, what is encrypted.

Checks answer with findings, sentences that name the resource; none means that all is well.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

LOOKS_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|API_KEY|CREDENTIAL")
IDENTIFIES_A_SECRET = re.compile(r"_ARN$")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one template. `properties` is the template's own dictionary."""

    stack: str
    id: str
    body: dict[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = self.body.setdefault("Properties", {})
        return properties

    @property
    def reasons(self) -> dict[str, str]:
        """Rules of cdk-nag that are broken here, with the reasons."""
        rules = self.body.get("Metadata", {}).get("cdk_nag", {}).get("rules_to_suppress", [])
        return {rule["id"]: rule["reason"] for rule in rules}


@dataclass(frozen=True, slots=True)
class Statement:
    """What one role, or whoever a resource's policy names, may do."""

    role: str
    """Id of the role; the kind of the resource for a resource's own policy."""
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: dict[str, Any]
    origin: Resource


@dataclass(frozen=True, slots=True)
class Deployment:
    """All templates of one settings file, by the last part of the stack's name."""

    templates: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, directory: Path) -> "Deployment":
        paths = sorted(directory.glob("*.template.json"))
        return cls({path.name.split(".")[0].split("-")[-1]: json.loads(path.read_text()) for path in paths})

    def copy(self) -> "Deployment":
        return Deployment(copy.deepcopy(self.templates))

    def all(self, *kinds: str) -> Iterator[Resource]:
        for stack, template in self.templates.items():
            for id, body in template["Resources"].items():
                if not kinds or body["Type"] in kinds:
                    yield Resource(stack, id, body)

    def one(self, kind: str, id: str = "") -> Resource:
        """The only resource of a kind whose id begins so."""
        [found] = [resource for resource in self.all(kind) if resource.id.startswith(id)]
        return found

    def statements(self) -> Iterator[Statement]:
        for resource in self.all("AWS::IAM::Policy"):
            for role in resource.properties["Roles"]:
                yield from _statements(role["Ref"], resource.properties["PolicyDocument"], resource)
        for resource in self.all("AWS::IAM::Role"):
            for policy in resource.properties.get("Policies", []):
                yield from _statements(resource.id, policy["PolicyDocument"], resource)

    def who_may(self, action: str) -> set[str]:
        """The roles that may do it, by the words of their ids."""
        return {name(statement.role) for statement in self.statements() if action in statement.actions}

    def containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for definition in self.all("AWS::ECS::TaskDefinition"):
            for container in definition.properties["ContainerDefinitions"]:
                yield container["Name"], container


def name(id: str) -> str:
    """An id without the hash that the CDK adds: `WorkerDefinitionTaskRoleBA0F59CA` and so on."""
    return re.sub(r"[0-9A-F]{8}$", "", id)


def _statements(role: str, document: dict[str, Any], origin: Resource) -> Iterator[Statement]:
    for statement in document["Statement"]:
        yield Statement(
            role=role,
            effect=statement["Effect"],
            actions=tuple(_list(statement.get("Action", []))),
            resources=tuple(_text(resource) for resource in _list(statement.get("Resource", []))),
            condition=statement.get("Condition", {}),
            origin=origin,
        )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """An ARN as cdk-nag writes it: intrinsic functions in angle brackets."""
    match value:
        case str():
            return value
        case {"Ref": str(target)}:
            return f"<{target}>"
        case {"Fn::GetAtt": [str(target), str(attribute)]}:
            return f"<{target}.{attribute}>"
        case {"Fn::Join": [str(separator), list(parts)]}:
            return separator.join(_text(part) for part in parts)
    return f"<{json.dumps(value)}>"


# What is public


def public(deployment: Deployment) -> set[str]:
    """Everything that somebody outside the VPC can connect to, and every door that is open to the world."""
    found = set()
    for resource in deployment.all():
        properties, what = resource.properties, f"{resource.body['Type']} {name(resource.id)}"
        match resource.body["Type"]:
            case "AWS::ElasticLoadBalancingV2::LoadBalancer" if properties["Scheme"] != "internal":
                found.add(what)
            case "AWS::EC2::SecurityGroup":
                rules = properties.get("SecurityGroupIngress", [])
                found |= {f"{what} port {rule.get('FromPort')}" for rule in rules if _is_the_world(rule)}
            case "AWS::EC2::SecurityGroupIngress" if _is_the_world(properties):
                found.add(what)
            case "AWS::ECS::Service":
                network = properties["NetworkConfiguration"]["AwsvpcConfiguration"]
                if network["AssignPublicIp"] != "DISABLED":
                    found.add(what)
            case "AWS::RDS::DBInstance" if properties.get("PubliclyAccessible"):
                found.add(what)
            case "AWS::S3::Bucket":
                blocked = properties.get("PublicAccessBlockConfiguration", {})
                if [*blocked.values()] != [True] * 4:
                    found.add(what)
    return found


def _is_the_world(rule: dict[str, Any]) -> bool:
    cidr = rule.get("CidrIp")
    if isinstance(cidr, str):
        return not IPv4Network(cidr).is_private or IPv4Network(cidr).prefixlen == 0
    return "CidrIpv6" in rule


# What is encrypted


def unencrypted(deployment: Deployment) -> Iterator[str]:
    """What is stored in clear, or can be spoken to in clear."""
    for resource in deployment.all():
        properties, what = resource.properties, f"{resource.body['Type']} {name(resource.id)}"
        match resource.body["Type"]:
            case "AWS::S3::Bucket" if "BucketEncryption" not in properties:
                yield f"{what} stores in clear"
            case "AWS::S3::Bucket" | "AWS::SQS::Queue" if not _wants_tls(deployment, resource):
                yield f"{what} can be spoken to without TLS"
            case "AWS::SQS::Queue" if not properties.get("SqsManagedSseEnabled"):
                yield f"{what} stores in clear"
            case "AWS::RDS::DBCluster" if not properties.get("StorageEncrypted"):
                yield f"{what} stores in clear"
            case "AWS::RDS::DBInstance" if "DBClusterIdentifier" not in properties and not properties.get(
                "StorageEncrypted"
            ):
                yield f"{what} stores in clear"
            case "AWS::RDS::DBClusterParameterGroup" | "AWS::RDS::DBParameterGroup" if (
                properties["Parameters"].get("rds.force_ssl") != "1"
            ):
                yield f"{what} lets in who does not encrypt"
            case "AWS::ElasticLoadBalancingV2::Listener" if (
                properties["Protocol"] != "HTTPS" or "TLS13-1-2" not in properties["SslPolicy"]
            ):
                yield f"{what} speaks less than TLS 1.2"
            case "AWS::ElastiCache::ReplicationGroup":
                yield from _unencrypted_cache(what, properties)


def _unencrypted_cache(what: str, properties: dict[str, Any]) -> Iterator[str]:
    if not properties.get("AtRestEncryptionEnabled"):
        yield f"{what} stores in clear"
    if not properties.get("TransitEncryptionEnabled"):
        yield f"{what} can be spoken to without TLS"


def _wants_tls(deployment: Deployment, resource: Resource) -> bool:
    """Whether a policy of the bucket or queue denies everything that is not TLS."""
    for policy in deployment.all("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
        of = policy.properties.get("Bucket") or policy.properties["Queues"]
        if {"Ref": resource.id} in _list(of):
            return any(
                statement["Effect"] == "Deny"
                and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
                for statement in policy.properties["PolicyDocument"]["Statement"]
            )
    return False


# Who may what


def unexplained_wildcards(deployment: Deployment) -> Iterator[str]:
    """Allowed actions with a `*`, or on one, for which the template gives no reason of their own."""
    for statement in deployment.statements():
        if statement.effect != "Allow":
            continue
        for action in statement.actions:
            if "*" in action:
                yield f"{name(statement.role)} may {action}"
            for resource in statement.resources:
                if "*" in resource and not _reason(statement.origin, action, resource):
                    yield f"{name(statement.role)} may {action} on {resource}"


def _reason(origin: Resource, action: str, resource: str) -> str:
    """What `infra.constructs.nag_suppressions` has written of it: a line for each action."""
    lines = origin.reasons.get(f"AwsSolutions-IAM5[Resource::{resource}]", "").splitlines()
    reasons = {explained: reason for explained, _, reason in (line.partition(": ") for line in lines)}
    return reasons.get(action, "").strip()


def unweighed(deployment: Deployment) -> Iterator[str]:
    """Rights that no other check sees: policies from elsewhere, and all but what is named."""
    weighed = ("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::OIDCProvider")
    for resource in deployment.all():
        kind, properties = resource.body["Type"], resource.properties
        if kind.startswith("AWS::IAM::") and kind not in weighed:
            yield f"{name(resource.id)} is an {kind}"
        if properties.get("ManagedPolicyArns"):
            yield f"{name(resource.id)} has managed policies"
        for document in (properties.get("PolicyDocument"), *_inline(properties)):
            for statement in (document or {}).get("Statement", []):
                for word in ("NotAction", "NotResource", "NotPrincipal"):
                    if word in statement:
                        yield f"{name(resource.id)} has a {word}"


def _inline(properties: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in properties.get("Policies", []):
        if isinstance(policy, dict):
            yield policy.get("PolicyDocument", {})


def unheld(deployment: Deployment) -> Iterator[str]:
    """Rights of the kind that takes over an account or a cluster, without the condition that holds them."""
    conditions = {
        "iam:PassRole": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        "ecs:TagResource": {"StringEquals": {"ecs:CreateAction": "RunTask"}},
    }
    in_the_cluster = {"ecs:RunTask", "ecs:StopTask", "ecs:DescribeTasks", "ecs:ListTasks"}
    for statement in deployment.statements():
        for action in statement.actions:
            held = (
                "ecs:cluster" in statement.condition.get("ArnEquals", {})
                if action in in_the_cluster
                else statement.condition == conditions.get(action, statement.condition)
            )
            if not held:
                yield f"{name(statement.role)} may {action} without a condition"


# Secrets


def secret_literals(deployment: Deployment) -> Iterator[str]:
    """Secrets that could be read in a template or a task definition."""
    for container, definition in deployment.containers():
        for variable in definition.get("Environment", []):
            named = variable["Name"]
            if LOOKS_SECRET.search(named) and not IDENTIFIES_A_SECRET.search(named):
                yield f"container {container} has {named} in clear"
    for resource in deployment.all():
        for key, value in _leaves(resource.properties):
            if (
                key in ("SecretString", "MasterUserPassword", "AuthToken")
                and "{{resolve:secretsmanager:" not in value
            ):
                yield f"{name(resource.id)} has {key} in clear"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every property with a text in it. A joined text counts as one."""
    match value:
        case {"Fn::Join": _}:
            yield key, _text(value)
        case dict():
            for inner, content in value.items():
                yield from _leaves(content, inner)
        case list():
            for content in value:
                yield from _leaves(content, key)
        case str():
            yield key, value


# Operation


def neglected(deployment: Deployment) -> Iterator[str]:
    """What would fill up, stay unseen or be lost."""
    for resource in deployment.all():
        properties, what = resource.properties, f"{resource.body['Type']} {name(resource.id)}"
        match resource.body["Type"]:
            case "AWS::Logs::LogGroup" if "RetentionInDays" not in properties:
                yield f"{what} is kept for ever"
            case "AWS::SQS::Queue" if "RedrivePolicy" not in properties and "SQS3" not in str(
                resource.reasons
            ):
                yield f"{what} has no dead-letter queue"
            case "AWS::CloudWatch::Alarm" if not properties.get("AlarmActions"):
                yield f"{what} tells nobody"
            case "AWS::CloudWatch::Alarm" if not properties.get("AlarmDescription"):
                yield f"{what} says not what to do"
            case "AWS::ECS::Service" if not (
                properties["DeploymentConfiguration"].get("DeploymentCircuitBreaker", {}).get("Rollback")
            ):
                yield f"{what} is not rolled back"
            case "AWS::ElastiCache::ReplicationGroup" if not properties.get("AutomaticFailoverEnabled"):
                yield f"{what} has no standby"
    for container, definition in deployment.containers():
        if "LogConfiguration" not in definition:
            yield f"container {container} has no log"


def unprotected(deployment: Deployment) -> Iterator[str]:
    """Data that go with their stack, or that one call deletes."""
    for resource in deployment.all("AWS::S3::Bucket", "AWS::RDS::DBCluster", "AWS::RDS::DBInstance"):
        if resource.body.get("DeletionPolicy") not in ("Retain", "Snapshot") and (
            "DBClusterIdentifier" not in resource.properties
        ):
            yield f"{name(resource.id)} goes with its stack"
    for resource in deployment.all("AWS::RDS::DBCluster"):
        if not resource.properties.get("DeletionProtection"):
            yield f"{name(resource.id)} can be deleted by mistake"
