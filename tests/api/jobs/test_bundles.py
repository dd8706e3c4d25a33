"""`PUT /bundles`: what may come in, under which name, and what is left of an upload that ends early."""

import os
import socket
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from api.settings import Settings
from tests.api.servers import facade_process
from tests.api.support import facade, get, the_problem, wait_until
from tests.flows.archives import ATTACKS, HELLO, member, tar, tar_gz, zipped

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20


@pytest.fixture
def narrow_home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def narrow(prefect_api_url: str, narrow_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A facade that lets little in."""
    settings = Settings(
        home=narrow_home,
        bundle_max_bytes=MEBIBYTE,
        bundle_max_ratio=20,
        workflow_max_entries=50,
        workflow_max_bytes=4 * MEBIBYTE,
    )
    async with facade(prefect_api_url, settings) as client:
        yield client


def kept(home: Path) -> list[str]:
    """Every file below the home."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "archive",
    [tar(member("Snakefile", HELLO)), tar_gz(member("Snakefile", HELLO)), zipped(("Snakefile", HELLO))],
)
async def test_a_bundle_is_kept_once_under_the_checksum_of_its_bytes(
    narrow: httpx.AsyncClient, narrow_home: Path, archive: bytes
) -> None:
    first = await narrow.put("/bundles", content=archive)
    second = await narrow.put("/bundles", content=archive, headers={"content-type": "text/plain"})

    digest = sha256(archive).hexdigest()
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.json() == {"bundle": f"sha256:{digest}", "size_bytes": len(archive), "files": 1}
    assert kept(narrow_home) == [f"bundles/sha256/{digest}"]
    assert (narrow_home / "bundles" / "sha256" / digest).read_bytes() == archive


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused_with_words_and_leaves_nothing(
    narrow: httpx.AsyncClient, narrow_home: Path, attack: str
) -> None:
    make, reason = ATTACKS[attack]

    problem = the_problem(await narrow.put("/bundles", content=make()), 422)

    assert problem["type"].endswith(":bundle-refused")
    assert reason in problem["detail"]
    assert kept(narrow_home) == []


@pytest.mark.parametrize(
    ("make", "reason", "variable"),
    [
        (lambda: tar_gz(member("x", bytes(8 * MEBIBYTE))), "20 times its size", "JOBS_BUNDLE_MAX_RATIO"),
        (lambda: zipped(("x", bytes(8 * MEBIBYTE))), "20 times its size", "JOBS_BUNDLE_MAX_RATIO"),
        (
            lambda: zipped(*((f"f{number}", b"") for number in range(51))),
            "more than 50 files",
            "JOBS_WORKFLOW_MAX_ENTRIES",
        ),
        (
            lambda: tar_gz(member("x", os.urandom(MEBIBYTE // 3) + bytes(4 * MEBIBYTE))),
            "more than 4,194,304 bytes",
            "JOBS_WORKFLOW_MAX_BYTES",
        ),
    ],
    ids=["a tar bomb", "a zip bomb", "too many files", "too much to unpack"],
)
async def test_what_would_take_too_much_room_is_refused_and_the_limit_named(
    narrow: httpx.AsyncClient, narrow_home: Path, make: object, reason: str, variable: str
) -> None:
    assert callable(make)
    problem = the_problem(await narrow.put("/bundles", content=make()), 422)

    assert reason in problem["detail"]
    assert variable in problem["resolution"]
    assert kept(narrow_home) == []


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_whatever_it_is_declared_as(
    narrow: httpx.AsyncClient, narrow_home: Path, is_declared: bool
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    content = endless()
    headers = {"content-length": str(1 << 40)} if is_declared else {}
    problem = the_problem(await narrow.put("/bundles", content=content, headers=headers), 413)

    assert "1,048,576" in problem["detail"]
    assert "JOBS_BUNDLE_MAX_BYTES" in problem["resolution"]
    assert kept(narrow_home) == []


@pytest.mark.parametrize("content", [b"", b"hello", bytes(10_000), b"7z\xbc\xaf\x27\x1c"])
async def test_what_is_no_archive_is_refused_whatever_it_is_declared_as(
    narrow: httpx.AsyncClient, narrow_home: Path, content: bytes
) -> None:
    response = await narrow.put("/bundles", content=content, headers={"content-type": "application/zip"})

    assert the_problem(response, 415)["type"].endswith(":not-an-archive")
    assert kept(narrow_home) == []


async def test_a_job_of_a_bundle_is_made(api: httpx.AsyncClient) -> None:
    bundle = (await api.put("/bundles", content=tar(member("Snakefile", HELLO)))).json()["bundle"]

    response = await api.post("/jobs", json={"workflow": {"bundle": bundle, "subdir": "."}})

    assert response.status_code == 201, response.text
    assert (await get(api, f"/jobs/{response.json()['id']}"))["commit"] is None


async def test_a_job_of_an_unknown_bundle_is_refused(api: httpx.AsyncClient) -> None:
    bundle = f"sha256:{'0' * 64}"

    problem = the_problem(await api.post("/jobs", json={"workflow": {"bundle": bundle}}), 422)

    assert problem["type"].endswith(":workflow-refused")
    assert problem["errors"][0]["pointer"] == "#/workflow/bundle"
    assert "PUT /bundles" in problem["resolution"]


@pytest.mark.parametrize(
    "bundle", ["0" * 64, f"md5:{'0' * 32}", "sha256:../../../etc/passwd", f"sha256:{'A' * 64}"]
)
async def test_what_is_no_name_of_a_bundle_is_refused(api: httpx.AsyncClient, bundle: str) -> None:
    problem = the_problem(await api.post("/jobs", json={"workflow": {"bundle": bundle}}), 422)

    assert problem["errors"][0]["pointer"] == "#/workflow/bundle"


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def own_url(prefect_api_url: str, own_home: Path) -> Iterator[str]:
    """A facade in a process of its own, on a real socket."""
    with facade_process(prefect_api_url, own_home) as url:
        yield url


async def test_nothing_is_left_of_an_upload_that_ends_early(own_url: str, own_home: Path) -> None:
    async def has_begun() -> bool:
        return bool(open_files(own_home))

    async def has_ended() -> bool:
        return not open_files(own_home)

    address = urlsplit(own_url)
    with socket.create_connection((str(address.hostname), address.port or 0)) as client:
        head = f"PUT /bundles HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 5000000\r\n\r\n"
        client.sendall(head.encode())
        client.sendall(tar(member("x", bytes(1_000_000))))
        await wait_until(has_begun, "the upload has begun")
    await wait_until(has_ended, "the upload has ended")

    assert "Traceback" not in (own_home / "api.log").read_text()
    assert kept(own_home) == ["api.log"]


async def test_a_large_bundle_is_not_held_in_memory(own_url: str, own_home: Path, tmp_path: Path) -> None:
    packed = tmp_path / "large.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("Snakefile", HELLO)
        for number in range(120):
            archive.writestr(f"data/{number}", os.urandom(MEBIBYTE))
    process = facade_of(own_home)
    before = process.memory_info().rss

    with packed.open("rb") as content, httpx.Client(timeout=60) as client:
        response = client.put(f"{own_url}/bundles", content=content)

    assert response.status_code == 201, response.text
    assert response.json()["files"] == 121
    assert process.memory_info().rss - before < 40 * MEBIBYTE


def facade_of(home: Path) -> psutil.Process:
    for child in psutil.Process().children():
        if child.environ().get("JOBS_HOME") == str(home):
            return child
    raise AssertionError(f"no facade runs on {home}")


def open_files(home: Path) -> list[str]:
    """Files that the facade of this home has open for bundles, those without a name included."""
    found = []
    for descriptor in Path(f"/proc/{facade_of(home).pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            target = os.readlink(descriptor)
            found += [target] if target.startswith(str(home / "bundles")) else []
    return found
