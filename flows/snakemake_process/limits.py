"""Limits what the processes of a job take, with setrlimit(2): children inherit them and can't raise them."""

import resource
from collections.abc import Mapping

PER_USER = "RLIMIT_NPROC"
"""Counts processes of the user. In a room, only those of the room count (since Linux 5.14)."""


def limit(values: Mapping[str, int], *, is_in_room: bool) -> None:
    """Set each limit by its name, unless it is lower already."""
    for name, value in values.items():
        if name == PER_USER and not is_in_room:
            continue
        number: int = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        resource.setrlimit(number, (_lower(soft, value), _lower(hard, value)))


def _lower(current: int, wanted: int) -> int:
    return wanted if current == resource.RLIM_INFINITY else min(current, wanted)
