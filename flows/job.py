"""The flow: one job, from its spec to its outputs. Reads top to bottom.

The task runs of a job are exactly its rule jobs. Everything else that the flow does is written to the
flow run's log.
"""

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows import diagnosis
from flows.contract.environments import EnvironmentRecord, EnvironmentSettings, SoftwareSettings
from flows.contract.executors import ClusterExecutor, ExecutorSettings
from flows.contract.manifest import FileKind
from flows.contract.options import Options
from flows.contract.secrets import SecretRefused, SecretSettings
from flows.contract.sources import DefaultStorage, Input, ProjectDirectory, WorkflowSource
from flows.contract.spec import (
    DEFAULT_GROUP,
    FLOW_NAME,
    EngineName,
    EnvironmentSpec,
    ErrorKind,
    ExecutionSpec,
    Label,
    MockOptions,
    SoftwareMethod,
)
from flows.contract.storage import StorageError
from flows.contract.variables import WORKER_NAME
from flows.diagnosis import JobError
from flows.engines.choice import engine_for
from flows.engines.engine import Engine, EngineVanishedError, Execution
from flows.engines.snakemake import REPORT_REQUIREMENT
from flows.engines.software import Software
from flows.engines.storage import missing_plugin
from flows.environments.environment import Environment
from flows.environments.making import Environments
from flows.environments.uv import Cancelled as EnvironmentCancelled
from flows.environments.uv import EnvironmentFailure
from flows.presentation import Presentation
from flows.record.excerpts import tail
from flows.record.mirror import Ending, RuleJob
from flows.record.recorder import Recorder, RecordError
from flows.record.redaction import Redaction
from flows.record.shown_paths import ShownPaths
from flows.secret_blocks import Blocks, SecretUnusable
from flows.snakemake_process.events import (
    EngineExited,
    ErrorRaised,
    PhaseChanged,
    PlanCompleted,
    RuleJobPlanned,
    encode,
)
from flows.termination import termination
from flows.workspace.describing import describe
from flows.workspace.git_credentials import Credentials, GitCredentialSettings
from flows.workspace.redacting import redact_logs
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.staging import StageError
from flows.workspace.workspace import Workspace

_SHOWN_LINES = 20
_PUBLISHING_SECONDS = 5.0


@dataclass
class _Course:
    """The result of an execution."""

    exit_code: int | None = None
    errors: list[ErrorRaised] = field(default_factory=list)
    has_timed_out: bool = False
    has_vanished: bool = False
    undeployed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Software that rules declare and the job does not deploy; cleared when the job's log has a warning."""
    forgotten: list[str] = field(default_factory=list)
    """Rule jobs that never ran, although the engine reports success."""

    @property
    def is_broken(self) -> bool:
        """Whether the engine failed, not the workflow."""
        return self.has_vanished or (self.exit_code is not None and self.exit_code < 0)


@flow(name=FLOW_NAME, flow_run_name=None, persist_result=False, validate_parameters=True)
def snakemake_job(
    engine: EngineName = EngineName.SNAKEMAKE,
    workflow: WorkflowSource | None = None,
    snakefile: str | None = None,
    directory: ProjectDirectory | None = None,
    workdir: str | None = None,
    inputs: dict[str, Input] = {},  # noqa: B006 - never modified; Prefect shows it as the default in its form
    files: dict[str, str] = {},  # noqa: B006 - as above
    targets: tuple[str, ...] = (),
    config: dict[str, Any] = {},  # noqa: B006 - as above
    environment: EnvironmentSpec | None = None,
    software: tuple[SoftwareMethod, ...] = (),
    env: dict[str, str] = {},  # noqa: B006 - as above
    secrets: dict[str, str] = {},  # noqa: B006 - as above
    default_storage: DefaultStorage | None = None,
    cores: int = 1,
    resources: dict[str, int] = {},  # noqa: B006 - as above
    timeout_seconds: float | None = None,
    dry_run: bool = False,
    options: Options = Options(),  # noqa: B008 - frozen
    mock: MockOptions = MockOptions(),  # noqa: B008 - frozen
) -> State[None]:
    """Run a Snakemake workflow; every rule job is a task run of this flow run.

    `flows.contract.spec.ExecutionSpec` documents the parameters. The final state is Completed, Failed (an
    error of the workflow), Crashed (an error of the service) or Cancelled.
    """
    spec = ExecutionSpec(
        engine=engine,
        workflow=workflow,
        snakefile=snakefile,
        directory=directory,
        workdir=workdir,
        inputs=inputs,
        files=files,
        targets=targets,
        config=config,
        environment=environment,
        software=software,
        env=env,
        secrets=secrets,
        default_storage=default_storage,
        cores=cores,
        resources=resources,
        timeout_seconds=timeout_seconds,
        dry_run=dry_run,
        options=options,
        mock=mock,
    )
    flow_run, client = _flow_run()
    job_id = flow_run.id
    resumes = flow_run.labels.get(Label.RESUMES)
    changes = str(flow_run.labels.get(Label.CHANGES, "")).split(",")
    group = flow_run.work_queue_name or DEFAULT_GROUP  # each group has a work queue of the same name
    blocks = Blocks(client, group)
    credentials = Credentials(GitCredentialSettings().git_credentials, group, blocks.text_of)
    resumed = UUID(str(resumes)) if resumes else None
    left = flow_run.labels.get(Label.RESUMED_WORK_SHA256)
    workspace = Workspace(
        WorkspaceSettings(), job_id, resumed, group, credentials, None if left is None else str(left)
    )
    deployed = Software.of_group(SoftwareSettings(), spec.software, workspace.home, group)
    cluster = ExecutorSettings().executor_of(group)
    if cluster is not None:
        cluster = cluster.for_job(UUID(str(flow_run.labels.get(Label.WORK, job_id))))
    presentation = Presentation.of(flow_run, client)
    artifacts = presentation.artifacts if presentation else None
    with termination.by_sigterm(), Recorder(client, job_id, artifacts) as recorder:
        if worker := os.environ.get(WORKER_NAME):
            recorder.label({Label.WORKER: worker, Label.PROCESS: f"{socket.gethostname()}:{os.getpid()}"})
        try:
            if Label.DESCRIBES in flow_run.labels:
                error, ending = _describe(spec, workspace, recorder)
            else:
                error, ending = _run(spec, changes, workspace, deployed, cluster, blocks, recorder)
        except Exception as failure:  # noqa: BLE001 - the boundary of the process: the job must report every error
            recorder.log(logging.CRITICAL, traceback.format_exc())
            error, ending = diagnosis.of_service(failure), Ending.CRASHED
        if error is not None:
            error = error.redacted(recorder.redaction)
            recorder.label(error.labels())

        def final_state() -> State[None]:
            state = _final_state(client, job_id, spec, error, recorder)
            if presentation is not None:
                presentation.show_end(state, error, spec, workspace, recorder)
            return state

        try:
            # Prefect needs a moment to record the last rule jobs. What can be shown then, is.
            recorder.close(ending, lambda: None if termination.is_requested else final_state())
        except RecordError as failure:
            error = diagnosis.of_service(failure)
            client.update_flow_run_labels(
                job_id, {str(label): text for label, text in error.labels().items()}
            )
        state = final_state()
        if spec.dry_run:
            workspace.remove()
        return state


def _run(
    spec: ExecutionSpec,
    changes: Collection[str],
    workspace: Workspace,
    software: Software,
    cluster: ClusterExecutor | None,
    blocks: Blocks,
    recorder: Recorder,
) -> tuple[JobError | None, Ending]:
    """Stage, execute, publish. Returns the error if the job failed, and how its open rule jobs end.

    `changes` are the fields of `spec` that differ from the spec of the job that this one resumes.
    """
    try:
        secrets = blocks.secrets(spec.secrets, SecretSettings())
        recorder.redact(Redaction(secrets.values()))
        _stage(spec, workspace, recorder)
        before = None if "environment" in changes else workspace.environment_before()
        more = [cluster.requirement] if cluster else []
        # A named environment is the operator's, who decides what is in it.
        if spec.options.report and spec.environment is not None and spec.environment.name is None:
            more.append(REPORT_REQUIREMENT)
        environment = _prepare_environment(spec, before, tuple(more), workspace, recorder)
    except EnvironmentCancelled:
        return None, Ending.STOPPED
    except (StageError, SecretRefused, SecretUnusable, EnvironmentFailure) as failure:
        return _unprepared(failure), Ending.FINISHED
    if cluster is not None and spec.default_storage is None:
        spec = spec.model_copy(update={"default_storage": cluster.default_storage})
    if (plugin := missing_plugin(spec.default_storage, environment)) is not None:
        return diagnosis.of_missing_plugin(plugin), Ending.FINISHED
    engine = engine_for(spec.engine, environment, software, secrets, cluster)
    is_late = _Limit(spec.timeout_seconds).is_exceeded
    course = _execute(spec, workspace, engine, recorder)
    workspace.leave()
    records = {kind: workspace.files_of(paths) for kind, paths in recorder.mirror.records().items()}
    redact_logs(workspace, records[FileKind.LOG], recorder.redaction)
    reason = _judge(course, spec, workspace, recorder)
    ending = _ending(course)
    if spec.dry_run:
        return reason, Ending.PLANNED if reason is None and ending is Ending.FINISHED else ending
    if not _publish(workspace, records, recorder, is_late) and reason is None:
        reason = diagnosis.of_timeout(spec.timeout_seconds or 0)
    if reason is not None or termination.is_requested:
        _keep(workspace, recorder)
    if (left := workspace.left()) is not None:
        recorder.label({Label.WORK_SHA256: left})
    return reason, ending


def _describe(
    spec: ExecutionSpec, workspace: Workspace, recorder: Recorder
) -> tuple[JobError | None, Ending]:
    """Find out what the workflow says about itself, for who registers it; run nothing."""
    try:
        commit = _stage(spec, workspace, recorder)
        snakefile = workspace.snakefile(spec)
    except StageError as failure:
        return _unprepared(failure), Ending.FINISHED
    found = describe(workspace.tree, snakefile, spec.workdir, spec.options.configfiles or ())
    workspace.keep_description(found.model_copy(update={"commit": commit}))
    recorder.log(logging.INFO, "The workflow is described.")
    return None, Ending.FINISHED


def _unprepared(failure: StageError | SecretRefused | SecretUnusable | EnvironmentFailure) -> JobError:
    """Why the job could not start."""
    match failure:
        case EnvironmentFailure():
            return diagnosis.of_environment(failure)
        case StageError():
            return JobError(ErrorKind.WORKFLOW, str(failure), failure.resolution, "workflow")
        case SecretRefused():
            return JobError(ErrorKind.WORKFLOW, str(failure), failure.resolution, "secrets")
        case SecretUnusable():
            return JobError(ErrorKind.SYSTEM, str(failure), failure.resolution, "secrets")


def _stage(spec: ExecutionSpec, workspace: Workspace, recorder: Recorder) -> str | None:
    """The commit of a workflow from git. Raises `StageError` and `SecretUnusable`."""
    workspace.lock()
    recorder.log(logging.INFO, "Staging the workflow.")
    staged = workspace.stage(
        spec, lambda line: recorder.log(logging.INFO, line), lambda: termination.is_requested
    )
    for note in staged.notes:
        recorder.log(logging.WARNING, note)
    if staged.commit is not None:
        recorder.log(logging.INFO, f"The workflow is from commit {staged.commit}.")
        recorder.label({Label.WORKFLOW_COMMIT: staged.commit})
    return staged.commit


@dataclass
class _Limit:
    """When to give up publishing: some seconds after a cancel, or after the time limit of the job."""

    timeout_seconds: float | None
    _begun: float = field(default_factory=time.monotonic)
    _stopped: float | None = None

    def is_exceeded(self) -> bool:
        now = time.monotonic()
        is_late = self.timeout_seconds is not None and now - self._begun > self.timeout_seconds
        if self._stopped is None and (termination.is_requested or is_late):
            self._stopped = now
        return self._stopped is not None and now - self._stopped > _PUBLISHING_SECONDS


def _publish(
    workspace: Workspace,
    records: Mapping[FileKind, Sequence[str]],
    recorder: Recorder,
    is_late: Callable[[], bool],
) -> bool:
    """Whether all outputs were published before it was late."""
    outputs = workspace.files_of(recorder.mirror.outputs())
    published = workspace.publish(outputs, records, is_late)
    recorder.log(logging.INFO, f"Published {published} output files.")
    if outside := workspace.outside(recorder.mirror.outputs()):
        recorder.log(logging.WARNING, diagnosis.note_of_outside(outside))
    if not is_late():
        return True
    recorder.log(logging.WARNING, "Publishing was stopped: some outputs have no checksum, or are missing.")
    return published >= len(outputs) or termination.is_requested


def _prepare_environment(
    spec: ExecutionSpec,
    before: EnvironmentRecord | None,
    more: tuple[str, ...],
    workspace: Workspace,
    recorder: Recorder,
) -> Environment | None:
    """The environment for Snakemake: the one of `before`, or else the one that the spec requests.

    It has the packages of `more`, too.
    Raises `EnvironmentFailure` and `flows.environments.uv.Cancelled`.
    """
    if spec.engine is EngineName.MOCK:
        return None

    phase: dict[Label, str] = {}

    def report(line: str) -> None:
        phase[Label.PHASE] = "making the environment"
        recorder.label(phase)
        recorder.log(logging.INFO, line)

    environments = Environments(
        EnvironmentSettings(), workspace.home, report, lambda: termination.is_requested
    )
    if before is not None:
        environment = environments.get(environments.again(before, more), before.digest)
    else:
        environment = environments.get(environments.wanted(spec.environment, workspace.tree, more))
    record = environment.record
    recorder.label({Label.SNAKEMAKE_VERSION: record.snakemake, **dict.fromkeys(phase, "")})
    workspace.record_environment(record)
    recorder.log(
        logging.INFO, f"Snakemake {record.snakemake} on Python {record.python}, environment {record.digest}."
    )
    return environment


def _keep(workspace: Workspace, recorder: Recorder) -> None:
    """Keep the work for a job that resumes this one. A failure of this does not change the job's error."""
    try:
        workspace.keep()
    except (StorageError, OSError) as error:
        recorder.log(logging.WARNING, f"A job that resumes this one must start from the beginning: {error}")


def _execute(spec: ExecutionSpec, workspace: Workspace, engine: Engine, recorder: Recorder) -> _Course:
    """Run the engine to its end, and record all its events."""
    course = _Course()
    paths = ShownPaths(workspace.directory, workspace.work)
    recorder.show(paths)
    if termination.is_requested:
        return course
    with (
        workspace.event_log.open("ab", buffering=0) as event_log,
        engine.start(spec, workspace) as execution,
        termination.handled_by(_stopper(execution, recorder)),
        _time_limit(spec.timeout_seconds, execution, recorder, course),
    ):
        try:
            for event in map(recorder.redaction.event, execution.events()):
                event_log.write(encode(event))
                event = paths.in_event(event)
                recorder.observe(event)
                match event:
                    case ErrorRaised():
                        course.errors.append(event)
                        recorder.log(logging.ERROR, event.text, event.time)
                    case RuleJobPlanned() if event.undeployed and not event.is_done:
                        course.undeployed[event.rule] = event.undeployed
                    case PlanCompleted() if course.undeployed:
                        recorder.log(logging.WARNING, diagnosis.note_of_undeployed(course.undeployed))
                        course.undeployed.clear()  # the plan is reported again after a checkpoint
                    case PhaseChanged():
                        recorder.label({Label.PHASE: event.phase})
                    case EngineExited():
                        course.exit_code = event.exit_code
                    case _:
                        pass
        except EngineVanishedError:
            course.has_vanished = True
    if course.exit_code and not recorder.mirror.failures():
        recorder.mirror.blame(diagnosis.guilty_of(course.errors, recorder.mirror.open()), time.time())
    course.forgotten = [job.name for job in recorder.mirror.open()]
    return course


def _stopper(execution: Execution, recorder: Recorder) -> Callable[[], None]:
    def stop() -> None:
        recorder.mirror.stop()
        execution.terminate()

    return stop


@contextmanager
def _time_limit(
    seconds: float | None, execution: Execution, recorder: Recorder, course: _Course
) -> Iterator[None]:
    """Stop the execution if it takes longer than `seconds`."""
    if seconds is None:
        yield
        return
    stop = _stopper(execution, recorder)

    def expire() -> None:
        course.has_timed_out = True
        stop()

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ending(course: _Course) -> Ending:
    if termination.is_requested or course.has_timed_out:
        return Ending.STOPPED
    return Ending.CRASHED if course.is_broken else Ending.FINISHED


def _judge(course: _Course, spec: ExecutionSpec, workspace: Workspace, recorder: Recorder) -> JobError | None:
    """The error if the job failed, else None."""
    if termination.is_requested:
        return None
    if course.exit_code == 0:
        is_wrong = course.forgotten and not spec.dry_run
        return diagnosis.of_forgotten(course.forgotten) if is_wrong else None
    if course.has_timed_out:
        return diagnosis.of_timeout(spec.timeout_seconds or 0)
    if course.is_broken:
        killed_by = -course.exit_code if course.exit_code else None
        return diagnosis.of_vanished_engine(killed_by, workspace.directory)
    failures = recorder.mirror.failures()
    if failures and failures[0].attempts:
        output, logs = _last_words(failures[0], workspace)
        return diagnosis.of_failed_rule(failures[0], len(failures), course.errors, output, logs)
    paths = ShownPaths(workspace.directory, workspace.work)
    log = paths.in_text(tail(workspace.snakemake_log, _SHOWN_LINES))
    failed = failures[0] if failures else None
    return diagnosis.of_workflow(course.errors, course.exit_code or 1, log, failed)


def _last_words(failed: RuleJob, workspace: Workspace) -> tuple[str, dict[str, str]]:
    """The end of what a failed rule job wrote to its output, and to each of its log files."""
    log_path = failed.started.log_path if failed.started else None
    output = tail(Path(log_path), _SHOWN_LINES) if log_path else ""
    logs = {path: tail(workspace.work / path, _SHOWN_LINES, workspace.work) for path in failed.planned.logs}
    paths = ShownPaths(workspace.directory, workspace.work)
    return paths.in_text(output), {path: paths.in_text(text) for path, text in logs.items() if text}


def _final_state(
    client: SyncPrefectClient, job_id: UUID, spec: ExecutionSpec, error: JobError | None, recorder: Recorder
) -> State[None]:
    if termination.is_requested:
        state = client.read_flow_run(job_id).state
        if state is None or not state.is_cancelling():
            # The job was not cancelled: its worker is stopping, or its machine is being reclaimed.
            return Crashed(message="The job was interrupted: its worker was stopped.")
        return Cancelled(message="The job was cancelled.")
    if error is None:
        return Completed(message=_closing_message(spec, recorder))
    state_of_kind = Failed if error.kind is ErrorKind.WORKFLOW else Crashed
    return state_of_kind(message=error.headline)


def _closing_message(spec: ExecutionSpec, recorder: Recorder) -> str:
    total = recorder.mirror.total()
    if not spec.dry_run:
        return f"{total} rule jobs completed."
    return f"Dry run: {recorder.mirror.planned()} of {total} rule jobs would run."


def _flow_run() -> tuple[FlowRun, SyncPrefectClient]:
    """This flow run, and the client that Prefect's engine uses."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
        raise RuntimeError(f"{FLOW_NAME} only runs as a Prefect flow")
    return context.flow_run, context.client
