"""Pages of rule jobs and of log lines hold whatever comes and goes, and however ties are ordered."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import Log, StateType, TaskRun

from api.prefect.log_pages import LogKey, next_logs
from api.prefect.task_pages import READ_AT_MOST, Mark, next_task_runs

pytestmark = pytest.mark.anyio

START = datetime(2025, 10, 9, tzinfo=UTC)


class TaskRunTable:
    """Task runs as Prefect gives them: by id downwards, from a row on."""

    def __init__(self, numbers: set[int]) -> None:
        self.numbers = set(numbers)
        self.read_rows = 0

    async def read(self, row: int, limit: int) -> Sequence[TaskRun]:
        rows = sorted(self.numbers, reverse=True)[row : row + limit]
        self.read_rows += len(rows)
        return [_task_run(number) for number in rows]


class LogTable:
    """Lines as Prefect gives them: by time, those of the same time as it likes."""

    def __init__(self, seconds: list[int], random: Random) -> None:
        self.logs = [_log(number, second) for number, second in enumerate(sorted(seconds))]
        self._random = random

    async def read(self, start: datetime | None, offset: int, limit: int) -> Sequence[Log]:
        logs = [log for log in self.logs if start is None or log.timestamp >= start]
        self._random.shuffle(logs)
        return sorted(logs, key=lambda log: log.timestamp)[offset : offset + limit]


def _task_run(number: int) -> TaskRun:
    return TaskRun(
        id=UUID(int=number), task_key="rule", dynamic_key=str(number), state_type=StateType.COMPLETED
    )


def _log(number: int, second: int) -> Log:
    timestamp = START + timedelta(seconds=second)
    created = START + timedelta(days=1, microseconds=number)
    return Log.model_validate(
        {"name": "log", "level": 20, "message": str(number), "timestamp": timestamp, "created": created}
    )


def is_any(task_run: TaskRun) -> bool:
    return True


numbers = st.integers(0, 500)


@given(
    there=st.sets(numbers, max_size=80),
    changes=st.lists(st.tuples(st.sets(numbers, max_size=12), st.sets(numbers, max_size=12)), max_size=12),
    limit=st.integers(1, 9),
)
async def test_rule_jobs_that_stay_are_given_once_whatever_comes_and_goes(
    there: set[int], changes: list[tuple[set[int], set[int]]], limit: int
) -> None:
    table = TaskRunTable(there)
    staying = set(there)
    given_numbers: list[int] = []
    mark: Mark | None = None
    for coming, leaving in [*changes, *[(set[int](), set[int]())] * 500]:
        page, mark = await next_task_runs(table.read, mark, limit, is_any)
        assert len(page) <= limit
        given_numbers += [task_run.id.int for task_run in page]
        if mark is None:
            break
        table.numbers = (table.numbers | coming) - leaving
        staying -= leaving

    assert mark is None
    assert given_numbers == sorted(set(given_numbers), reverse=True)
    assert staying <= set(given_numbers)


async def test_a_search_for_rare_rule_jobs_ends_early_and_goes_on_with_the_next_page() -> None:
    table = TaskRunTable(set(range(3 * READ_AT_MOST)))
    rare = {5, 2_500}

    found: list[int] = []
    mark: Mark | None = None
    for _ in range(10):
        table.read_rows = 0
        page, mark = await next_task_runs(table.read, mark, 50, lambda task_run: task_run.id.int in rare)
        assert table.read_rows < 1.1 * READ_AT_MOST
        found += [task_run.id.int for task_run in page]
        if mark is None:
            break

    assert mark is None
    assert found == [2_500, 5]


@given(seconds=st.lists(st.integers(0, 8), max_size=150), limit=st.integers(1, 60), seed=st.integers())
async def test_log_lines_come_in_the_order_in_which_they_were_written(
    seconds: list[int], limit: int, seed: int
) -> None:
    table = LogTable(seconds, Random(seed))
    walked: list[int] = []
    after: LogKey | None = None
    for _ in range(len(seconds) + 1):
        page, after = await next_logs(table.read, after, limit)
        assert len(page) <= limit
        walked += [int(log.message) for log in page]
        if after is None:
            break

    assert after is None
    assert walked == list(range(len(seconds)))
