"""Groups: which deployments of the flow there are, and what they are called."""

import time
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from uuid import UUID

from api.auth.callers import Caller
from api.web.problems import FieldProblem, UnknownGroup

LIFETIME_SECONDS = 5.0
"""How long a listing may miss the jobs of a group that was deployed just now."""


class Groups:
    """The groups and their deployments, read again when they are old or one is missed."""

    def __init__(self, read: Callable[[], Awaitable[Mapping[UUID, str]]]) -> None:
        """`read` gives the name of every deployment of the flow by its id."""
        self._read = read
        self._names: Mapping[UUID, str] = {}
        self._expires = 0.0

    async def deployment_of(self, group: str, caller: Caller, pointer: str = "#/group") -> UUID:
        """The deployment that is `group`; `pointer` says where the client named it.

        Raises `UnknownGroup` for a group of others as for one that is not: both are none of
        the caller's, and which there are is not told.
        """
        known = _by_name(await self._known())
        if group not in known:
            known = _by_name(await self._refreshed())
        if group not in known or not caller.may_see(group):
            raise unknown_group(group, sorted(filter(caller.may_see, known)), pointer)
        return known[group]

    async def name_of(self, deployment_id: UUID | None) -> str | None:
        """The group that is this deployment, none if the deployment is of another flow."""
        if deployment_id is None:
            return None
        known = await self._known()
        return known.get(deployment_id) or (await self._refreshed()).get(deployment_id)

    async def names(self, caller: Caller) -> Mapping[UUID, str]:
        """Every group of the caller's by the id of its deployment."""
        known = await self._known()
        return {deployment_id: name for deployment_id, name in known.items() if caller.may_see(name)}

    def forget(self) -> None:
        """Read them again at the next question."""
        self._expires = 0.0

    async def _known(self) -> Mapping[UUID, str]:
        return self._names if time.monotonic() < self._expires else await self._refreshed()

    async def _refreshed(self) -> Mapping[UUID, str]:
        self._names = await self._read()
        self._expires = time.monotonic() + LIFETIME_SECONDS
        return self._names


def _by_name(names: Mapping[UUID, str]) -> dict[str, UUID]:
    return {name: deployment_id for deployment_id, name in names.items()}


def unknown_group(group: str, known: list[str], pointer: str) -> UnknownGroup:
    nearest = get_close_matches(group, known, n=1)
    hint = f"Did you mean '{nearest[0]}'? " if nearest else ""
    listed = f"Groups: {', '.join(known)}." if known else "No group is deployed yet; tell the operator."
    detail = f"There is no group '{group}'."
    return UnknownGroup(detail, hint + listed, [FieldProblem(pointer=pointer, message=detail)])
