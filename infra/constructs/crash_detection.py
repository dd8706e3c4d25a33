"""Tells the worker when a task ends: EventBridge to a queue, and what can't be read to another."""

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.constructs.reasons import acknowledge


class CrashDetection(Construct):
    """Changes of jobs' tasks only: those of services would flood the worker, which reads one at a time."""

    def __init__(self, scope: Construct, id: str, *, name: str, cluster_arn: str, family: str) -> None:
        super().__init__(scope, id)
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        acknowledge(self.dead_letters, "AwsSolutions-SQS3", "This is the dead-letter queue.")
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=f"{name}-tasks",
            # SQS's own key: EventBridge could not use the one of KMS that AWS keeps.
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            visibility_timeout=Duration.minutes(2),
            retention_period=Duration.days(4),
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=5, queue=self.dead_letters),
        )
        self.rule = events.Rule(
            self,
            "TaskStateChange",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                detail={"clusterArn": [cluster_arn], "group": [f"family:{family}"]},
            ),
            targets=[targets.SqsQueue(self.queue, dead_letter_queue=self.dead_letters)],
        )
