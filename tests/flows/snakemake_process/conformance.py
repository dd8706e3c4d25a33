"""The tests that Snakemake ships for plugins, applied to ours; `test_plugins.py` runs them."""

from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase
from snakemake_logger_plugin_prefect_events import LogHandler, LogHandlerSettings


class TestLogger(TestLogHandlerBase):  # type: ignore[misc]  # untyped base
    __test__ = True

    def get_log_handler_cls(self) -> object:
        return LogHandler

    def get_log_handler_settings(self) -> object:
        return LogHandlerSettings()


class TestExecutor(TestWorkflowsLocalStorageBase):  # type: ignore[misc]  # untyped base
    __test__ = True

    def get_executor(self) -> str:
        return "prefect"

    def get_executor_settings(self) -> None:
        return None
