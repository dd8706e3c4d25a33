"""The storage: the same promises below a directory and in S3 (moto's server)."""

import io
import os
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import ValidationError

from flows.contract.storage import (
    BlobNotFound,
    LocalStorage,
    Storage,
    StorageError,
    StorageSettings,
    bundle_key,
    job_key,
    open_storage,
)
from tests.flows.s3 import Bucket

ODD_NAMES = (
    'results/Zoë\'s "best" file; really?.txt',
    "100%.txt",
    "a%2Fb.txt",
    "a+b c&d=e#f.txt",
    "[x]{y}|z^~`.txt",
    ".hidden",
    "dir.with.dots/..name",
)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(StorageSettings(home=tmp_path / "home"))
    bucket: Bucket = request.getfixturevalue("bucket")
    url = f"s3://{bucket.name}/{uuid4()}"
    return open_storage(StorageSettings(home=tmp_path / "home", storage_url=url))


def read(storage: Storage, key: str) -> bytes:
    return b"".join(storage.read(key))


def test_what_is_put_is_read_again(storage: Storage) -> None:
    content = os.urandom(3_000_000)
    stream = io.BytesIO(content)
    stream.seek(7)  # it is taken from its start all the same
    storage.put("bundles/sha256/x", stream)

    assert read(storage, "bundles/sha256/x") == content
    assert storage.size("bundles/sha256/x") == len(content)


def test_what_is_put_again_takes_the_place_of_what_was_there(storage: Storage) -> None:
    for content in (b"a long first text", b"second"):
        storage.put("x", io.BytesIO(content))
    assert read(storage, "x") == b"second"


def test_what_is_not_there_is_told(storage: Storage) -> None:
    assert storage.size("jobs/x") is None
    with pytest.raises(BlobNotFound, match="jobs/x"):
        read(storage, "jobs/x")


@pytest.mark.parametrize(("last", "read_"), [(1, b"g"), (4, b"defg"), (7, b"abcdefg"), (100, b"abcdefg")])
def test_the_end_of_a_blob_can_be_read_alone(storage: Storage, last: int, read_: bytes) -> None:
    storage.put("x", io.BytesIO(b"abcdefg"))
    assert b"".join(storage.read("x", last)) == read_


def test_a_blob_without_content_has_an_end_without_content(storage: Storage) -> None:
    storage.put("x", io.BytesIO())
    assert b"".join(storage.read("x", 10)) == b""


def test_a_link_that_a_rule_has_put_in_the_place_of_a_file_is_not_published(
    storage: Storage, tmp_path: Path
) -> None:
    job_id = uuid4()
    disk = LocalStorage(tmp_path / "home")
    directory = tmp_path / "home" / "jobs" / str(job_id)
    (directory / "work").mkdir(parents=True)
    (directory / "work" / "x").symlink_to("/proc/self/environ")
    (directory / "snakemake.log").symlink_to("/proc/self/environ")

    for key in (job_key(job_id, "work", "x"), job_key(job_id, "snakemake.log")):
        with suppress(BlobNotFound):
            storage.publish([key], disk)
        assert storage.size(key) is None
        with pytest.raises(BlobNotFound):
            read(storage, key)


def test_a_file_larger_than_one_request_is_kept_whole(storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 25
    (tmp_path / "large").write_bytes(content)
    with (tmp_path / "large").open("rb") as file:
        storage.put("large", file)
    assert sha256(read(storage, "large")).digest() == sha256(content).digest()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_an_output_is_a_key(storage: Storage, tmp_path: Path, name: str) -> None:
    key = job_key(uuid4(), "work", name)
    disk = LocalStorage(tmp_path / "home")
    disk.put(key, io.BytesIO(name.encode()))
    storage.publish([key], disk)

    assert read(storage, key) == name.encode()
    place = storage.locate(key)
    content = httpx.get(place).raise_for_status().content if isinstance(place, str) else place.read()
    assert content == name.encode()


def test_what_fails_half_way_leaves_nothing(storage: Storage) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, *_: int) -> int:
            return 0

        def readinto(self, _: object) -> int:
            raise OSError("the disk has gone")

    with pytest.raises(StorageError):
        storage.put("half", io.BufferedReader(Broken()))
    assert storage.size("half") is None


class TestLocal:
    def test_what_fails_half_way_leaves_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="JOBS_HOME"):
            LocalStorage(tmp_path).put("x/" + "y" * 300, io.BytesIO(b"x"))
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_what_lies_in_its_place_already_is_not_copied(self, tmp_path: Path) -> None:
        file = tmp_path / "jobs" / "x"
        file.parent.mkdir()
        file.write_text("content")
        inode = file.stat().st_ino
        LocalStorage(tmp_path).publish(["jobs/x"], LocalStorage(tmp_path))
        assert file.stat().st_ino == inode

    def test_a_file_that_grows_while_it_is_read_comes_to_an_end(self, tmp_path: Path) -> None:
        storage = LocalStorage(tmp_path)
        storage.put("x", io.BytesIO(b"x" * 3_000_000))
        size = 0
        with (tmp_path / "x").open("ab") as file:
            for chunk in storage.read("x"):
                size += len(chunk)
                file.write(b"y" * 2 * len(chunk))
                file.flush()
        assert size == 3_000_000

    def test_the_home_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "home").symlink_to("disk")
        storage = LocalStorage(tmp_path / "home")
        storage.put("bundles/sha256/x", io.BytesIO(b"x"))
        assert read(storage, "bundles/sha256/x") == b"x"


class TestS3:
    @pytest.fixture
    def s3(self, bucket: Bucket) -> Storage:
        return open_storage(StorageSettings(storage_url=f"s3://{bucket.name}/some/prefix/"))

    def test_keys_lie_below_the_prefix(self, s3: Storage, bucket: Bucket) -> None:
        s3.put(bundle_key("sha256:00"), io.BytesIO(b"x"))
        assert "some/prefix/bundles/sha256/00" in bucket.object_keys()

    def test_a_download_needs_no_credentials_and_says_what_it_is(self, s3: Storage) -> None:
        s3.put("jobs/x/work/calls.vcf", io.BytesIO(b"##fileformat"))

        url = s3.locate("jobs/x/work/calls.vcf")
        answer = httpx.get(str(url), headers={"Range": "bytes=2-5"})
        head = httpx.head(str(s3.locate("jobs/x/work/calls.vcf", "HEAD")))

        assert (answer.status_code, answer.content) == (206, b"file")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''calls.vcf"
        assert head.headers["content-length"] == "12"

    def test_an_address_is_good_for_as_long_as_is_set(self, bucket: Bucket) -> None:
        storage = open_storage(StorageSettings(storage_url=f"s3://{bucket.name}", download_seconds=77))
        assert "X-Amz-Expires=77" in str(storage.locate("x"))

    def test_a_missing_bucket_is_told_without_any_secret(self, bucket: Bucket) -> None:
        storage = open_storage(StorageSettings(storage_url="s3://no-such-bucket"))
        with pytest.raises(StorageError, match="s3://no-such-bucket") as told:
            storage.put("x", io.BytesIO(b"x"))
        assert not any(secret in f"{told.value!r}" for secret in bucket.secrets)
        assert told.value.__cause__ is None

    @pytest.mark.parametrize(
        "url", ["http://bucket", "s3://", "s3://key:secret@bucket", "s3://bucket?x=y", "/srv"]
    )
    def test_what_is_no_bucket_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError):
            StorageSettings(storage_url=url)


def test_what_is_stopped_while_it_is_published_is_not_said_to_be_stored(
    storage: Storage, tmp_path: Path
) -> None:
    disk = LocalStorage(tmp_path / "home")
    first, second = (job_key(uuid4(), "work", name) for name in ("first", "second"))
    for key in (first, second):
        disk.put(key, io.BytesIO(b"x" * (30 << 20)))
    asked = count()

    stored = storage.publish([first, second], disk, lambda: next(asked) > 4)

    for key in (first, second):
        assert (storage.size(key) is not None) == (key in stored)
    if not isinstance(storage, LocalStorage):
        assert len(stored) < 2
