"""Reads a submission: a form of bounded size, and its attachments as a bundle."""

import json
import tarfile
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

import anyio.to_thread
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from api.jobs.bundles import Bundles
from api.web.bodies import decode_json
from api.web.problems import BodyTooLarge, FieldProblem, InvalidRequest
from api.wes.translation import Form

_JSON_FIELDS = ("workflow_params", "tags", "workflow_engine_parameters")
_ATTACHMENT = "workflow_attachment"
# The limits bound the memory: 64 MiB of attachments that are not spooled, and 16 fields of 1 MiB.
_MOST_ATTACHMENTS = 1000
_SPOOLED_FROM_BYTES = 64 << 10
_MOST_FIELDS = 16
_CHUNK_BYTES = 1 << 20


class _FormParser(MultiPartParser):
    spool_max_size = _SPOOLED_FROM_BYTES


async def read_form(request: Request, largest: int, largest_field: int) -> FormData:
    """The form, with files spooled to disk. Raises `BodyTooLarge` and `InvalidRequest`."""
    received = 0
    receive = request.receive

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > largest:
            raise BodyTooLarge(
                f"The submission is larger than {largest:,} bytes.",
                "Attach the workflow without its data. JOBS_BUNDLE_MAX_BYTES sets the limit.",
            )
        return message

    parser = _FormParser(
        request.headers,
        Request(request.scope, receive_bounded).stream(),
        max_files=_MOST_ATTACHMENTS,
        max_fields=_MOST_FIELDS,
        max_part_size=largest_field,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise _invalid("the form", f"can't be parsed: {error.message}") from error


def decode(form: FormData, largest_field: int) -> Form:
    """The fields of the form. Raises `BodyTooLarge` and `InvalidRequest`."""
    fields: dict[str, Any] = {
        name: _text(name, value, largest_field) for name, value in form.items() if name in Form.model_fields
    }
    for name in _JSON_FIELDS:
        if name in fields:
            fields[name] = decode_json(fields[name].encode()) if fields[name].strip() else {}
    for name in ("workflow_engine", "workflow_engine_version"):
        fields[name] = fields.get(name) or None
    decode_json(json.dumps(fields).encode())  # rejects values that can't be stored
    try:
        return Form.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(".".join(map(str, first["loc"])), f"is invalid: {first['msg']}") from error


async def bundle_of(form: FormData, bundles: Bundles, caller: str) -> str | None:
    """The name of the bundle of the attachments. The same files have the same name.

    Raises `BundleRefused`, `BodyTooLarge` and `InvalidRequest`.
    """
    files = [part for part in form.getlist(_ATTACHMENT) if isinstance(part, UploadFile)]
    if not files:
        if any(part for part in form.getlist(_ATTACHMENT)):
            raise _invalid(_ATTACHMENT, "must have a file name")
        return None
    with tempfile.TemporaryFile() as archive:
        await anyio.to_thread.run_sync(_pack, files, archive)
        bundle, _ = await bundles.receive(_chunks(archive), None, caller)
    return bundle.bundle


def _text(name: str, value: UploadFile | str, largest: int) -> str:
    """A field, also one that came with a file name, as Python's `requests` sends all of them."""
    if isinstance(value, str):
        return value
    content = value.file.read(largest + 1)
    if len(content) > largest:
        raise BodyTooLarge(
            f"{name} is larger than {largest:,} bytes.",
            "Move large values into attachments. JOBS_MAX_BODY_BYTES sets the limit.",
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _invalid(name, "must be text in UTF-8") from error


def _pack(files: list[UploadFile], archive: IO[bytes]) -> None:
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for file in sorted(files, key=lambda file: file.filename or ""):
            entry = tarfile.TarInfo((file.filename or "").removeprefix("./"))
            file.file.seek(0, 2)
            entry.size = file.file.tell()
            file.file.seek(0)
            packed.addfile(entry, file.file)
    archive.seek(0)


async def _chunks(archive: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await anyio.to_thread.run_sync(archive.read, _CHUNK_BYTES):
        yield chunk


def _invalid(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} {message}.",
        "See RunWorkflow in the WES specification for the fields of a submission.",
        [FieldProblem(pointer=name, message=message)],
    )
