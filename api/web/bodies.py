"""Reads JSON bodies safely: bounded, decoded strictly, without values that PostgreSQL can't store."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pydantic_core
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import JsonValue

from api.web.problems import BodyTooLarge, FieldProblem, InvalidRequest, NotJson, json_pointer
from flows.contract.field_types import LARGEST_NUMBER


class DecodedRequest(Request):
    """A request whose body has already been read and decoded."""

    def __init__(self, request: Request, body: bytes, decoded: JsonValue) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = body
        self._decoded = decoded

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> JsonValue:
        return self._decoded


class JsonBodyRoute(APIRoute):
    """A route that rejects an unsafe body before FastAPI parses it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def decode_and_handle(request: Request) -> Response:
            _check_media_type(request)
            body = await _read(request, request.app.state.services.settings.max_body_bytes)
            return await handle(DecodedRequest(request, body, decode_json(body)))

        return decode_and_handle


def decode_json(body: bytes) -> JsonValue:
    """Decodes at most 200 levels of valid JSON. Raises `InvalidRequest`."""
    try:
        decoded: JsonValue = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _invalid("#", f"The body is not valid JSON: {error}.") from error
    for pointer, message in _unstorable(decoded):
        raise _invalid(pointer, message)
    return decoded


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise NotJson(
            f"The body has the media type '{media_type or '(none)'}'.",
            "Send JSON with Content-Type: application/json.",
        )


async def _read(request: Request, largest: int) -> bytes:
    """Reads no further than the limit, whatever Content-Length says. Raises `BodyTooLarge`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise BodyTooLarge(
                f"The body is larger than {largest:,} bytes.",
                "Move large values into files of the workflow, and name the files in `config`.",
            )
    return bytes(body)


def _unstorable(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, str]]:
    match value:
        case str() if "\0" in value:
            yield json_pointer(path), "Text must not contain a NUL character."
        case int() | float() if not -LARGEST_NUMBER < value < LARGEST_NUMBER:
            yield json_pointer(path), "This number is too large. Write it as text."
        case dict():
            for key, inner in value.items():
                yield from _unstorable(key, (*path, key))
                yield from _unstorable(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from _unstorable(inner, (*path, index))
        case _:
            pass


def _invalid(pointer: str, message: str) -> InvalidRequest:
    errors = [FieldProblem(pointer=pointer, message=message)]
    return InvalidRequest(message, "Correct the body. /docs describes its fields.", errors)
