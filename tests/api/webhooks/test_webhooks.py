"""Whoever submits a job may be told of its end: signed, again if need be, and never inside our network."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook as Signer
from standardwebhooks import WebhookVerificationError
from starlette.types import Receive, Scope, Send

from api.prefect.overview import Overview
from api.settings import Settings
from api.webhooks.addresses import WebhookAddressRefused, check_url, public_addresses
from api.webhooks.deliveries import Deliveries
from flows.contract.addresses import is_public
from flows.contract.spec import ErrorKind, Label
from tests.api.servers import serving
from tests.api.support import MOCK_JOB, Worker, facade, get, submit, the_problem, wait_until

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SOON = (0.2, 0.6, 1.5, 4.0, 10.0, 20.0)
"""When a failed webhook is tried again, in seconds."""


class Receiver:
    """Takes webhooks, each of which the library of the specification must find genuine."""

    def __init__(self, *statuses: int, headers: Mapping[str, str] | None = None) -> None:
        """Answers with these statuses one after the other, and with the last one from then on."""
        self._statuses = list(statuses) or [204]
        self._headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.messages: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while (message := await receive()).get("more_body") or message.get("body"):
            body += message["body"]
            if not message["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        Signer(SECRET).verify(bytes(body), headers)
        self.messages.append((headers["webhook-id"], json.loads(body)))
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        await send({"type": "http.response.start", "status": status, "headers": self._headers})
        await send({"type": "http.response.body", "body": b""})

    def of(self, job_id: UUID) -> list[tuple[str, dict[str, Any]]]:
        return [(id_, body) for id_, body in self.messages if body["data"]["id"] == str(job_id)]

    async def wait_for(self, job_id: UUID, count: int = 1) -> list[tuple[str, dict[str, Any]]]:
        async def are_there() -> bool:
            return len(self.of(job_id)) >= count

        await wait_until(are_there, f"{count} messages about {job_id}")
        return self.of(job_id)


def settings_of(home: Path, *private_hosts: str) -> Settings:
    return Settings(
        home=home,
        webhook_secret=SecretStr(SECRET),
        webhook_allowed_private_hosts=private_hosts,
        webhook_retry_seconds=SOON,
        webhook_poll_seconds=0.1,
    )


@pytest.fixture
async def hooked(prefect_api_url: str, home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a facade that delivers webhooks to this machine."""
    async with facade(prefect_api_url, settings_of(home, "127.0.0.1")) as client:
        yield client


async def submit_with(client: httpx.AsyncClient, url: str) -> UUID:
    return await submit(client, webhook={"url": f"{url}/hooks/jobs?key=secret"})


async def settled(prefect: PrefectClient, job_id: UUID, label: Label) -> str:
    """The message that this label names, as soon as it does."""

    async def has_label() -> bool:
        return label in (await prefect.read_flow_run(job_id)).labels

    await wait_until(has_label, f"{job_id} bears {label}")
    return str((await prefect.read_flow_run(job_id)).labels[label])


@pytest.mark.anyio
class TestAMessage:
    @pytest.mark.parametrize(
        ("state_type", "status"),
        [
            (StateType.COMPLETED, "completed"),
            (StateType.FAILED, "failed"),
            (StateType.CRASHED, "failed"),
            (StateType.CANCELLED, "cancelled"),
        ],
    )
    async def test_tells_of_every_end_once_with_the_job(
        self,
        hooked: httpx.AsyncClient,
        prefect: PrefectClient,
        worker: Worker,
        state_type: StateType,
        status: str,
    ) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, state_type, "what happened")

            ((message_id, body),) = await receiver.wait_for(job_id)

            assert await settled(prefect, job_id, Label.WEBHOOK_DELIVERED) == message_id
        job = await get(hooked, f"/jobs/{job_id}")
        assert body["type"] == f"job.{status}"
        assert body["timestamp"] == job["finished_at"]
        assert {**body["data"], "updated_at": None} == {**job, "updated_at": None}
        assert len(receiver.of(job_id)) == 1

    async def test_tells_of_a_crash_whose_fault_it_was(
        self, hooked: httpx.AsyncClient, worker: Worker
    ) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, StateType.CRASHED, "the flow process was killed")

            ((_, body),) = await receiver.wait_for(job_id)

        assert body["data"]["error"]["kind"] == ErrorKind.SYSTEM
        assert body["data"]["error"]["message"] == "the flow process was killed"

    async def test_is_sent_for_a_job_that_never_ran(self, hooked: httpx.AsyncClient) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            assert (await hooked.post(f"/jobs/{job_id}/cancel")).status_code == 202

            ((_, body),) = await receiver.wait_for(job_id)

        assert body["type"] == "job.cancelled"

    async def test_of_another_end_of_the_same_job_is_another_one(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient, worker: Worker
    ) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, StateType.FAILED)
            await settled(prefect, job_id, Label.WEBHOOK_DELIVERED)
            await worker.bring_to(job_id, StateType.COMPLETED)

            (first, failed), (second, completed) = await receiver.wait_for(job_id, 2)

        assert first != second
        assert (failed["type"], completed["type"]) == ("job.failed", "job.completed")

    async def test_is_no_parameter_of_the_flow(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient
    ) -> None:
        job_id = await submit_with(hooked, "http://127.0.0.1:9")

        assert (await prefect.read_flow_run(job_id)).parameters == MOCK_JOB


@pytest.mark.anyio
class TestDelivery:
    async def test_is_tried_again_with_the_same_message(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient, worker: Worker
    ) -> None:
        receiver = Receiver(500, 429, 200)
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, StateType.COMPLETED)

            messages = await receiver.wait_for(job_id, 3)
            message_id = await settled(prefect, job_id, Label.WEBHOOK_DELIVERED)

        assert messages == [messages[0]] * 3
        assert message_id == messages[0][0]

    async def test_is_done_by_another_replica_when_one_is_gone(
        self, prefect_api_url: str, prefect: PrefectClient, home: Path, worker: Worker
    ) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            async with facade(prefect_api_url, settings_of(home, "127.0.0.1")) as gone:
                job_id = await submit_with(gone, url)
            await worker.bring_to(job_id, StateType.COMPLETED)
            assert receiver.of(job_id) == []

            async with facade(prefect_api_url, settings_of(home, "127.0.0.1")):
                ((message_id, _),) = await receiver.wait_for(job_id)
                await settled(prefect, job_id, Label.WEBHOOK_DELIVERED)
            async with facade(prefect_api_url, settings_of(home, "127.0.0.1")) as third:
                other = await submit_with(third, url)
                await worker.bring_to(other, StateType.COMPLETED)
                await receiver.wait_for(other)

        assert [id_ for id_, _ in receiver.of(job_id)] == [message_id], "a delivered one is not sent again"

    async def test_follows_no_redirect(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient, worker: Worker
    ) -> None:
        inside = Receiver()
        async with serving(inside) as inside_url:
            receiver = Receiver(307, 200, headers={"Location": f"{inside_url}/admin"})
            async with serving(receiver) as url:
                job_id = await submit_with(hooked, url)
                await worker.bring_to(job_id, StateType.COMPLETED)
                await receiver.wait_for(job_id, 2)
                await settled(prefect, job_id, Label.WEBHOOK_DELIVERED)

        assert inside.messages == []

    async def test_ends_when_the_receiver_is_gone_for_good(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient, worker: Worker
    ) -> None:
        receiver = Receiver(410)
        async with serving(receiver) as url:
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, StateType.COMPLETED)

            await settled(prefect, job_id, Label.WEBHOOK_REFUSED)

        assert len(receiver.of(job_id)) == 1

    async def test_does_not_go_to_a_name_that_leads_to_a_private_address(
        self, prefect_api_url: str, prefect: PrefectClient, home: Path, worker: Worker
    ) -> None:
        """The URL is unsuspicious, so that only the look at the address can refuse it."""
        receiver = Receiver()
        async with (
            serving(receiver) as url,
            facade(prefect_api_url, settings_of(home)) as client,
        ):
            job_id = await submit_with(client, url.replace("http://127.0.0.1", "https://localhost"))
            await worker.bring_to(job_id, StateType.COMPLETED)

            await settled(prefect, job_id, Label.WEBHOOK_REFUSED)
            metrics = (await client.get("/metrics")).text

        assert receiver.messages == []
        assert 'jobs_webhooks_total{outcome="refused"} 1.0' in metrics

    async def test_goes_on_beside_a_name_that_can_be_none(
        self, hooked: httpx.AsyncClient, prefect: PrefectClient, worker: Worker
    ) -> None:
        receiver = Receiver()
        async with serving(receiver) as url:
            impossible = await submit(hooked, webhook={"url": f"https://{'a' * 64}.example.org/"})
            await worker.bring_to(impossible, StateType.COMPLETED)
            job_id = await submit_with(hooked, url)
            await worker.bring_to(job_id, StateType.COMPLETED)

            await receiver.wait_for(job_id)


@pytest.mark.anyio
class TestTheCertificate:
    @pytest.mark.parametrize(("name", "outcome"), [("localhost", "delivered"), ("elsewhere", "failed")])
    async def test_must_be_that_of_the_name_although_an_address_is_connected_to(
        self,
        prefect_api_url: str,
        prefect: PrefectClient,
        home: Path,
        worker: Worker,
        tmp_path: Path,
        name: str,
        outcome: str,
    ) -> None:
        certificate = make_certificate(tmp_path, name)
        trusting = ssl.create_default_context(cafile=certificate)
        outcomes: list[str] = []
        receiver = Receiver()
        async with (
            facade(prefect_api_url, Settings(home=home)) as api_without,
            serving(receiver, ssl_certfile=str(certificate)) as url,
            delivering(prefect, outcomes, trusting),
        ):
            deployment = await prefect.read_deployment_by_name("snakemake-job/default")
            flow_run = await prefect.create_flow_run_from_deployment(
                deployment.id,
                labels={Label.WEBHOOK_URL.value: url.replace("http://127.0.0.1", "https://localhost")},
            )
            assert await get(api_without, f"/jobs/{flow_run.id}")
            await worker.bring_to(flow_run.id, StateType.COMPLETED)

            async def was_tried() -> bool:
                return bool(outcomes)

            await wait_until(was_tried, "the webhook was tried")

        assert outcomes[0] == outcome
        assert bool(receiver.messages) == (outcome == "delivered")


@asynccontextmanager
async def delivering(
    prefect: PrefectClient, outcomes: list[str], ssl_context: ssl.SSLContext
) -> AsyncIterator[None]:
    deliveries = Deliveries(
        Overview(prefect, 5),
        Signer(SECRET),
        retry_seconds=(60,),
        poll_seconds=0.1,
        private_hosts=("localhost",),
        prefect_ui_url="",
        count=outcomes.append,
        ssl_context=ssl_context,
    )
    running = asyncio.create_task(deliveries.run())
    yield
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def make_certificate(directory: Path, name: str) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.anyio
class TestASubmission:
    @pytest.mark.parametrize(
        "url",
        [
            "http://example.org/hook",
            "https://user:password@example.org/hook",
            "https://127.0.0.1/hook",
            "https://2130706433/hook",
            "https://0x7f.1/hook",
            "https://169.254.169.254/latest/meta-data",
            "https://10.0.0.1/hook",
            "https://[::1]/hook",
            "https://[::ffff:10.0.0.1]/hook",
            "https://[fd00:ec2::254]/hook",
        ],
    )
    async def test_is_refused_whose_webhook_leads_inside_or_is_not_secret(
        self, prefect_api_url: str, home: Path, url: str
    ) -> None:
        async with facade(prefect_api_url, settings_of(home)) as client:
            problem = the_problem(await client.post("/jobs", json=MOCK_JOB | {"webhook": {"url": url}}), 422)

        assert problem["type"].endswith(":webhook-refused")
        assert problem["errors"][0]["pointer"] == "#/webhook/url"

    @pytest.mark.parametrize("url", ["", "ftp://example.org", "file:///etc/passwd", "example.org"])
    async def test_is_refused_whose_webhook_is_no_address_of_the_web(
        self, api: httpx.AsyncClient, url: str
    ) -> None:
        the_problem(await api.post("/jobs", json=MOCK_JOB | {"webhook": {"url": url}}), 422)

    async def test_is_refused_where_nothing_can_be_signed(self, api: httpx.AsyncClient) -> None:
        spec = MOCK_JOB | {"webhook": {"url": "https://example.org/hook"}}

        problem = the_problem(await api.post("/jobs", json=spec), 422)

        assert "JOBS_WEBHOOK_SECRET" in problem["resolution"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
    ],
)
def test_these_addresses_are_not_of_the_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_these_are(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.anyio
async def test_an_allowed_host_may_be_private_and_no_other() -> None:
    check_url("http://hooks.internal:8080/", ["hooks.internal"])
    with pytest.raises(WebhookAddressRefused):
        check_url("http://hooks.internal.example.org/", ["hooks.internal"])

    assert await public_addresses("localhost", 80, ["localhost"])
    with pytest.raises(WebhookAddressRefused):
        await public_addresses("localhost", 80, ["hooks.internal"])


@pytest.mark.parametrize("secret", ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64" + "A" * 40])
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(webhook_secret=SecretStr(secret))

    assert "24 to 64 random bytes" in str(refused.value)
    assert "c2hvcnQ" not in str(refused.value)


def test_the_settings_of_webhooks_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_WEBHOOK_ALLOWED_PRIVATE_HOSTS", "Hooks.Internal, [::1]")
    monkeypatch.setenv("JOBS_WEBHOOK_RETRY_SECONDS", "1,2.5")

    settings = Settings()

    assert settings.webhook_allowed_private_hosts == ("hooks.internal", "::1")
    assert settings.webhook_retry_seconds == (1.0, 2.5)


def test_a_forged_message_is_told_from_ours() -> None:
    """What the receivers above rely on."""
    headers = {
        "webhook-id": f"msg_{uuid4().hex}",
        "webhook-timestamp": str(int(datetime.now(UTC).timestamp())),
        "webhook-signature": "v1," + base64.b64encode(bytes(32)).decode(),
    }
    with pytest.raises(WebhookVerificationError):
        Signer(SECRET).verify(b"{}", headers)
