"""Turns pydantic's errors about a request into a problem that names each field, and the likely typo."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import isclass
from typing import Any, get_args

from pydantic import BaseModel

from api.web.problems import FieldProblem, InvalidRequest, NotFound, ProblemError, json_pointer

_BODY = "body"
_PATH = "path"


def problem_of(errors: Sequence[Mapping[str, Any]], model: type[BaseModel] | None) -> ProblemError:
    """The problem for these errors of pydantic; `model` describes the body or the query."""
    if errors[0]["loc"][0] == _PATH:
        if str(errors[0]["type"]).startswith("string"):
            return NotFound(
                "No workflow or version can have that name.",
                "Use letters, digits, '.', '_' and '-', and begin with a letter or a digit.",
            )
        return NotFound("Nothing has that id.", "Use a UUID. GET /jobs lists the jobs with their ids.")
    fields = [_field_problem(error) for error in errors]
    hints = [hint for error in errors if (hint := _hint(error, model))]
    return InvalidRequest(
        "; ".join(f"{field.pointer}: {field.message}" for field in fields[:3]),
        " ".join(hints) or "Correct the fields listed under `errors`. /docs describes them.",
        fields,
    )


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    where, *steps = error["loc"]
    # pydantic marks an error in a key, rather than in its value, by an extra last step.
    steps = [step for step in steps if step != "[key]"]
    pointer = json_pointer(steps) if where == _BODY else f"?{'.'.join(map(str, steps))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldProblem(pointer=pointer, message="There is no such field." if _is_unknown(error) else message)


def _hint(error: Mapping[str, Any], model: type[BaseModel] | None) -> str | None:
    if model is None or not _is_unknown(error):
        return None
    _, *parents, name = error["loc"]
    names = _field_names(model, parents)
    nearest = get_close_matches(str(name), names, n=1)
    if nearest:
        return f"Instead of '{name}', did you mean '{nearest[0]}'?"
    return f"'{name}' is not a field. The fields are: {', '.join(names)}."


def _is_unknown(error: Mapping[str, Any]) -> bool:
    return bool(error["type"] == "extra_forbidden")


def _field_names(model: type[BaseModel], steps: Sequence[str | int]) -> list[str]:
    """The fields of the model inside `model` that `steps` lead to."""
    for step in steps:
        field = model.model_fields.get(str(step))
        inner = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((kind for kind in inner if isclass(kind) and issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
