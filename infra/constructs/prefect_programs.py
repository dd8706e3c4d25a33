"""What all programs of the Prefect server have in common: the database, and the password of its clients."""

from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.database import DatabaseEndpoint
from infra.constructs.nag_suppressions import acknowledge, explain_wildcard
from infra.constructs.service import PREFECT_PORT


def client_password(scope: Construct) -> secretsmanager.Secret:
    """The generated PREFECT_API_AUTH_STRING of all clients."""
    auth = secretsmanager.Secret(
        scope,
        "Auth",
        description="PREFECT_API_AUTH_STRING of all clients of the Prefect server",
        generate_secret_string=secretsmanager.SecretStringGenerator(
            password_length=48, exclude_punctuation=True
        ),
    )
    acknowledge(auth, "AwsSolutions-SMG4", "Running tasks keep the password that they started with.")
    return auth


def environment(database: DatabaseEndpoint) -> dict[str, str]:
    return {
        # Without the driver, Prefect ignores the other variables and uses SQLite.
        "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
        "PREFECT_SERVER_DATABASE_HOST": database.host,
        "PREFECT_SERVER_DATABASE_PORT": str(database.port),
        "PREFECT_SERVER_DATABASE_NAME": database.name,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{PREFECT_PORT}/api",
    }


def secrets(database: DatabaseEndpoint, auth: secretsmanager.ISecret) -> dict[str, ecs.Secret]:
    return {
        "PREFECT_SERVER_DATABASE_USER": ecs.Secret.from_secrets_manager(database.secret, "username"),
        "PREFECT_SERVER_DATABASE_PASSWORD": ecs.Secret.from_secrets_manager(database.secret, "password"),
        "PREFECT_SERVER_API_AUTH_STRING": ecs.Secret.from_secrets_manager(auth),
    }


def explain_ecs_exec(role: iam.IRole) -> None:
    """For a task that may be entered."""
    reason = "For ECS Exec, which the settings enable; it supports no resources."
    explain_wildcard(role, "*", dict.fromkeys(_OF_ECS_EXEC, reason))


_OF_ECS_EXEC = tuple(
    f"ssmmessages:{verb}{channel}Channel" for verb in ("Create", "Open") for channel in ("Control", "Data")
)
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html"""
