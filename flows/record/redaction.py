"""Replaces the values of secrets by `***`, in everything that leaves the job.

Besides a value itself, this finds its usual encodings: in JSON, in a URL, in base64, and quoted for a
shell. Each longer line of a value counts as a secret, because logs are read in lines. What a program
encodes in another way, or writes in pieces, is not found.
"""

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from enum import Enum
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from flows.snakemake_process.events import WorkflowEvent

MASK = "***"
_SHORTEST_LINE = 8
_CHUNK_BYTES = 1 << 20

Event = TypeVar("Event", bound=WorkflowEvent)


class Redaction:
    """Knows the secrets of one job."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, forms))) if forms else None
        encoded = [form.encode(errors="surrogateescape") for form in forms]
        self._bytes = re.compile(b"|".join(map(re.escape, encoded))) if forms else None
        self._longest = max(map(len, encoded), default=1)

    def __bool__(self) -> bool:
        """Whether there are secrets."""
        return self._text is not None

    def text(self, text: str) -> str:
        return text if self._text is None else self._text.sub(MASK, text)

    def event(self, event: Event) -> Event:
        """The event with every text in it redacted."""
        if self._text is None:
            return event
        return replace(event, **{each.name: self._value(getattr(event, each.name)) for each in fields(event)})

    def stream(self, content: BinaryIO) -> Iterator[bytes]:
        """The content of a file, in pieces."""
        held = b""
        while chunk := content.read(_CHUNK_BYTES):
            held += chunk
            end = self.end_before(held, len(held) - self._longest + 1)
            yield self._data(held[:end])
            held = held[end:]
        yield self._data(held)

    def end_of(self, data: bytes) -> int:
        """How much of `data` can be shown although more will follow."""
        return len(data) if self._bytes is None else self.end_before(data, len(data) - self._longest + 1)

    def end_before(self, data: bytes, end: int) -> int:
        """The last place until `end` that is not inside a secret."""
        if self._bytes is not None:
            for found in self._bytes.finditer(data):
                if found.start() < end < found.end():
                    return found.start()
        return max(end, 0)

    def _data(self, data: bytes) -> bytes:
        return data if self._bytes is None else self._bytes.sub(MASK.encode(), data)

    def _value(self, value: Any) -> Any:
        match value:
            case Enum():
                return value
            case str():
                return self.text(value)
            case tuple():
                return tuple(map(self._value, value))
            case Mapping():
                return {self._value(key): self._value(each) for key, each in value.items()}
            case _:
                return value


def _forms(value: str) -> Iterator[str]:
    """How a value may look in a text."""
    stripped = value.strip()
    lines = (line.strip() for line in value.splitlines())
    for form in (stripped, *(line for line in lines if len(line) >= _SHORTEST_LINE)):
        yield form
        yield json.dumps(form)[1:-1]
        yield json.dumps(form, ensure_ascii=False)[1:-1]
        yield quote(form, safe="")
        yield shlex.quote(form)[1:-1] if shlex.quote(form) != form else form
        yield repr(form)[1:-1]
    for whole in (stripped, value):
        yield b64encode(whole.encode(errors="surrogateescape")).decode().rstrip("=")
    if value.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            yield from (form for text in _texts(json.loads(value)) for form in _forms(text))


def _texts(value: object) -> Iterator[str]:
    """The longer texts in a value of JSON, such as the key of a service account."""
    match value:
        case str() if len(value) >= _SHORTEST_LINE:
            yield value
        case dict():
            yield from (text for each in value.values() for text in _texts(each))
        case list():
            yield from (text for each in value for text in _texts(each))


NOTHING = Redaction()
"""For a job without secrets."""
