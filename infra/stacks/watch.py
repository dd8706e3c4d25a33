"""Alarms and the budget."""

from typing import Any

from aws_cdk import Stack
from constructs import Construct

from infra.constructs.alarms import Alarms
from infra.constructs.budget import Budget
from infra.constructs.larger_server import LargerPrefectServer
from infra.settings.file import Settings
from infra.stacks.data import DataStack
from infra.stacks.service import ServiceStack


class WatchStack(Stack):
    def __init__(
        self,
        scope: Construct,
        id: str,
        settings: Settings,
        *,
        data: DataStack,
        service: ServiceStack,
        **options: Any,
    ) -> None:
        super().__init__(scope, id, **options)
        watch = settings.watch
        alarms = Alarms(self, "Alarms", email=watch.email)
        alarms.watch_crash_detection(service.crash_detection.queue, service.crash_detection.dead_letters)
        alarms.watch_facade(service.load_balancer.balancer, service.load_balancer.targets)
        alarms.watch_service("Server", service.server.service)
        if isinstance(service.server, LargerPrefectServer):
            alarms.watch_service("Services", service.server.services)
            alarms.watch_server(service.server.balancer, service.server.targets)
            alarms.watch_valkey(service.server.valkey.node_ids)
        alarms.watch_service("Facade", service.facade.service)
        alarms.watch_service("Worker", service.worker.service)
        alarms.watch_reconciler(
            service.worker.task.log_group,
            name=settings.name,
            every_seconds=settings.worker.reconcile_seconds,
        )
        if data.cluster is not None:
            alarms.watch_aurora(data.cluster)
        if data.instance is not None:
            alarms.watch_instance(data.instance)
        Budget(self, "Budget", name=settings.name, monthly_usd=watch.monthly_budget_usd, email=watch.email)
