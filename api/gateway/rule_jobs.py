"""Which task runs are rule jobs of a job, without asking Prefect."""

from collections import OrderedDict
from uuid import UUID

from flows.contract.rule_job_ids import task_run_id_of

MOST_RULE_JOBS = 1 << 16
"""Logs of further ones are refused: each unknown id is searched for among so many."""

_CHUNK = 1 << 10
_MOST_JOBS = 64


class RuleJobs:
    """Ids follow from the job and a number. Those of some jobs are kept, because a number does not follow."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, set[UUID]] = OrderedDict()

    @staticmethod
    def id_of(flow_run_id: UUID, number: int) -> UUID:
        return task_run_id_of(flow_run_id, number)

    def has(self, flow_run_id: UUID, task_run_id: UUID) -> bool:
        """Whether the task run is one of the first `MOST_RULE_JOBS` rule jobs of the job."""
        known = self._known.setdefault(flow_run_id, set())
        self._known.move_to_end(flow_run_id)
        while len(self._known) > _MOST_JOBS:
            self._known.popitem(last=False)
        while task_run_id not in known and len(known) < MOST_RULE_JOBS:
            known |= {task_run_id_of(flow_run_id, len(known) + number) for number in range(_CHUNK)}
        return task_run_id in known
