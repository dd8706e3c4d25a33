"""What a task run shows of its rule job: name, tags, edges, and the record that the API reads."""

import json

from flows.contract.spec import Label
from flows.record.task_runs import JsonObject, task_run_id_of
from tests.flows.stories import (
    Ask,
    Step,
    a_mirror,
    failed,
    plan_completed,
    planned,
    play,
    started,
    succeeded,
    task_run_of,
)

PREFECT_EVENT_BYTES = 1_500_000
"""What Prefect takes of one event (`server.events.maximum_size_bytes`)."""


def test_the_edges_are_the_plans() -> None:
    mirror = a_mirror()
    plan = [planned(1, "begin"), planned(2, "map", depends_on=(1,)), planned(3, "join", depends_on=(1, 2))]
    edges = {
        task_run_of(event)["name"]: [edge["id"] for edge in task_run_of(event)["task_inputs"]["depends_on"]]
        for event in play(mirror, *plan, plan_completed(3), Ask(0))
    }
    begin, map_, _ = (str(task_run_id_of(mirror.flow_run_id, job_id)) for job_id in (1, 2, 3))
    assert edges == {"begin": [], "map": [begin], "join": [begin, map_]}


def told_of(job_id: int, *steps: Step) -> list[JsonObject]:
    """What a server keeps of what it is told of a rule job: of two states of the same time, the first."""
    kept: dict[str, JsonObject] = {}
    for event in play(a_mirror(), *steps):
        if task_run_of(event)["dynamic_key"] == str(job_id):
            kept.setdefault(event["occurred"], event)
    return [kept[occurred] for occurred in sorted(kept)]


def edge_count(event: JsonObject) -> int:
    return len(task_run_of(event)["task_inputs"]["depends_on"])


def test_an_edge_to_a_rule_job_that_is_planned_later_is_told_before_it_runs() -> None:
    join, begin = planned(0, "join", depends_on=(1,)), planned(1, "begin")
    told = told_of(0, join, Ask(0), begin, plan_completed(2), Ask(1))
    assert edge_count(told[-1]) == 1


def test_an_edge_that_a_checkpoint_adds_is_told_before_the_rule_job_runs() -> None:
    plan: list[Step] = [planned(1, "split"), planned(2, "join", depends_on=(1,)), plan_completed(2)]
    growth: list[Step] = [planned(3, at=2), planned(2, "join", at=2, depends_on=(1, 3))]
    told = told_of(2, *plan, Ask(0), *growth, plan_completed(3, at=2), Ask(2))
    assert edge_count(told[-1]) == 2


def test_a_rule_job_is_called_after_its_rule_and_wildcards() -> None:
    (told,) = play(a_mirror(), planned(wildcards={"sample": "a", "n": "2"}), plan_completed(), Ask(0))
    assert task_run_of(told)["name"] == "map[sample=a,n=2]"
    assert task_run_of(told)["tags"] == ["map"]


def test_what_is_known_of_an_attempt_is_in_the_record() -> None:
    attempt = started(reason="Missing output files: a.txt", shell="touch a.txt", threads=2)
    (told,) = play(a_mirror(), planned(reason="planned", outputs=("a.txt",)), attempt, failed(), Ask(3))
    assert json.loads(task_run_of(told)["labels"][Label.RULE_JOB]) == {
        "rule": "map",
        "threads": 2,
        "reason": "Missing output files: a.txt",
        "shell": "touch a.txt",
        "outputs": ["a.txt"],
        "error": "Its command ended with exit code 1.",
    }


def test_no_rule_job_is_too_big_for_prefect() -> None:
    paths = tuple(f"results/a_rather_long_name_of_a_sample/{number:05}.bam" for number in range(20_000))
    reason = f"Missing output files: joined.bam; Input files updated by another job: {', '.join(paths)}"
    plan = [planned(number) for number in range(1, 20_001)]
    join = planned(0, "join", depends_on=tuple(range(1, 20_001)), reason=reason, inputs=paths)
    mirror = a_mirror()
    play(mirror, *plan, join, plan_completed(20_001), Ask(0))
    (told,) = play(mirror, started(0, reason=reason, shell="touch joined.bam"), succeeded(0), Ask(5))
    assert len(json.dumps(told)) < PREFECT_EVENT_BYTES
