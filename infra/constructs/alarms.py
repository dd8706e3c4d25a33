"""Alarms by e-mail. Each description says what to do."""

import math
from collections.abc import Sequence

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

_LOOKED = "Looked at all jobs."
"""What the reconciler logs after each pass (`deployments/reconciler.py`)."""

_MINUTE = Duration.minutes(1)
_FIVE_MINUTES = Duration.minutes(5)
_IGNORE = cloudwatch.TreatMissingData.NOT_BREACHING
_ALARM = cloudwatch.TreatMissingData.BREACHING


class Alarms(Construct):
    """An e-mail when an alarm fires, and when it ends. AWS asks once to confirm the address."""

    def __init__(self, scope: Construct, id: str, *, email: str) -> None:
        super().__init__(scope, id)
        self.topic = sns.Topic(self, "Topic", enforce_ssl=True)
        self.topic.add_subscription(subscriptions.EmailSubscription(email))
        # `enforce_ssl` gives the topic a policy, which replaces the one that allows CloudWatch.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )

    def watch_crash_detection(self, queue: sqs.IQueue, dead_letters: sqs.IQueue) -> None:
        self._alarm(
            "DeadLetters",
            dead_letters.metric_approximate_number_of_messages_visible(period=_MINUTE, statistic="Maximum"),
            above=0,
            means="The worker could not handle the event of a task: read its log, then redrive the queue.",
        )
        self._alarm(
            "CrashDetectionWaits",
            queue.metric_approximate_age_of_oldest_message(period=_MINUTE, statistic="Maximum"),
            above=300,
            means="The worker does not read the events of ended tasks: check the worker.",
        )

    def watch_facade(
        self, balancer: elb.ApplicationLoadBalancer, targets: elb.ApplicationTargetGroup
    ) -> None:
        self._alarm(
            "FacadeFails",
            targets.metrics.http_code_target(
                elb.HttpCodeTarget.TARGET_5XX_COUNT, period=_FIVE_MINUTES, statistic="Sum"
            ),
            above=10,
            means="The facade answers with 5xx: read its log and the Prefect server's.",
        )
        self._alarm(
            "BalancerFails",
            balancer.metrics.http_code_elb(
                elb.HttpCodeElb.ELB_5XX_COUNT, period=_FIVE_MINUTES, statistic="Sum"
            ),
            above=10,
            means="The load balancer reaches no facade: check the facade's tasks.",
        )
        self._alarm(
            "FacadeUnhealthy",
            targets.metrics.unhealthy_host_count(period=_MINUTE, statistic="Maximum"),
            above=0,
            periods=5,
            means="A facade does not answer /livez: read its log.",
        )

    def watch_server(
        self, balancer: elb.ApplicationLoadBalancer, targets: elb.ApplicationTargetGroup
    ) -> None:
        self._alarm(
            "ServerBalancerFails",
            balancer.metrics.http_code_elb(
                elb.HttpCodeElb.ELB_5XX_COUNT, period=_FIVE_MINUTES, statistic="Sum"
            ),
            above=10,
            means="The balancer reaches no Prefect server: check the server's tasks.",
        )
        self._alarm(
            "ServerUnhealthy",
            targets.metrics.unhealthy_host_count(period=_MINUTE, statistic="Maximum"),
            above=0,
            periods=5,
            means="A Prefect server does not reach its database or Valkey: /api/ready in its log says which.",
        )

    def watch_valkey(self, node_ids: Sequence[str]) -> None:
        """All nodes: each may be the one that is used, after a failover."""
        self._alarm(
            "ValkeyMemory",
            _highest("DatabaseMemoryUsagePercentage", node_ids),
            above=70,
            means="Events pile up in Valkey: check Prefect's services, or choose a larger "
            "server.messaging.node_type. When it is full, no job can be created.",
        )
        self._alarm(
            "ValkeyCpu",
            _highest("EngineCPUUtilization", node_ids),
            above=80,
            periods=3,
            means="Valkey is busy: choose a larger server.messaging.node_type.",
        )

    def watch_service(self, name: str, service: ecs.FargateService) -> None:
        """Each task sends one sample a minute, so a service without a task sends none."""
        self._alarm(
            f"{name}Down",
            service.metric_cpu_utilization(period=_MINUTE, statistic="SampleCount"),
            below=1,
            periods=5,
            missing=_ALARM,
            means=f"The service {name.lower()} has no task: read its log and the events of the service.",
        )

    def watch_reconciler(self, log_group: logs.ILogGroup, *, name: str, every_seconds: int) -> None:
        """Its log, because a reconciler that hangs is still a running task."""
        looks = logs.MetricFilter(
            self,
            "Looks",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.string_value("$.message", "=", _LOOKED),
            metric_namespace=name,
            metric_name="ReconcilerLooks",
        )
        self._alarm(
            "ReconcilerSilent",
            looks.metric(period=_FIVE_MINUTES, statistic="Sum"),
            below=1,
            # A pass may take as long as the pause before it.
            periods=max(3, math.ceil(3 * every_seconds / _FIVE_MINUTES.to_seconds())),
            missing=_ALARM,
            means="The reconciler has stopped reporting: read its lines in the worker's log.",
        )

    def watch_aurora(self, cluster: rds.DatabaseCluster) -> None:
        self._alarm(
            "DatabaseCapacity",
            cluster.metric("ACUUtilization", period=_FIVE_MINUTES, statistic="Average"),
            above=90,
            periods=3,
            means="The database is near its maximum capacity: raise database.max_capacity.",
        )

    def watch_instance(self, instance: rds.DatabaseInstance) -> None:
        self._alarm(
            "DatabaseCpu",
            instance.metric_cpu_utilization(period=_FIVE_MINUTES, statistic="Average"),
            above=80,
            periods=3,
            means="The database is busy: give it a larger instance_type.",
        )
        self._alarm(
            "DatabaseDisk",
            instance.metric_free_storage_space(period=_FIVE_MINUTES, statistic="Minimum"),
            below=2 << 30,
            means="The database has less than 2 GiB of disk left: raise database.storage_gib.",
        )

    def _alarm(
        self,
        id: str,
        metric: cloudwatch.IMetric,
        *,
        means: str,
        above: float | None = None,
        below: float | None = None,
        periods: int = 1,
        missing: cloudwatch.TreatMissingData = _IGNORE,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            id,
            metric=metric,
            alarm_description=means,
            threshold=above if above is not None else below,
            comparison_operator=(
                cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
                if above is not None
                else cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
            ),
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        alarm.add_ok_action(actions.SnsAction(self.topic))


def _highest(metric: str, node_ids: Sequence[str]) -> cloudwatch.MathExpression:
    """The highest value of nodes of ElastiCache."""
    nodes = {
        f"node{number}": cloudwatch.Metric(
            namespace="AWS/ElastiCache",
            metric_name=metric,
            dimensions_map={"CacheClusterId": node_id, "CacheNodeId": "0001"},
            statistic="Maximum",
            period=_FIVE_MINUTES,
        )
        for number, node_id in enumerate(node_ids, 1)
    }
    return cloudwatch.MathExpression(
        expression=f"MAX([{','.join(nodes)}])", using_metrics=dict(nodes), period=_FIVE_MINUTES
    )
