"""What a job has made: listed by its manifest, downloaded whole or in ranges, and nothing else."""

import json
import os
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from api.jobs.outputs import Outputs
from flows.contract.spec import Label
from flows.contract.storage import LocalStorage
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.api.support import get, submit, the_problem, wait_until, walk

pytestmark = pytest.mark.anyio

VCF = b"##fileformat=VCFv4.2\n"
FILES = {
    "results/calls.vcf": VCF,
    "results/calls.vcf.gz": b"\x1f\x8b packed",
    "results/plot.svg": b"<svg/>",
    'results/Zoë\'s "best" file; really?.txt': b"odd",
    "results/data": bytes(range(256)),
}


@pytest.fixture
async def job_id(api: httpx.AsyncClient, home: Path) -> UUID:
    """A job that has published `FILES`."""
    job_id = await submit(api)
    for name, content in FILES.items():
        file = work_of(home, job_id) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    publish(home, job_id, FILES)
    return job_id


def work_of(home: Path, job_id: UUID) -> Path:
    return home / "jobs" / str(job_id) / "work"


def publish(home: Path, job_id: UUID, files: dict[str, bytes]) -> None:
    """Writes the manifest as the worker does."""
    outputs = [
        {
            "path": path,
            "size": len(content),
            "sha256": sha256(content).hexdigest(),
            "modified_at": "2025-10-09T08:53:20+00:00",
        }
        for path, content in files.items()
    ]
    work_of(home, job_id).mkdir(parents=True, exist_ok=True)
    manifest = work_of(home, job_id).parent / "outputs.json"
    manifest.write_text(json.dumps({"version": 1, "outputs": outputs}))


async def test_every_output_is_listed_and_can_be_downloaded(api: httpx.AsyncClient, job_id: UUID) -> None:
    outputs = await walk(api, f"/jobs/{job_id}/outputs", limit=2)

    assert [output["path"] for output in outputs] == sorted(FILES)
    for output in outputs:
        response = await api.get(output["url"])
        assert response.status_code == 200
        assert response.content == FILES[output["path"]]
        assert output["size_bytes"] == len(response.content)
        assert output["sha256"] == sha256(response.content).hexdigest()
        assert output["modified_at"] == "2025-10-09T08:53:20Z"


@pytest.mark.parametrize(("file", "status"), [("report.html", 200), ("../report.html", 500), ("a/b", 500)])
async def test_what_the_service_has_made_lies_beside_the_workflows_own_files(
    api: httpx.AsyncClient, home: Path, file: str, status: int
) -> None:
    job_id = await submit(api)
    publish(home, job_id, {"report.html": b"<p>A report.</p>"})
    directory = work_of(home, job_id).parent
    (directory / "report.html").write_bytes(b"<p>A report.</p>")
    manifest = json.loads((directory / "outputs.json").read_text())
    manifest["outputs"][0]["file"] = file
    (directory / "outputs.json").write_text(json.dumps(manifest))

    response = await api.get(f"/jobs/{job_id}/outputs/report.html")

    assert response.status_code == status
    assert status != 200 or response.content == b"<p>A report.</p>"
    assert status != 200 or "attachment" in response.headers["content-disposition"]


async def test_a_job_that_has_published_nothing_has_no_outputs(api: httpx.AsyncClient) -> None:
    assert await get(api, f"/jobs/{await submit(api)}/outputs") == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("results/calls.vcf", "text/plain; charset=utf-8"),
        ("results/calls.vcf.gz", "application/gzip"),
        ("results/plot.svg", "image/svg+xml"),
        ("results/data", "application/octet-stream"),
    ],
)
async def test_a_download_says_what_it_is_and_is_never_run_as_a_page(
    api: httpx.AsyncClient, job_id: UUID, path: str, media_type: str
) -> None:
    response = await api.get(f"/jobs/{job_id}/outputs/{path}")

    assert response.headers["content-type"] == media_type
    assert response.headers["content-disposition"] == f'attachment; filename="{Path(path).name}"'
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("results/calls.vcf", "text/plain; charset=utf-8"), ("results/plot.svg", "image/svg+xml")],
)
async def test_what_a_browser_shows_runs_as_a_page_of_nobody(
    api: httpx.AsyncClient, job_id: UUID, path: str, media_type: str
) -> None:
    response = await api.get(f"/jobs/{job_id}/outputs/{path}", params={"view": "true"})

    assert response.headers["content-type"] == media_type
    assert response.headers["content-disposition"] == f'inline; filename="{Path(path).name}"'
    policy = response.headers["content-security-policy"].split("; ")
    assert policy[0] == "sandbox allow-scripts allow-popups allow-downloads", "no origin of this service"
    assert not any("http" in each or "'self'" in each for each in policy), "connects to nothing"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_download_can_be_taken_up_again(api: httpx.AsyncClient, job_id: UUID) -> None:
    path = f"/jobs/{job_id}/outputs/results/data"
    whole = await api.get(path)
    etag = whole.headers["etag"]

    rest = await api.get(path, headers={"range": "bytes=100-", "if-range": etag})
    changed = await api.get(path, headers={"range": "bytes=100-", "if-range": '"another"'})
    beyond = await api.get(path, headers={"range": "bytes=256-"})

    assert (rest.status_code, rest.content) == (206, FILES["results/data"][100:])
    assert rest.headers["content-range"] == "bytes 100-255/256"
    assert (changed.status_code, changed.content) == (200, FILES["results/data"])
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */256")
    assert (await api.head(path)).headers["content-length"] == "256"


async def test_only_what_the_manifest_lists_can_be_downloaded(
    api: httpx.AsyncClient, home: Path, job_id: UUID
) -> None:
    (work_of(home, job_id) / "secret").write_text("x")

    for path in ("secret", "results", "", "../outputs.json", "..%2foutputs.json", "%2fetc%2fpasswd", "a%00"):
        the_problem(await api.get(f"/jobs/{job_id}/outputs/{path}"), 404)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../outside", "../../../jobs", "no-such-file", "loop", "/dev/zero"]
)
async def test_a_link_that_leads_out_of_the_job_or_nowhere_is_not_followed(
    api: httpx.AsyncClient, home: Path, target: str
) -> None:
    job_id = await submit(api)
    publish(home, job_id, {"loop": b""})
    (home / "jobs" / "outside").write_text("x")
    (work_of(home, job_id) / "loop").symlink_to(target)

    the_problem(await api.get(f"/jobs/{job_id}/outputs/loop"), 404)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outputs.json", "../../outside"])
async def test_even_a_manifest_cannot_make_a_file_outside_of_the_job_an_output(
    api: httpx.AsyncClient, home: Path, path: str
) -> None:
    job_id = await submit(api)
    publish(home, job_id, {path: b""})
    (home / "jobs" / "outside").write_text("x")

    problem = the_problem(await api.get(f"/jobs/{job_id}/outputs"), 500)

    assert problem["type"].endswith(":manifest-damaged")


async def test_a_directory_that_a_rule_has_put_elsewhere_holds_no_output(
    api: httpx.AsyncClient, home: Path, tmp_path: Path
) -> None:
    """As `mv ../work ../moved; ln -s / ../work` does it."""
    (tmp_path / "tokens.json").write_text("a token")
    path = str(tmp_path / "tokens.json").lstrip("/")
    job_id = await submit(api)
    publish(home, job_id, {path: b"a token"})
    work = work_of(home, job_id)
    work.rename(work.with_name("moved"))
    for target in ("/", f"../{uuid4()}/work", "../../../.."):
        work.symlink_to(target)
        the_problem(await api.get((await walk(api, f"/jobs/{job_id}/outputs"))[0]["url"]), 404)
        work.unlink()


async def test_the_outputs_of_a_job_that_resumes_another_lie_in_the_directory_of_the_first_one(
    api: httpx.AsyncClient, home: Path, job_id: UUID, prefect: PrefectClient
) -> None:
    successor, latest = await submit(api), await submit(api)
    for each, before in ((successor, job_id), (latest, successor)):
        # As the facade does it. It does not let a mock job be resumed.
        labels: dict[str, bool | int | float | str] = {
            Label.RESUMES.value: str(before),
            Label.WORK.value: str(job_id),
        }
        await prefect.update_flow_run_labels(each, labels)
        publish(home, each, FILES)
        work_of(home, each).rmdir()
        work_of(home, each).symlink_to(f"../{job_id}/work")

        async def is_served(each: UUID = each) -> bool:
            return (await api.get(f"/jobs/{each}/outputs/results/calls.vcf")).content == VCF

        await wait_until(is_served, "the facade has read the labels")


async def test_a_link_to_the_directory_of_another_job_is_not_followed(
    api: httpx.AsyncClient, home: Path, job_id: UUID
) -> None:
    thief = await submit(api)
    publish(home, thief, FILES)
    work_of(home, thief).rmdir()
    work_of(home, thief).symlink_to(f"../{job_id}/work")

    the_problem(await api.get(f"/jobs/{thief}/outputs/results/calls.vcf"), 404)


async def test_what_was_looked_at_is_what_is_sent(home: Path, job_id: UUID) -> None:
    """A rule of a job that runs in the same directory may change it in that moment."""
    download = Outputs(LocalStorage(home)).download(job_id, "results/data", "GET")
    file = work_of(home, job_id) / "results" / "data"
    file.rename(file.with_name("moved"))
    file.symlink_to("/proc/self/environ")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(download), base_url="http://x") as client:
        response = await client.get("/")

    assert (response.status_code, response.content) == (200, FILES["results/data"])


async def test_downloads_leave_nothing_open(api: httpx.AsyncClient, job_id: UUID) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for headers in ({}, {"range": "bytes=1-"}, {"range": "bytes=999-"}):
        await api.get(f"/jobs/{job_id}/outputs/results/data", headers=headers)
    await api.head(f"/jobs/{job_id}/outputs/results/data")
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_link_inside_of_the_job_is_followed(api: httpx.AsyncClient, home: Path, job_id: UUID) -> None:
    publish(home, job_id, FILES | {"latest": VCF})
    (work_of(home, job_id) / "latest").symlink_to("results/calls.vcf")

    assert (await api.get(f"/jobs/{job_id}/outputs/latest")).content == VCF


async def test_what_is_not_a_file_or_is_gone_is_not_found(
    api: httpx.AsyncClient, home: Path, job_id: UUID
) -> None:
    publish(home, job_id, FILES | {"pipe": b"", "gone": b""})
    os.mkfifo(work_of(home, job_id) / "pipe")

    for path in ("pipe", "gone"):
        the_problem(await api.get(f"/jobs/{job_id}/outputs/{path}"), 404)


async def test_a_manifest_that_would_fill_the_memory_is_not_read(api: httpx.AsyncClient, home: Path) -> None:
    job_id = await submit(api)
    publish(home, job_id, {})
    os.truncate(home / "jobs" / str(job_id) / "outputs.json", 1 << 40)

    problem = the_problem(await api.get(f"/jobs/{job_id}/outputs"), 500)

    assert "larger than 33,554,432 bytes" in problem["detail"]


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self/environ", "../../others.json", "pipe"])
async def test_a_link_in_the_place_of_the_manifest_is_no_manifest(
    api: httpx.AsyncClient, home: Path, target: str
) -> None:
    job_id = await submit(api)
    publish(home, job_id, {})
    directory = home / "jobs" / str(job_id)
    os.mkfifo(directory / "pipe")
    (directory / "outputs.json").replace(home / "others.json")
    (directory / "outputs.json").symlink_to(target)

    assert await get(api, f"/jobs/{job_id}/outputs") == {"items": [], "next_cursor": None}
    the_problem(await api.get(f"/jobs/{job_id}/outputs/x"), 404)


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        '{"version": 2, "outputs": []}',
        '{"version": 1, "outputs": [{}]}',
    ],
)
async def test_a_damaged_manifest_is_told(api: httpx.AsyncClient, home: Path, manifest: str) -> None:
    job_id = await submit(api)
    publish(home, job_id, {})
    (home / "jobs" / str(job_id) / "outputs.json").write_text(manifest)

    problem = the_problem(await api.get(f"/jobs/{job_id}/outputs"), 500)

    assert problem["type"].endswith(":manifest-damaged")


async def test_whatever_name_a_file_has_its_own_address_leads_to_it(
    api: httpx.AsyncClient, home: Path
) -> None:
    names = [b"new\nline.txt", b"ends in a line break\n", b"b\xffd.txt", b"100%.txt", "Zoë".encode()]
    job_id = await submit(api)
    workspace = Workspace(WorkspaceSettings(home=home), job_id)
    (workspace.work / "d").mkdir(parents=True)
    for name in names:
        (workspace.work / "d" / os.fsdecode(name)).write_bytes(name)
    workspace.publish(workspace.files_of(["d"]))

    outputs = await walk(api, f"/jobs/{job_id}/outputs")

    assert sorted(output["path"] for output in outputs) == sorted(
        ["d/new\nline.txt", "d/ends in a line break\n", "d/b%FFd.txt", "d/100%.txt", "d/Zoë"]
    )
    assert sorted([(await api.get(output["url"])).content for output in outputs]) == sorted(names)
