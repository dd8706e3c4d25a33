"""The messages of webhooks, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self
from uuid import uuid5

from pydantic import AwareDatetime, BaseModel
from standardwebhooks import Webhook as Signer

from api.web.problems import FieldProblem, WebhookRefused
from api.web.schemas import Job
from api.webhooks.addresses import WebhookAddressRefused, check_url
from flows.contract.spec import Webhook

_POINTER = "#/webhook/url"


class WebhookBody(BaseModel):
    """A job has reached a final status."""

    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: AwareDatetime
    data: Job


@dataclass(frozen=True, slots=True)
class Message:
    """One final state of one job. Every attempt, from every replica, has the same id and body."""

    id: str
    body: bytes

    @classmethod
    def of(cls, job: Job, ended_at: datetime) -> Self:
        body = WebhookBody.model_validate({"type": f"job.{job.status}", "timestamp": ended_at, "data": job})
        return cls(cls.id_of(job, ended_at), body.model_dump_json().encode())

    @staticmethod
    def id_of(job: Job, ended_at: datetime) -> str:
        """A job that is run again ends again, with another message."""
        return f"msg_{uuid5(job.id, ended_at.isoformat()).hex}"

    def headers(self, signer: Signer, sent_at: datetime) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            "webhook-id": self.id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": signer.sign(self.id, sent_at, self.body.decode()),
        }


def check_webhook(webhook: Webhook | None, *, can_sign: bool, private_hosts: Sequence[str]) -> None:
    """Raises `WebhookRefused` for a webhook that would never be delivered."""
    if webhook is None:
        return
    if not can_sign:
        raise _refused(
            "Webhooks are off on this server.",
            "Leave out `webhook` and poll GET /jobs/{id}, or ask the operator to set JOBS_WEBHOOK_SECRET.",
        )
    try:
        check_url(str(webhook.url), private_hosts)
    except WebhookAddressRefused as error:
        raise _refused(
            str(error),
            "Use a public https address. The operator allows private hosts with "
            "JOBS_WEBHOOK_ALLOWED_PRIVATE_HOSTS.",
        ) from error


def _refused(detail: str, resolution: str) -> WebhookRefused:
    return WebhookRefused(detail, resolution, [FieldProblem(pointer=_POINTER, message=detail)])
