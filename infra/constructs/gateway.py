"""How tasks of jobs reach the service: through the facade, each with a token of its own job."""

from collections.abc import Mapping

from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge

FACADE_PORT = 8000
PATH = "/prefect-gateway"
"""Requests for it come from inside the VPC only: the load balancer answers them itself."""

_NAME = "facade"


class Gateway(Construct):
    """The facade's name in the VPC, and the secret with which worker and facade make and check tokens."""

    def __init__(self, scope: Construct, id: str, *, namespace: servicediscovery.PrivateDnsNamespace) -> None:
        super().__init__(scope, id)
        self._namespace = namespace
        self._secret = secretsmanager.Secret(
            self,
            "Secret",
            description="JOBS_GATEWAY_SECRET: makes and checks the tokens of jobs",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=48, exclude_punctuation=True
            ),
        )
        acknowledge(self._secret, "AwsSolutions-SMG4", "Running tasks keep the token that they started with.")

    @property
    def url(self) -> str:
        return f"http://{_NAME}.{self._namespace.namespace_name}:{FACADE_PORT}"

    @property
    def secrets(self) -> Mapping[str, ecs.Secret]:
        """For the worker, which makes tokens, and the facade, which checks them."""
        return {"JOBS_GATEWAY_SECRET": ecs.Secret.from_secrets_manager(self._secret)}

    def lead_to(self, service: ecs.FargateService) -> None:
        """The name leads to each task of the facade."""
        service.enable_cloud_map(
            cloud_map_namespace=self._namespace,
            name=_NAME,
            dns_record_type=servicediscovery.DnsRecordType.A,
        )
