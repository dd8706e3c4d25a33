"""Snakemake logger plugin `prefect`: shows a run in Prefect, wherever Snakemake runs.

    PREFECT_API_URL=http://127.0.0.1:4200/api snakemake --cores 2 --logger prefect

The run is a flow run, and each rule job a task run, with edges, states and logs while it runs. Nothing
here slows or fails the workflow. It needs Snakemake 9 and no package of Prefect.
"""

from dataclasses import dataclass, field
from logging import Handler, LogRecord
from pathlib import Path
from typing import Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from .attachment import Attachment
from .flow_run import ATTACHED_GROUP, FlowRun
from .prefect_api import PrefectApi
from .run import Run
from .saying import warn
from .sending import Sender
from .stopping import stop_snakemake

PATIENCE_SECONDS = 5.0


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc]  # untyped base
    """The options `--logger-prefect-…`."""

    group: Optional[str] = field(  # noqa: UP045 - Snakemake supports no other form
        default=None,
        metadata={
            "help": f"Group of the run: a deployment of the flow snakemake-job. Default: {ATTACHED_GROUP}.",
            "required": False,
        },
    )
    name: Optional[str] = field(  # noqa: UP045 - as above
        default=None,
        metadata={"help": "Name of the run. Default: that of the directory.", "required": False},
    )
    patience: Optional[float] = field(  # noqa: UP045 - as above
        default=None,
        metadata={
            "help": "How many seconds Snakemake waits at its end for a Prefect that does not answer. "
            f"Default: {PATIENCE_SECONDS:g}.",
            "required": False,
            "type": float,
        },
    )


class LogHandler(LogHandlerBase):  # type: ignore[misc]  # untyped base
    """Attaches a run. Snakemake calls it from a queue, so it leaves the records to `Attachment`."""

    def __post_init__(self) -> None:
        if not hasattr(self, "level"):  # the interface of Snakemake 9.0 does not initialize `logging.Handler`
            Handler.__init__(self)
        self._attachment: Attachment | None = None
        if self.common_settings.dryrun:
            return
        api = PrefectApi.from_environment()
        if api is None:
            warn("PREFECT_API_URL is not set, so this run is not recorded.")
            return
        settings = self.settings or LogHandlerSettings()
        run = Run()
        flow_run = FlowRun(
            api, settings.name or Path.cwd().name or "snakemake", settings.group or ATTACHED_GROUP
        )
        patience = PATIENCE_SECONDS if settings.patience is None else settings.patience
        sender = Sender(run, flow_run, stop_snakemake, patience)
        self._attachment = Attachment(run, sender.begin, sender.end)

    def emit(self, record: LogRecord) -> None:
        """Nothing: `Attachment` has seen the record already."""

    def close(self) -> None:
        if self._attachment is not None:
            self._attachment.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return False

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        # A plugin without its own filter gets Snakemake's, which drops events.
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False
