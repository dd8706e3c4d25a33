"""All that is read of Prefect about jobs, shared by all callers."""

from dataclasses import dataclass
from typing import Self

from prefect.client.orchestration import PrefectClient

from api.prefect.flow_runs import FlowRuns
from api.prefect.log_reads import LogReads
from api.prefect.rule_job_reads import RuleJobReads


@dataclass(frozen=True, slots=True)
class JobReads:
    """Jobs, their rule jobs and their logs."""

    flow_runs: FlowRuns
    rule_jobs: RuleJobReads
    logs: LogReads

    @classmethod
    def of(cls, client: PrefectClient, timeout_seconds: float, prefect_ui_url: str) -> Self:
        return cls(
            FlowRuns(client, timeout_seconds, prefect_ui_url),
            RuleJobReads(client, timeout_seconds),
            LogReads(client, timeout_seconds),
        )
