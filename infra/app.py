"""The whole deployment: five stacks. What changes together is in one of them."""

from aws_cdk import App, Environment, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from infra.settings.file import Settings
from infra.stacks.data import DataStack
from infra.stacks.delivery import DeliveryStack
from infra.stacks.foundation import FoundationStack
from infra.stacks.service import ServiceStack
from infra.stacks.watch import WatchStack


def build(app: App, settings: Settings) -> None:
    """Add the stacks to `app`, and cdk-nag's checks: a finding that is not suppressed fails the synthesis."""
    # Without it, the CLI would look the zones up in the account.
    app.node.set_context(
        f"availability-zones:account={settings.account}:region={settings.region}", list(settings.zones)
    )
    environment = Environment(account=settings.account, region=settings.region)
    delivery = DeliveryStack(app, f"{settings.name}-delivery", settings, env=environment)
    foundation = FoundationStack(app, f"{settings.name}-foundation", settings, env=environment)
    data = DataStack(
        app,
        f"{settings.name}-data",
        settings,
        vpc=foundation.vpc,
        access_logs=foundation.access_logs,
        env=environment,
        termination_protection=settings.protect_data,
    )
    service = ServiceStack(
        app,
        f"{settings.name}-service",
        settings,
        vpc=foundation.vpc,
        access_logs=foundation.access_logs,
        repository=delivery.repository,
        storage=data.storage,
        database=data.database,
        env=environment,
    )
    service.add_stack_dependency(data)
    WatchStack(app, f"{settings.name}-watch", settings, data=data, service=service, env=environment)
    # CloudFormation's schema of a listener has no tags, though the CDK would write them.
    Tags.of(app).add(
        "project", settings.name, exclude_resource_types=["AWS::ElasticLoadBalancingV2::Listener"]
    )
    Validations.of(app).add_plugins(AwsSolutionsChecks(app, write_suppressions_to_cloud_formation=True))
