"""Where bundles and what jobs have made are kept: below JOBS_HOME, or in an S3 bucket.

Both keep the same things under the same keys:

    bundles/sha256/<hex>                  a bundle, by the checksum of its bytes
    jobs/<job id>/outputs.json            the manifest
    jobs/<job id>/snakemake.log, events.jsonl, report.html
    jobs/<job id>/work/<path>             an output
    jobs/<job id>/work.tar                what a job that has not completed leaves to its successor

Below JOBS_HOME these are the files that jobs work on, so there is nothing to publish. Rules could put
anything in their place: JOBS_HOME may be a link, but no blob in it is read through one, save an output
that is a link to another file of its job's `work`.

    StorageError        the storage can't do its work
    └── BlobNotFound    it does not have what was asked for
"""

import mimetypes
import os
import shutil
from collections.abc import Iterable, Iterator
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
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.job_files import open_file, remove_tree, work_of

_CHUNK_BYTES = 1 << 20
_UPLOADS_AT_ONCE = 8
_RETRY_SECONDS = 30
_MEDIA_TYPES = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/plain", ".vcf")  # a variant call file; the registered type is that of vCards

Method = Literal["GET", "HEAD"]
SignedUrl = NewType("SignedUrl", str)
"""Good for one method and for a while, without further credentials."""


class StorageSettings(BaseSettings):
    """Where jobs and bundles are kept; the same for the facade and the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    home: Path = Field(
        default=Path(".jobs"), description="Holds the directories of all jobs, under `jobs/`, and bundles."
    )
    storage_url: str | None = Field(
        default=None,
        max_length=1024,
        description="An S3 bucket as `s3://bucket/prefix`, to keep bundles and what jobs have made; "
        "below JOBS_HOME when absent. AWS's own variables say who asks, and where.",
    )
    download_seconds: int = Field(
        default=300, ge=10, le=86_400, description="How long the address of a download from S3 is good."
    )

    @field_validator("storage_url")
    @classmethod
    def _is_s3(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme != "s3" or not url.hostname or url.netloc != url.hostname or url.query or url.fragment:
            raise ValueError("must be s3://bucket or s3://bucket/prefix; keys go into AWS's own variables")
        return value.rstrip("/")


class StorageError(Exception):
    """The storage can't do its work; the message says which part of it and what to do."""


class BlobNotFound(StorageError):
    """The storage does not have what was asked for."""


class Storage(Protocol):
    """Blobs by key. Every method blocks, is safe from any thread, and may raise `StorageError`."""

    outlives_machines: bool
    """Whether jobs of another machine find here what this one has kept."""

    def put(self, key: str, content: BinaryIO) -> None:
        """Keep the content, from its start, as a whole or not at all."""

    def publish(self, keys: Iterable[str], disk: "LocalStorage") -> None:
        """Keep files of a job, which lie on `disk` under the same keys. Raises `BlobNotFound`."""

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        """The content as it is now, or its `last` bytes, in pieces. Raises `BlobNotFound`."""

    def size(self, key: str) -> int | None:
        """In bytes; None if there is no such blob."""

    def locate(self, key: str, method: Method = "GET") -> BinaryIO | SignedUrl:
        """The blob as an open file, or the address where it can be had; only a file is looked for.

        Raises `BlobNotFound`.
        """

    def names(self, key: str) -> list[str]:
        """What there is right below a key, by name; nothing where the key is not."""

    def remove(self, key: str) -> None:
        """Take away the blob and all that is below the key; what is not there is no error."""


def open_storage(settings: StorageSettings) -> Storage:
    if settings.storage_url is None:
        return LocalStorage(settings.home)
    return S3Storage(settings.storage_url, timedelta(seconds=settings.download_seconds))


def bundle_key(bundle: str) -> str:
    """Of a bundle as a job names it, `sha256:<hex>`."""
    return f"bundles/{bundle.replace(':', '/')}"


def bundle_use_key(bundle: str, *use: str) -> str:
    """Where a job notes that it needs a bundle; `use` is a word of its own."""
    return "/".join(("bundles", "uses", bundle.partition(":")[2], *use))


def job_key(job_id: UUID, *path: str) -> str:
    return "/".join(("jobs", str(job_id), *path))


def media_type_of(path: str) -> str:
    """What the file holds, by its name; what is packed is told as packed."""
    media_type, encoding = _MEDIA_TYPES.guess_type(path)
    if encoding == "gzip":
        return "application/gzip"
    return "application/octet-stream" if encoding or not media_type else media_type


class LocalStorage:
    """Files below one directory."""

    outlives_machines = False

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()

    def open(self, key: str) -> BinaryIO:
        """The file that the blob is. Raises `BlobNotFound`."""
        with _told_of_files(key):
            match PurePosixPath(key).parts:
                case ("jobs", job_id, "work", *path):
                    work = work_of(self._home / "jobs" / job_id)
                    return open_file(work.joinpath(*path), within=work)
                case _:
                    return open_file(self._home / key)

    def put(self, key: str, content: BinaryIO) -> None:
        place = self._home / key
        partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
        with _told_of_files(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                content.seek(0)
                with partial.open("xb") as file:
                    shutil.copyfileobj(content, file, _CHUNK_BYTES)
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)

    def publish(self, keys: Iterable[str], disk: "LocalStorage") -> None:
        """They are where they belong already."""

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        with _told_of_files(key), self.open(key) as file:
            # Not to its end: what is written faster than it is read has none.
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

    def locate(self, key: str, method: Method = "GET") -> BinaryIO | SignedUrl:
        return self.open(key)

    def names(self, key: str) -> list[str]:
        with _told_of_files(key):
            place = self._home / key
            return [entry.name for entry in place.iterdir()] if place.is_dir() else []

    def remove(self, key: str) -> None:
        place = self._home / key
        with _told_of_files(key):
            if place.is_dir() and not place.is_symlink():
                remove_tree(place)
            else:
                place.unlink(missing_ok=True)


class S3Storage:
    """Objects of an S3 bucket, below one prefix."""

    outlives_machines = True

    def __init__(self, url: str, download_lifetime: timedelta) -> None:
        self._url = url
        self._download_lifetime = download_lifetime
        address = urlsplit(url)
        self._store = S3Store(
            address.netloc,
            prefix=address.path.strip("/") or None,
            # An endpoint that is not AWS's own may be one of this machine or this network.
            client_options={"allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        )

    def put(self, key: str, content: BinaryIO) -> None:
        content.seek(0)
        name = PurePosixPath(key).name
        with self._told_of_objects(key):
            obstore.put(
                self._store,
                key,
                content,
                # Told with every download: an output is data, no browser shall run it as a page.
                attributes={
                    "Content-Type": media_type_of(name),
                    "Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}",
                },
            )

    def publish(self, keys: Iterable[str], disk: LocalStorage) -> None:
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as uploads:
            list(uploads.map(self._put_file, keys, repeat(disk)))

    def read(self, key: str, last: int | None = None) -> Iterator[bytes]:
        with self._told_of_objects(key):
            try:
                found = obstore.get(self._store, key)
                if last is not None and last < found.meta["size"]:
                    found = obstore.get(self._store, key, options={"range": {"suffix": last}})
            except FileNotFoundError:
                raise _not_found(key) from None
            for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def size(self, key: str) -> int | None:
        with self._told_of_objects(key):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                return None

    def locate(self, key: str, method: Method = "GET") -> BinaryIO | SignedUrl:
        with self._told_of_objects(key):
            return SignedUrl(obstore.sign(self._store, method, key, self._download_lifetime))

    def names(self, key: str) -> list[str]:
        with self._told_of_objects(key):
            found = obstore.list_with_delimiter(self._store, f"{key}/")
        paths = [*found["common_prefixes"], *(blob["path"] for blob in found["objects"])]
        return [PurePosixPath(path).name for path in paths]

    def remove(self, key: str) -> None:
        with self._told_of_objects(key):
            paths = [blob["path"] for page in obstore.list(self._store, f"{key}/") for blob in page]
            obstore.delete(self._store, [key, *paths])

    def _put_file(self, key: str, disk: LocalStorage) -> None:
        with disk.open(key) as content:
            self.put(key, content)

    @contextmanager
    def _told_of_objects(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # Not "from error": an answer of S3 may repeat the credentials that were sent.
            raise StorageError(
                f"{self._url} can't be used for {key} ({type(error).__name__}). Look whether the bucket is "
                "there, and what AWS's own variables say of region, endpoint and credentials."
            ) from None


@contextmanager
def _told_of_files(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(key) from error
    except OSError as error:
        raise StorageError(
            f"JOBS_HOME can't be used for {key}: {error.strerror}. Look whether the disk is full, "
            "and whether the service may write there."
        ) from error


def _not_found(key: str) -> BlobNotFound:
    return BlobNotFound(f"There is no {key} in the storage.")
