"""`GET /jobs/{id}/graph.svg`: the workflow's graph, as Prefect has it now."""

import time
from collections import Counter
from collections.abc import Iterator
from uuid import UUID
from xml.etree import ElementTree

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import StateType

from api.insight.drawing import draw
from api.insight.graphs import Graph, GraphOf, Node
from api.insight.svg import NAMESPACE
from api.web.statuses import RuleJobStatus
from flows.contract.spec import RuleJobState
from tests.api.support import RuleJobInState, Worker, submit, the_problem

pytestmark = pytest.mark.anyio

HOSTILE = '<script>alert("1")</script>&amp;\x00\x1b]]>\ud800\ufffe'


def tooltips(svg: bytes, tag: str) -> Iterator[str]:
    """Those of the boxes (`g`) or of the lines (`path`)."""
    for element in ElementTree.fromstring(svg).iter(f"{{{NAMESPACE}}}{tag}"):
        title = element.find(f"{{{NAMESPACE}}}title")
        if title is not None:
            yield title.text or ""


def texts(svg: bytes) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(svg).iter(f"{{{NAMESPACE}}}text")}


async def drawn(api: httpx.AsyncClient, job_id: UUID, of: str = "rules") -> bytes:
    response = await api.get(f"/jobs/{job_id}/graph.svg", params={"of": of})
    assert response.status_code == 200, response.text
    return response.content


async def a_job_half_done(api: httpx.AsyncClient, worker: Worker) -> UUID:
    """`begin` has ended, `map` is on its way with one failure, `join` waits for it."""
    job_id = await submit(api, name="trio-1")
    await worker.bring_to(job_id, StateType.RUNNING)
    map_states = [StateType.COMPLETED, StateType.RUNNING, StateType.FAILED, StateType.PENDING]
    await worker.record(
        job_id,
        [
            RuleJobInState(0, StateType.COMPLETED, RuleJobState.SKIPPED, "begin"),
            *(
                RuleJobInState(number, state, rule="map", depends_on=(0,))
                for number, state in enumerate(map_states, start=1)
            ),
            RuleJobInState(5, StateType.PENDING, rule="join", attempts=0, depends_on=(1, 2, 3, 4)),
        ],
    )
    return job_id


async def test_rules_are_counted_by_state(api: httpx.AsyncClient, worker: Worker) -> None:
    svg = await drawn(api, await a_job_half_done(api, worker))

    assert list(tooltips(svg, "path")) == ["begin → map", "map → join"]
    assert {"begin", "map", "join", "trio-1", "1 of 4 · 1 failed · 1 running"} <= texts(svg)
    assert {"1 completed", "1 skipped", "1 running", "2 pending", "1 failed", "0 cancelled"} <= texts(svg)
    assert any("2 of 6 rule jobs done" in text for text in texts(svg))


async def test_rule_jobs_are_drawn_with_their_own_edges(api: httpx.AsyncClient, worker: Worker) -> None:
    svg = await drawn(api, await a_job_half_done(api, worker), of="jobs")

    assert set(tooltips(svg, "path")) == {
        *(f"begin[n=0] → map[n={number}]" for number in range(1, 5)),
        *(f"map[n={number}] → join[n=5]" for number in range(1, 5)),
    }
    assert Counter(tooltip.splitlines()[1] for tooltip in tooltips(svg, "g")) == {
        "1 completed": 1,
        "1 skipped": 1,
        "1 running": 1,
        "1 failed": 1,
        "1 pending": 2,
    }


async def test_the_picture_follows_the_job(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await a_job_half_done(api, worker)
    path = f"/jobs/{job_id}/graph.svg"
    first = await api.get(path)
    same = await api.get(path, headers={"If-None-Match": first.headers["etag"]})
    await worker.record(
        job_id, [RuleJobInState(2, StateType.COMPLETED, depends_on=(0,), timestamp=1_760_000_100)]
    )
    await anyio.sleep(1.1)

    later = await api.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert (same.status_code, same.content) == (304, b"")
    assert later.status_code == 200
    assert "2 of 4 · 1 failed" in texts(later.content)
    assert later.headers["cache-control"] == "no-cache"


async def test_a_job_without_a_plan_has_an_empty_picture(api: httpx.AsyncClient) -> None:
    svg = await drawn(api, await submit(api))

    assert list(tooltips(svg, "g")) == []
    assert "pending · no plan yet" in texts(svg)


async def test_it_is_a_picture_and_nothing_else(api: httpx.AsyncClient) -> None:
    response = await api.get(f"/jobs/{await submit(api)}/graph.svg")

    assert response.headers["content-type"] == "image/svg+xml"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_names_of_a_workflow_stay_text(api: httpx.AsyncClient, worker: Worker) -> None:
    name = HOSTILE.replace("\x00", "").replace("\ud800", "")  # which PostgreSQL and UTF-8 don't take
    job_id = await submit(api, name="<b>&")
    await worker.record(job_id, [RuleJobInState(1, name=f"map[sample={name}]")])

    svg = await drawn(api, job_id, of="jobs")

    assert b"<script" not in svg
    assert b"<b>" not in svg
    (tooltip,) = tooltips(svg, "g")
    assert '<script>alert("1")</script>&amp;' in tooltip


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.sampled_from(GraphOf))
def test_any_name_leaves_the_document_whole(heading: str, name: str, note: str, kind: GraphOf) -> None:
    names = (f"{name}{HOSTILE}", HOSTILE[:9])
    nodes = tuple(Node(name, {RuleJobStatus.FAILED: 1}, (note,)) for name in names)

    svg = draw(Graph(nodes, frozenset({(0, 1)})), kind, heading, note)

    tags = {element.tag.removeprefix(f"{{{NAMESPACE}}}") for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "title", "style", "defs", "marker", "path", "rect", "circle", "text", "g"}
    assert len(list(tooltips(svg, "g"))) == 2


async def test_a_graph_that_nobody_could_read_is_refused_with_a_way_on(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number) for number in range(501)])

    problem = the_problem(await api.get(f"/jobs/{job_id}/graph.svg", params={"of": "jobs"}), 422)

    assert problem["type"].endswith(":graph-too-large")
    assert "?of=rules" in problem["resolution"]
    assert "501 of 501" in texts(await drawn(api, job_id))


async def test_a_graph_of_something_else_is_refused(api: httpx.AsyncClient) -> None:
    response = await api.get(f"/jobs/{await submit(api)}/graph.svg", params={"of": "files"})

    assert the_problem(response, 422)["errors"][0]["pointer"] == "?of"


async def test_who_asks_together_shares_one_reading(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number) for number in range(400)])
    begun = time.monotonic()
    await drawn(api, job_id)
    alone = time.monotonic() - begun
    await anyio.sleep(1.1)

    begun = time.monotonic()
    async with anyio.create_task_group() as together:
        for _ in range(30):
            together.start_soon(drawn, api, job_id)

    assert time.monotonic() - begun < 10 * alone


async def test_rules_of_many_rule_jobs_are_drawn(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number, rule=f"map_{number % 3}") for number in range(1_500)])

    svg = await drawn(api, job_id)

    assert len(list(tooltips(svg, "g"))) == 3
    assert "1,500 completed" in texts(svg)
    assert "500 of 500" in texts(svg)
