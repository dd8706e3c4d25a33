"""The bucket of a group whose rule jobs are jobs of AWS Batch: what rule jobs read and write."""

from typing import Any

from constructs import Construct

from infra.constructs.storage import private_bucket


class RuleJobFiles(Construct):
    """A bucket of its own: Snakemake's plugin lists whole buckets, and would see files of other groups."""

    def __init__(self, scope: Construct, id: str, *, group: str, **options: Any) -> None:
        """`options` are those of `private_bucket`."""
        super().__init__(scope, id)
        self.bucket = private_bucket(self, log_prefix=f"rule-jobs-{group}", **options)
