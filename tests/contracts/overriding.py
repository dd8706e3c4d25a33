"""Compares what a class of ours overrides with what its base has."""

import inspect
from collections.abc import Collection
from inspect import Parameter
from typing import Any


def overridden_names(ours: type, base: type) -> set[str]:
    """The methods and properties of `base` that `ours` replaces."""
    return {
        name
        for name, value in vars(ours).items()
        if _is_code(value) and getattr(base, name, None) is not getattr(object, name, None)
    }


def assert_overrides(ours: type, base: type, names: Collection[str]) -> None:
    """`ours` replaces exactly `names` of `base`, and each takes the arguments that the base's takes."""
    assert overridden_names(ours, base) == set(names)
    for name in names:
        theirs = inspect.getattr_static(base, name)
        replacement = inspect.getattr_static(ours, name)
        assert isinstance(replacement, property) == isinstance(theirs, property), name
        if isinstance(theirs, property):
            continue
        theirs, replacement = _function(theirs), _function(replacement)
        assert inspect.iscoroutinefunction(replacement) == inspect.iscoroutinefunction(theirs), name
        assert accepts_as(replacement, theirs), (
            f"{name}{inspect.signature(replacement)} replaces {name}{inspect.signature(theirs)}"
        )


def accepts_as(replacement: Any, original: Any) -> bool:
    """Whether `replacement` has the parameters of `original`, or takes any."""
    ours, theirs = (inspect.signature(each).parameters for each in (replacement, original))
    kinds = {parameter.kind for parameter in ours.values()}
    return {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} <= kinds or list(ours) == list(theirs)


def is_called_by(owner: type, name: str) -> bool:
    """Whether the code of `owner` calls its own method `name`, or passes it on."""
    return f"self.{name}" in inspect.getsource(owner)


def _is_code(value: object) -> bool:
    return isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)


def _function(value: Any) -> Any:
    return value.__func__ if isinstance(value, classmethod | staticmethod) else value
