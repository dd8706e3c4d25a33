"""Describes a job that has ended as a research object: a Workflow Run RO-Crate in a zip file. Pure.

It contains the metadata, the Snakefile and the job spec. Outputs are listed with the addresses at which
this service provides them, and with sizes and checksums, so a crate is small whatever the job produced.
It follows Workflow Run Crate 0.5 of https://w3id.org/ro/wfrun, and Provenance Run Crate 0.5 if each rule
job that ran is described by an action of its own.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from api.web.schemas import Job, Output, RuleJob
from api.web.statuses import JobStatus, RuleJobStatus
from flows.contract.manifest import FileKind, Manifest, OutputItem, SnakefileItem
from flows.contract.storage import media_type_of

MOST_RULE_JOBS = 1_000
"""The most that are described individually: readers of a crate hold all of it in memory."""

METADATA = "ro-crate-metadata.json"
SPEC = "job-spec.json"

_RO_CRATE = "https://w3id.org/ro/crate/1.1"
_WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    _WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
_PROVENANCE = "https://w3id.org/ro/wfrun/provenance/0.5"
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_MORE_TERMS = {name: f"https://w3id.org/ro/terms/workflow-run#{name}" for name in ("resourceUsage", "sha256")}
"""Two terms of https://w3id.org/ro/terms/workflow-run/context, so that readers need not fetch it."""
_RESULTS = (FileKind.OUTPUT, FileKind.REPORT)
_EPOCH = (1980, 1, 1, 0, 0, 0)

Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """All that Prefect keeps about a job that has ended."""

    job: Job
    parameters: Mapping[str, object]
    """The parameters of its flow run: the job spec."""
    rule_jobs: tuple[RuleJob, ...] | None
    """None if there are too many to describe individually."""


def crate_of(history: History, manifest: Manifest, snakefile: SnakefileItem, base_url: str) -> bytes:
    """The zip file; `base_url` is the address of this service."""
    spec = json.dumps(history.parameters, indent=2, ensure_ascii=False).encode()
    metadata = _metadata(history, manifest, snakefile, base_url, len(spec))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as crate:
        for name, content in (
            (METADATA, json.dumps(metadata, indent=2, ensure_ascii=False).encode("utf-8", "replace")),
            (snakefile.path, snakefile.text.encode()),
            (SPEC, spec),
        ):
            # A fixed time, so that the same job gives the same bytes.
            crate.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _metadata(
    history: History, manifest: Manifest, snakefile: SnakefileItem, base_url: str, spec_bytes: int
) -> Entity:
    job = history.job
    files = {item.path: f"{base_url}{Output.url_of(job.id, item.path)}" for item in manifest.outputs}
    outputs = {item.path: files[item.path] for item in manifest.outputs if item.kind in _RESULTS}
    steps = _Steps.of(_that_ran(history.rule_jobs or ()), outputs)
    profiles = [profile for profile in _PROFILES if steps.runs or profile != _PROVENANCE]
    inputs = list(_inputs(history.parameters))
    packages = list(_packages(manifest))
    workflow_id = quote(snakefile.path)
    graph: list[Entity] = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": _ref("./"),
            "conformsTo": _refs([_RO_CRATE, _WORKFLOW_CRATE]),
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": job.name,
            "description": _description(history, len(outputs)),
            "identifier": f"urn:uuid:{job.id}",
            "datePublished": _time(job.finished_at),
            "license": _ref("#license"),
            "conformsTo": _refs(profiles),
            "mainEntity": _ref(workflow_id),
            "hasPart": _refs([workflow_id, SPEC, *files.values()]),
            "publisher": _ref("#group"),
            "mentions": _refs(["#run", *(["#engine-run", *steps.runs] if steps.runs else [])]),
        },
        *(
            {"@id": profile, "@type": "CreativeWork", "name": name, "version": number}
            for profile, (name, number) in _PROFILES.items()
            if profile in profiles
        ),
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": "Not stated",
            "description": "The service that ran the workflow does not know its licence. Ask the submitter.",
        },
        _workflow(history, snakefile, inputs, steps) | {"softwareRequirements": _refs(map(_id_of, packages))},
        *packages,
        {
            "@id": _SNAKEMAKE,
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "alternateName": "Snakemake",
            "identifier": _ref("https://doi.org/10.12688/f1000research.29032.2"),
            "url": _ref("https://snakemake.github.io"),
            "version": snakefile.snakemake,
        },
        {
            "@id": SPEC,
            "@type": "File",
            "name": "The job spec",
            "encodingFormat": "application/json",
            "contentSize": str(spec_bytes),
        },
        *(_file(item, files[item.path]) for item in manifest.outputs),
        *(entity for pair in inputs for entity in pair),
        {"@id": "#group", "@type": "Organization", "name": job.group},
        _run(job, workflow_id, [SPEC, *(value["@id"] for _, value in inputs)], list(outputs.values())),
        *steps.entities,
    ]
    if steps.runs:
        graph += _engine_run(job, snakefile, steps)
    return {
        "@context": [f"{_RO_CRATE}/context", _MORE_TERMS],
        "@graph": [
            {name: value for name, value in entity.items() if value not in (None, [])} for entity in graph
        ],
    }


def _workflow(
    history: History,
    snakefile: SnakefileItem,
    inputs: Sequence[tuple[Entity, Entity]],
    steps: "_Steps",
) -> Entity:
    workflow: Entity = {
        "@id": quote(snakefile.path),
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": snakefile.path,
        "version": history.job.commit or f"sha256:{sha256(snakefile.text.encode()).hexdigest()}",
        "conformsTo": _ref("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"),
        "encodingFormat": "text/plain",
        "programmingLanguage": _ref(_SNAKEMAKE),
        "contentSize": str(len(snakefile.text.encode())),
        "input": _refs(parameter["@id"] for parameter, _ in inputs),
    }
    if steps.rules:
        workflow["@type"] = [*workflow["@type"], "HowTo"]
        workflow["step"] = _refs(_step_id(rule) for rule in steps.rules)
        workflow["hasPart"] = _refs(_tool_id(rule) for rule in steps.rules)
    source = history.parameters.get("workflow")
    if isinstance(source, Mapping) and isinstance(source.get("git"), str):
        workflow["codeRepository"] = source["git"]
    return workflow


def _packages(manifest: Manifest) -> Iterator[Entity]:
    """What the environment held that Snakemake and the scripts ran in."""
    if (environment := manifest.environment) is None:
        return
    for package in (f"python=={environment.python}", *environment.packages):
        name, _, version = package.partition("==")
        yield {
            "@id": f"#package/{quote(name)}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
        }


def _id_of(entity: Entity) -> str:
    return str(entity["@id"])


def _inputs(parameters: Mapping[str, object]) -> Iterator[tuple[Entity, Entity]]:
    """Every configuration key that the job sets: its parameter, and its value."""
    config = parameters.get("config")
    for name, value in sorted(config.items()) if isinstance(config, Mapping) else ():
        key = quote(str(name), safe="")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield (
            {
                "@id": f"#config/{key}",
                "@type": "FormalParameter",
                "additionalType": "PropertyValue",
                "name": str(name),
                "conformsTo": _ref("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
            },
            {
                "@id": f"#config-value/{key}",
                "@type": "PropertyValue",
                "name": str(name),
                "value": text,
                "exampleOfWork": _ref(f"#config/{key}"),
            },
        )


def _file(item: OutputItem, url: str) -> Entity:
    return {
        "@id": url,
        "@type": "File",
        "name": item.path,
        "encodingFormat": media_type_of(item.path),
        "contentSize": str(item.size),
        "dateModified": _time(item.modified_at),
        "sdDatePublished": _time(item.modified_at),
        **({} if item.sha256 is None else {"sha256": item.sha256}),
        # Logs and benchmarks are no results: they tell how the run went.
        **({} if item.kind in _RESULTS else {"about": _ref("#run"), "description": f"A {item.kind} file"}),
    }


def _run(job: Job, workflow_id: str, objects: Iterable[str], results: Iterable[str]) -> Entity:
    return {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run of {job.name}",
        "description": f"{job.progress.done} of {job.progress.total} rule jobs were done.",
        "instrument": _ref(workflow_id),
        "agent": _ref("#group"),
        "object": _refs(objects),
        "result": _refs(results),
        **_course(job.started_at, job.finished_at, is_completed=job.status is JobStatus.COMPLETED),
        **({"error": job.error.message} if job.error else {}),
    }


@dataclass(frozen=True, slots=True)
class _Steps:
    """The rules that ran, and an action for each of their rule jobs."""

    rules: tuple[str, ...]
    runs: tuple[str, ...]
    """The actions of the rule jobs."""
    controls: tuple[str, ...]
    """The actions with which Snakemake ran them."""
    entities: tuple[Entity, ...]

    @classmethod
    def of(cls, rule_jobs: Sequence[RuleJob], outputs: Mapping[str, str]) -> "_Steps":
        rules = tuple(dict.fromkeys(rule_job.rule for rule_job in rule_jobs))
        entities: list[Entity] = []
        for position, rule in enumerate(rules, start=1):
            tool = {"@id": _tool_id(rule), "@type": "SoftwareApplication", "name": rule}
            step = {"@id": _step_id(rule), "@type": "HowToStep", "name": rule, "position": str(position)}
            entities += [tool, step | {"workExample": _ref(tool["@id"])}]
        for rule_job in rule_jobs:
            entities += _rule_job(rule_job, outputs)
        return cls(
            rules,
            tuple(f"#task/{rule_job.id}" for rule_job in rule_jobs),
            tuple(f"#control/{rule_job.id}" for rule_job in rule_jobs),
            tuple(entities),
        )


def _that_ran(rule_jobs: Iterable[RuleJob]) -> list[RuleJob]:
    ran = [rule_job for rule_job in rule_jobs if rule_job.attempts and rule_job.started_at]
    return sorted(ran, key=lambda rule_job: (rule_job.started_at or datetime.min, rule_job.name))


def _rule_job(rule_job: RuleJob, outputs: Mapping[str, str]) -> Iterator[Entity]:
    usage = list(_usage(rule_job))
    is_completed = rule_job.status is RuleJobStatus.COMPLETED
    course = _course(rule_job.started_at, rule_job.finished_at, is_completed=is_completed)
    yield {
        "@id": f"#task/{rule_job.id}",
        "@type": "CreateAction",
        "name": rule_job.name,
        "description": rule_job.shell or rule_job.reason or rule_job.name,
        "instrument": _ref(_tool_id(rule_job.rule)),
        "agent": _ref("#group"),
        "object": _refs(outputs[path] for path in rule_job.inputs if path in outputs),
        "result": _refs(outputs[path] for path in rule_job.outputs if path in outputs),
        "resourceUsage": _refs(entity["@id"] for entity in usage),
        **course,
        **({"error": rule_job.error} if rule_job.error else {}),
    }
    yield {
        "@id": f"#control/{rule_job.id}",
        "@type": "ControlAction",
        "name": f"Orchestration of {rule_job.name}",
        "instrument": _ref(_step_id(rule_job.rule)),
        "object": _ref(f"#task/{rule_job.id}"),
        **course,
    }
    yield from usage


def _usage(rule_job: RuleJob) -> Iterator[Entity]:
    measured = (
        ("cpu-time", rule_job.cpu_seconds, "https://qudt.org/vocab/unit/SEC"),
        ("peak-memory", rule_job.peak_memory_bytes, "https://qudt.org/vocab/unit/BYTE"),
    )
    for name, value, unit in measured:
        if value is not None:
            yield {
                "@id": f"#{name}/{rule_job.id}",
                "@type": "PropertyValue",
                "name": name,
                "propertyID": name,
                "value": str(value),
                "unitCode": unit,
            }


def _engine_run(job: Job, snakefile: SnakefileItem, steps: _Steps) -> Iterator[Entity]:
    yield {
        "@id": "#snakemake",
        "@type": "SoftwareApplication",
        "name": f"Snakemake {snakefile.snakemake}",
        "softwareVersion": snakefile.snakemake,
        "url": _ref("https://snakemake.github.io"),
    }
    yield {
        "@id": "#engine-run",
        "@type": "OrganizeAction",
        "name": f"Run of Snakemake {snakefile.snakemake}",
        "instrument": _ref("#snakemake"),
        "agent": _ref("#group"),
        "object": _refs(steps.controls),
        "result": _ref("#run"),
        **_course(job.started_at, job.finished_at, is_completed=job.status is JobStatus.COMPLETED),
    }


def _description(history: History, outputs: int) -> str:
    job, total = history.job, history.job.progress.total
    note = "" if history.rule_jobs is not None else " (too many to describe individually)"
    return (
        f"A {job.status} run of a Snakemake workflow: {job.progress.done} of {total} rule jobs{note}, "
        f"{outputs} output files."
    )


def _course(started_at: datetime | None, finished_at: datetime | None, *, is_completed: bool) -> Entity:
    status = "CompletedActionStatus" if is_completed else "FailedActionStatus"
    times = {"startTime": started_at, "endTime": finished_at}
    return {"actionStatus": f"http://schema.org/{status}"} | {
        name: _time(moment) for name, moment in times.items() if moment is not None
    }


def _step_id(rule: str) -> str:
    return f"#step/{quote(rule, safe='')}"


def _tool_id(rule: str) -> str:
    return f"#rule/{quote(rule, safe='')}"


def _time(moment: datetime | None) -> str | None:
    """In milliseconds: the patterns of the profiles allow no microseconds."""
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def _ref(identifier: str) -> Entity:
    return {"@id": identifier}


def _refs(identifiers: Iterable[str]) -> Entity | list[Entity]:
    """A single one is not a list: RO-Crate 1.1 requires compacted JSON-LD."""
    refs = [_ref(identifier) for identifier in identifiers]
    return refs[0] if len(refs) == 1 else refs
