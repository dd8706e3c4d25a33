"""Bundles: received as a stream, checked completely, stored under the checksum of their bytes."""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from api.web import schemas
from api.web.fair_limits import FairLimit
from api.web.problems import BodyTooLarge, BundleRefused, UnsupportedArchive, sentence
from api.web.schemas import Bundle
from flows.contract import bundles
from flows.contract.bundles import BundleLimits, check_bundle
from flows.contract.storage import Storage, bundle_key
from flows.contract.untrusted_tree import Refused

# Checks are CPU-bound. The limits leave room for the requests of others, and for their uploads.
_CHECKS_AT_ONCE = 2
_OF_ONE_CALLER = 1


class Bundles:
    """Receives bundles and stores them."""

    def __init__(self, storage: Storage, limits: BundleLimits, upload_directory: Path) -> None:
        self._storage = storage
        self._limits = limits
        self._upload_directory = upload_directory
        self._checks = FairLimit(_CHECKS_AT_ONCE, _OF_ONE_CALLER)

    def limits(self) -> schemas.BundleLimits:
        return schemas.BundleLimits(
            max_bytes=self._limits.bundle_max_bytes,
            max_unpacked_bytes=self._limits.workflow_max_bytes,
            max_entries=self._limits.workflow_max_entries,
        )

    async def receive(
        self, body: AsyncIterator[bytes], declared_bytes: int | None, caller: str
    ) -> tuple[Bundle, HTTPStatus]:
        """The bundle, and whether it was created (201) or existed before (200).

        Raises `BodyTooLarge`, `UnsupportedArchive`, `BundleRefused` and
        `flows.contract.storage.StorageError`.
        """
        if declared_bytes is not None and declared_bytes > self._limits.bundle_max_bytes:
            raise self._too_large()
        self._upload_directory.mkdir(parents=True, exist_ok=True)
        # A file without a name: the kernel removes it, however the upload ends.
        with tempfile.TemporaryFile(dir=self._upload_directory) as archive:
            checksum, size = hashlib.sha256(), 0
            async for chunk in body:
                size += len(chunk)
                if size > self._limits.bundle_max_bytes:
                    raise self._too_large()
                checksum.update(chunk)
                await anyio.to_thread.run_sync(archive.write, chunk)
            name = f"sha256:{checksum.hexdigest()}"
            return await self._checks.in_thread(caller, self._keep, name, archive)

    def _keep(self, name: str, archive: BinaryIO) -> tuple[Bundle, HTTPStatus]:
        archive.flush()
        try:
            contents = check_bundle(archive, self._limits)
        except bundles.NotAnArchive as refusal:
            raise UnsupportedArchive(sentence(refusal), refusal.resolution) from refusal
        except Refused as refusal:
            raise BundleRefused(sentence(refusal), refusal.resolution) from refusal
        size = os.fstat(archive.fileno()).st_size
        bundle = Bundle(bundle=name, size_bytes=size, files=contents.files)
        if self._storage.size(bundle_key(name)) == size:
            return bundle, HTTPStatus.OK
        self._storage.put(bundle_key(name), archive)
        return bundle, HTTPStatus.CREATED

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The bundle is larger than {self._limits.bundle_max_bytes:,} bytes.",
            "Pack the workflow without its data. The operator sets the limit with JOBS_BUNDLE_MAX_BYTES.",
        )
