"""An S3 bucket on this machine: moto's server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, and what AWS's variables have to say to reach it."""

    name: str
    environment: dict[str, str]

    @property
    def secrets(self) -> tuple[str, str]:
        return self.environment["AWS_SECRET_ACCESS_KEY"], self.environment["AWS_SESSION_TOKEN"]

    def object_keys(self, below: str = "") -> set[str]:
        s3 = boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"])
        return {
            item["Key"] for item in s3.list_objects_v2(Bucket=self.name, Prefix=below).get("Contents", [])
        }


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """With AWS's variables set in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "the-key-of-the-service",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-service",
        "AWS_SESSION_TOKEN": "the-token-of-the-service",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    bucket = Bucket(f"jobs-{uuid4()}", environment)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]).create_bucket(
            Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield bucket
    server.stop()
