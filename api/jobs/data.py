"""Checks the data and the directory of a job before Prefect is asked."""

from api.settings import Settings
from api.web.problems import DataRefused, FieldProblem, sentence
from flows.contract import data_roots
from flows.contract.data_roots import check_input_path, check_project_path
from flows.contract.spec import EngineName, JobSpec
from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import SnakefileMissing, find_snakefile


def check_data(spec: JobSpec, settings: Settings) -> None:
    """Raises `DataRefused`. The worker checks again, and may be another machine."""
    if spec.engine is not EngineName.SNAKEMAKE:
        return
    for name, data in spec.inputs.items():
        try:
            check_input_path(data.path, settings.data_roots_of(spec.group))
        except data_roots.DataRefused as refusal:
            raise _refused(refusal, f"#/inputs/{_escaped(name)}/path") from refusal
    if spec.directory is not None:
        try:
            directory = check_project_path(spec.directory.path, settings.project_roots_of(spec.group))
            if spec.workflow is None and directory.is_dir():
                find_snakefile(directory, spec.snakefile)
        except (data_roots.DataRefused, SnakefileMissing) as refusal:
            raise _refused(refusal, "#/directory/path") from refusal


def _refused(refusal: Refused, pointer: str) -> DataRefused:
    detail = sentence(refusal)
    return DataRefused(detail, refusal.resolution, [FieldProblem(pointer=pointer, message=detail)])


def _escaped(name: str) -> str:
    """A key as part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
