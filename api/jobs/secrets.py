"""Checks the secrets of a job before Prefect is asked."""

from api.settings import Settings
from api.web.problems import FieldProblem, SecretNotAllowed, json_pointer, sentence
from flows.contract import secrets
from flows.contract.spec import JobSpec


def check_secrets(spec: JobSpec, settings: Settings) -> None:
    """Raises `SecretNotAllowed`. Whether the blocks exist, only the worker finds out."""
    try:
        secrets.check_secrets(spec.secrets, spec.group, settings)
    except secrets.SecretRefused as refusal:
        pointer = json_pointer(["secrets", refusal.variable])
        detail = sentence(refusal)
        problem = FieldProblem(pointer=pointer, message=detail)
        raise SecretNotAllowed(detail, refusal.resolution, [problem]) from refusal
