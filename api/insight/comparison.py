"""What two jobs have in common, and where they differ. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.insight.usage import RuleUsage, rules_of
from api.web.problems import json_pointer
from api.web.schemas import Job, RuleJob
from flows.contract.manifest import FileKind, Manifest, OutputItem


class Difference(BaseModel):
    """A value that differs; null where a job has none."""

    pointer: str = Field(description="Its place, as a JSON pointer into the job spec, or its name.")
    one: JsonValue
    other: JsonValue


class RuleComparison(BaseModel):
    """A rule that both have run, or one of them."""

    rule: str
    one: RuleUsage | None
    other: RuleUsage | None


class OutputComparison(BaseModel):
    """Outputs by what became of them, as paths."""

    same: int = Field(description="How many are the same, by checksum, or by size where there is none.")
    different: list[str]
    only_one: list[str]
    only_other: list[str]


class Comparison(BaseModel):
    """Two jobs side by side: the one that was asked for, and the other."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "spec": [{"pointer": "#/config/depth", "one": 20, "other": 30}],
                    "versions": [{"pointer": "snakemake", "one": "9.14.0", "other": "9.27.1"}],
                    "rules": [],
                    "outputs": {
                        "same": 4,
                        "different": ["results/plot.png"],
                        "only_one": [],
                        "only_other": ["results/new.tsv"],
                    },
                }
            ]
        }
    )

    spec: list[Difference] = Field(description="What was asked for: source, configuration, options, …")
    versions: list[Difference] = Field(description="The commit, Python, and every package.")
    rules: list[RuleComparison]
    outputs: OutputComparison


class Compared(BaseModel):
    """All that is known of one of the jobs."""

    model_config = ConfigDict(frozen=True)

    job: Job
    parameters: dict[str, Any]
    rule_jobs: tuple[RuleJob, ...]
    manifest: Manifest


def comparison_of(one: Compared, other: Compared, margin: float) -> Comparison:
    return Comparison(
        spec=list(_differences(one.parameters, other.parameters)),
        versions=list(_versions(one, other)),
        rules=_rules(one, other, margin),
        outputs=_outputs(one.manifest, other.manifest),
    )


def _differences(one: Any, other: Any, path: tuple[str, ...] = ()) -> Iterator[Difference]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), (*path, key))
    elif one != other:
        yield Difference(pointer=json_pointer(path), one=one, other=other)


def _versions(one: Compared, other: Compared) -> Iterator[Difference]:
    first, second = _versions_of(one), _versions_of(other)
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            yield Difference(pointer=name, one=first.get(name), other=second.get(name))


def _versions_of(compared: Compared) -> dict[str, str | None]:
    environment = compared.manifest.environment
    packages = dict(each.split("==", 1) for each in environment.packages) if environment else {}
    python = {"python": environment.python} if environment else {}
    return {"commit": compared.job.commit, **python, **packages}


def _rules(one: Compared, other: Compared, margin: float) -> list[RuleComparison]:
    first = {usage.rule: usage for usage in rules_of(one.rule_jobs, margin)}
    second = {usage.rule: usage for usage in rules_of(other.rule_jobs, margin)}
    return [
        RuleComparison(rule=rule, one=first.get(rule), other=second.get(rule)) for rule in {**first, **second}
    ]


def _outputs(one: Manifest, other: Manifest) -> OutputComparison:
    first, second = _by_path(one), _by_path(other)
    both = first.keys() & second.keys()
    different = [path for path in both if not _is_same(first[path], second[path])]
    return OutputComparison(
        same=len(both) - len(different),
        different=sorted(different),
        only_one=sorted(first.keys() - both),
        only_other=sorted(second.keys() - both),
    )


def _by_path(manifest: Manifest) -> dict[str, OutputItem]:
    return {item.path: item for item in manifest.outputs if item.kind is FileKind.OUTPUT}


def _is_same(one: OutputItem, other: OutputItem) -> bool:
    return (one.sha256, one.size) == (other.sha256, other.size)
