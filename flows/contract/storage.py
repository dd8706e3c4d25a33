"""Stores bundles and the outputs of jobs: below JOBS_HOME, or in an S3 bucket.

Both use the same keys:

    bundles/sha256/<hex>                  a bundle, by the checksum of its bytes
    workflows/<name>/<version>.json       a version of a registered workflow
    jobs/<job id>/outputs.json            the manifest
    jobs/<job id>/snakemake.log, events.jsonl, report.html
    jobs/<job id>/work/<path>             an output
    jobs/<job id>/work.tar                the rest of `work`, for a job that resumes an incomplete one

Below JOBS_HOME these are the files that jobs work on, so there is nothing to copy. Rules could put
anything in their place: JOBS_HOME itself may be a link, but no blob in it is read through a link, except
an output that links to another file in its job's `work`.

    StorageError        the storage does not work
    └── BlobNotFound    there is no blob with this key
"""

import mimetypes
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, NewType, Protocol
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from flows.contract.data_roots import RootSettings
from flows.contract.job_files import open_file, remove_tree, work_of
from flows.contract.storage_credentials import FromGateway

_CHUNK_BYTES = 1 << 20
_UPLOADS_AT_ONCE = 8
_RETRY_SECONDS = 30
_MEDIA_TYPES = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/plain", ".log")
_MEDIA_TYPES.add_type("text/plain", ".vcf")  # a variant call file; the registered type is that of vCards

Method = Literal["GET", "HEAD"]
SignedUrl = NewType("SignedUrl", str)
"""Valid for one method and a limited time, without other credentials."""


class StorageSettings(RootSettings):
    """Where jobs and bundles are stored. Set the same values for the API and the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    home: Path = Field(
        default=Path(".jobs"), description="The directory of all jobs (in `jobs/`) and of bundles."
    )
    storage_url: str | None = Field(
        default=None,
        max_length=1024,
        description="An S3 bucket for bundles and outputs of jobs, as `s3://bucket/prefix`; they are stored "
        "below JOBS_HOME when absent. AWS's own variables set region, endpoint and credentials.",
    )
    storage_credentials_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where a task asks for credentials of the bucket that are for its job only. The worker "
        "sets it for tasks on ECS.",
    )
    download_seconds: int = Field(
        default=300, ge=10, le=86_400, description="How long the URL of a download from S3 is valid."
    )

    @field_validator("storage_url")
    @classmethod
    def _is_s3(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme != "s3" or not url.hostname or url.netloc != url.hostname or url.query or url.fragment:
            raise ValueError(
                "must be s3://bucket or s3://bucket/prefix; set credentials with AWS's own variables"
            )
        return value.rstrip("/")


class StorageError(Exception):
    """The storage does not work; the message says what failed and what to do."""


class BlobNotFound(StorageError):
    """There is no blob with this key."""


IsStopped = Callable[[], bool]


def _never() -> bool:
    return False


class Storage(Protocol):
    """Blobs by key. Every method blocks, is thread-safe, and may raise `StorageError`."""

    outlives_machines: bool
    """Whether jobs on other machines can read what this machine has stored."""

    def put(self, key: str, content: BinaryIO) -> None:
        """Store the content, from its start, atomically."""

    def publish(self, keys: Iterable[str], disk: "LocalStorage", is_stopped: IsStopped = _never) -> set[str]:
        """Store files of a job that are on `disk` under the same keys. Raises `BlobNotFound`.

        Returns the keys that are stored: all of them, unless `is_stopped` says so before the end.
        """

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        """The current content, or its `last` bytes, in chunks. Raises `BlobNotFound`."""

    def size(self, key: str) -> int | None:
        """The size in bytes; None if there is no such blob."""

    def locate(
        self, key: str, method: Method = "GET", sharing: Collection[UUID] | None = None
    ) -> BinaryIO | SignedUrl:
        """The blob as an open file, or a URL to download it.

        A job's files may lie in the working directory of another one: of those in `sharing`, if given.
        Raises `BlobNotFound` for a missing file; with a URL, the download reports a missing blob.
        """

    def names(self, key: str) -> list[str]:
        """The names directly below a key; empty if the key does not exist."""

    def remove(self, key: str) -> None:
        """Remove the blob and everything below the key. It is no error if there is nothing."""


def open_storage(settings: StorageSettings) -> Storage:
    if settings.storage_url is None:
        return LocalStorage(settings.home, settings.all_project_roots)
    url = settings.storage_credentials_url
    credentials = None if url is None else FromGateway(url)
    return S3Storage(settings.storage_url, timedelta(seconds=settings.download_seconds), credentials)


def bundle_key(bundle: str) -> str:
    """The key of a bundle that a job names `sha256:<hex>`."""
    return f"bundles/{bundle.replace(':', '/')}"


def bundle_use_key(bundle: str, *use: str) -> str:
    """The key under which a job records that it needs a bundle; `use` identifies the job."""
    return "/".join(("bundles", "uses", bundle.partition(":")[2], *use))


def workflow_key(name: str, *version: str) -> str:
    """The key of a version of a registered workflow, or of all of them."""
    return "/".join(("workflows", name, *(f"{each}.json" for each in version)))


def job_key(job_id: UUID, *path: str) -> str:
    return "/".join(("jobs", str(job_id), *path))


def media_type_of(path: str) -> str:
    """The media type of a file, by its name. A compressed file has the type of its compression."""
    media_type, encoding = _MEDIA_TYPES.guess_type(path)
    if encoding == "gzip":
        return "application/gzip"
    return "application/octet-stream" if encoding or not media_type else media_type


class LocalStorage:
    """Files below one directory."""

    outlives_machines = False

    def __init__(self, home: Path, project_roots: Sequence[Path] = ()) -> None:
        """Jobs may also have files in directories below `project_roots`."""
        self._home = home.resolve()
        self._project_roots = project_roots

    def open(self, key: str, sharing: Collection[UUID] | None = None) -> BinaryIO:
        """Open the file of a blob. Raises `BlobNotFound`."""
        with _translating_file_errors(key):
            match PurePosixPath(key).parts:
                case ("jobs", job_id, "work", *path):
                    work = work_of(self._home / "jobs" / job_id, self._project_roots, sharing)
                    return open_file(work.joinpath(*path), within=work)
                case _:
                    return open_file(self._home / key)

    def put(self, key: str, content: BinaryIO) -> None:
        place = self._home / key
        partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
        with _translating_file_errors(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                content.seek(0)
                with partial.open("xb") as file:
                    shutil.copyfileobj(content, file, _CHUNK_BYTES)
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)

    def publish(self, keys: Iterable[str], disk: "LocalStorage", is_stopped: IsStopped = _never) -> set[str]:
        """Do nothing: the files are already in place."""
        return set(keys)

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        with _translating_file_errors(key), self.open(key) as file:
            # Up to its current size: a file that grows faster than it is read would never end.
            left = size = os.fstat(file.fileno()).st_size
            if last is not None and last < size:
                left = last
                file.seek(-last, os.SEEK_END)
            while chunk := file.read(min(left, _CHUNK_BYTES)):
                left -= len(chunk)
                yield chunk

    def size(self, key: str) -> int | None:
        try:
            with self.open(key) as file:
                return os.fstat(file.fileno()).st_size
        except BlobNotFound:
            return None

    def locate(
        self, key: str, method: Method = "GET", sharing: Collection[UUID] | None = None
    ) -> BinaryIO | SignedUrl:
        return self.open(key, sharing)

    def names(self, key: str) -> list[str]:
        with _translating_file_errors(key):
            place = self._home / key
            return [entry.name for entry in place.iterdir()] if place.is_dir() else []

    def remove(self, key: str) -> None:
        place = self._home / key
        with _translating_file_errors(key):
            if place.is_dir() and not place.is_symlink():
                remove_tree(place)
            else:
                place.unlink(missing_ok=True)


class S3Storage:
    """Objects of an S3 bucket, below one prefix."""

    outlives_machines = True

    def __init__(
        self, url: str, download_lifetime: timedelta, credentials: FromGateway | None = None
    ) -> None:
        """Without `credentials`, AWS's own variables or role are used."""
        self._url = url
        self._download_lifetime = download_lifetime
        address = urlsplit(url)
        self._store = S3Store(
            address.netloc,
            prefix=address.path.strip("/") or None,
            # A custom endpoint may be on this machine or this network.
            client_options={"allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
            credential_provider=credentials,
        )

    def put(self, key: str, content: BinaryIO) -> None:
        content.seek(0)
        self._put(key, content)

    def _put(self, key: str, content: BinaryIO | Iterator[bytes]) -> None:
        name = PurePosixPath(_object_key(key)).name
        with self._translating_errors(key):
            obstore.put(
                self._store,
                _object_key(key),
                content,
                # Sent with every download: an output is data, and no browser may run it as a page.
                attributes={
                    "Content-Type": media_type_of(name),
                    "Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}",
                },
            )

    def publish(self, keys: Iterable[str], disk: LocalStorage, is_stopped: IsStopped = _never) -> set[str]:
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as uploads:
            stored = uploads.map(self._put_file, keys, repeat(disk), repeat(is_stopped))
            return {key for key in stored if key is not None}

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        with self._translating_errors(key):
            try:
                found = obstore.get(self._store, key)
                if last is not None and last < found.meta["size"]:
                    found = obstore.get(self._store, key, options={"range": {"suffix": last}})
            except FileNotFoundError:
                raise _not_found(key) from None
            for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def size(self, key: str) -> int | None:
        with self._translating_errors(key):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                return None

    def locate(
        self, key: str, method: Method = "GET", sharing: Collection[UUID] | None = None
    ) -> BinaryIO | SignedUrl:
        with self._translating_errors(key):
            return SignedUrl(obstore.sign(self._store, method, _object_key(key), self._download_lifetime))

    def names(self, key: str) -> list[str]:
        with self._translating_errors(key):
            found = obstore.list_with_delimiter(self._store, f"{key}/")
        paths = [*found["common_prefixes"], *(blob["path"] for blob in found["objects"])]
        return [PurePosixPath(path).name for path in paths]

    def remove(self, key: str) -> None:
        with self._translating_errors(key):
            paths = [blob["path"] for page in obstore.list(self._store, f"{key}/") for blob in page]
            obstore.delete(self._store, [key, *paths])

    def _put_file(self, key: str, disk: LocalStorage, is_stopped: IsStopped) -> str | None:
        """The key, if the file was stored."""
        try:
            with disk.open(key) as content:
                self._put(key, _chunks(content, is_stopped))
        except StorageError:
            if is_stopped():
                return None
            raise
        return key

    @contextmanager
    def _translating_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # Not "from error": a response from S3 may repeat the credentials that were sent.
            raise StorageError(
                f"{self._url} can't be used for {key} ({type(error).__name__}). Check that the bucket "
                "exists, and that AWS's own variables set the right region, endpoint and credentials."
            ) from None


def _chunks(content: BinaryIO, is_stopped: IsStopped) -> Iterator[bytes]:
    """The content. It ends with an error when `is_stopped` says so, and nothing is stored then."""
    while not is_stopped():
        if not (chunk := content.read(_CHUNK_BYTES)):
            return
        yield chunk
    raise OSError("stopped")


@contextmanager
def _translating_file_errors(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(key) from error
    except OSError as error:
        raise StorageError(
            f"JOBS_HOME can't be used for {key}: {error.strerror}. Check that the disk is not full, "
            "and that the service has permission to write there."
        ) from error


def _object_key(key: str) -> str:
    """A key that S3 can hold: names of files may have bytes that are not UTF-8."""
    return "".join(f"%{ord(part) - 0xDC00:02X}" if "\udc80" <= part <= "\udcff" else part for part in key)


def _not_found(key: str) -> BlobNotFound:
    return BlobNotFound(f"There is no {key} in the storage.")
