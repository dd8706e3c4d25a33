"""Sends notifications when jobs end: automations of Prefect, one for each receiver and group."""

from collections.abc import Sequence
from typing import Any

from prefect.automations import AutomationCore, EventTrigger, SendNotification
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from flows.contract.spec import FLOW_NAME, Label

FAILURES = ("Failed", "Crashed")
COMPLETED = "Completed"

_SUBJECT = "{{ flow_run.name }}: {{ flow_run.state.name }}"
_BODY = (
    "The job {{ flow_run.name }} ({{ flow_run.id }}) is {{ flow_run.state.name }}.\n\n"
    "{{ flow_run.state.message }}\n\n"
    f"{{{{ flow_run.labels['{Label.ERROR_RESOLUTION.value}'] }}}}\n\n"
    "{{ flow_run|ui_url }}\n"
)


class NoBlock(Exception):
    """There is no such notification block; the message says what to do."""


async def notify(block: str, group: str | None, states: Sequence[str]) -> str:
    """Send a notification by the block `type/name` when a job reaches one of the states.

    Returns the name of the automation; repeating it changes that. Raises `NoBlock`.
    """
    async with get_client() as client:
        automation = _automation(await _block_id(client, block), block, group, states)
        known = await client.read_automations_by_name(automation.name)
        if known:
            await client.update_automation(known[0].id, automation)
        else:
            await client.create_automation(automation)
    return automation.name


async def stop_notifying(block: str, group: str | None) -> bool:
    """Remove the automation. Returns whether there was one."""
    async with get_client() as client:
        known = await client.read_automations_by_name(_name(block, group))
        for automation in known:
            await client.delete_automation(automation.id)
    return bool(known)


def _automation(block_id: object, block: str, group: str | None, states: Sequence[str]) -> AutomationCore:
    related: list[Any] = [{"prefect.resource.role": "flow", "prefect.resource.name": FLOW_NAME}]
    if group is not None:  # each group has a work queue of its name
        related.append({"prefect.resource.role": "work-queue", "prefect.resource.name": group})
    return AutomationCore(
        name=_name(block, group),
        description=f"Sends a notification when a job is {' or '.join(states)}.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=related,
            expect={f"prefect.flow-run.{state}" for state in states},
            for_each={"prefect.resource.id"},
            posture="Reactive",  # type: ignore[arg-type]  # as JSON
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block_id, subject=_SUBJECT, body=_BODY)],  # type: ignore[arg-type]  # a UUID
    )


async def _block_id(client: PrefectClient, block: str) -> object:
    kind, _, name = block.partition("/")
    try:
        return (await client.read_block_document_by_name(name, kind)).id
    except ObjectNotFound:
        raise NoBlock(
            f"Prefect has no block '{block}'. Make it in the Prefect UI, below Blocks, for example of the "
            "type Slack Webhook. `prefect block ls` lists blocks as type/name."
        ) from None


def _name(block: str, group: str | None) -> str:
    return f"Notify {block} of jobs{f' of {group}' if group else ''}"
