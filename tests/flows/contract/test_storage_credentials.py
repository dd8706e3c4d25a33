"""A task reaches the bucket with credentials that it asks for, and waits for a facade that is away."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from uuid import uuid4

import pytest

from flows.contract import storage_credentials
from flows.contract.storage import Storage, StorageError, StorageSettings, open_storage
from tests.flows.git_servers import answering
from tests.flows.s3 import Bucket

TOKEN = "the-token-of-the-job"


def storage_with(url: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """As in the task of a job, which has no keys of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"job:{TOKEN}")
    monkeypatch.setattr(storage_credentials, "PAUSE_SECONDS", 0.01)
    address = f"s3://{bucket.name}/{uuid4()}"
    return open_storage(StorageSettings(storage_url=address, storage_credentials_url=url))


def test_credentials_are_asked_for_until_the_facade_answers(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = [503, 500, 200]
    asked: list[str | None] = []
    expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = {"access_key_id": "a", "secret_access_key": "b", "token": "c", "expires_at": expires_at}

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["Authorization"])
        body = json.dumps(made).encode()
        request.send_response(statuses.pop(0))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with answering(answer) as (url, _):
        storage = storage_with(url, bucket, monkeypatch)
        storage.put("x", BytesIO(b"content"))
        assert b"".join(storage.read("x")) == b"content"

    assert asked == [f"Basic {b64encode(f'job:{TOKEN}'.encode()).decode()}"] * 3


def test_a_refusal_is_an_error_of_the_storage_without_the_token(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda request: request.send_error(403)) as (url, _):
        storage = storage_with(url, bucket, monkeypatch)
        with pytest.raises(StorageError) as refused:
            storage.put("x", BytesIO(b"content"))

    assert TOKEN not in str(refused.value)
