"""AWS Batch: rule jobs from the operator's job definition, instead of one of the plugin for each."""

import re
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from flows.snakemake_process.cluster.clusters import Cluster
from flows.snakemake_process.decisions import ClusterDecisions

_LONGEST_NAME = 128
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


class AwsBatch(Cluster):
    """AWS Batch, by its executor plugin."""

    def repair(self, decisions: ClusterDecisions) -> None:
        """Let version 0.2.1 use a job definition that there is.

        The plugin registers a privileged one on EC2 for each rule job, and removes it afterwards. Whoever may
        do that may run any image with any role that it can pass on, so a head on AWS must not have to.
        """
        if decisions.job_definition is None:
            return
        import snakemake_executor_plugin_aws_batch as plugin  # noqa: PLC0415 - only where it is installed

        by_memory = plugin.batch_job_builder.VALID_RESOURCES_MAPPING
        offered = tuple((vcpu, memory_mb) for memory_mb, vcpus in by_memory.items() for vcpu in vcpus)
        members = {"_decisions": decisions, "_offered": offered}
        plugin.BatchJobBuilder = type("BatchJobBuilder", (_FromDefinition, plugin.BatchJobBuilder), members)
        plugin.Executor._deregister_job = lambda *_: None


class _FromDefinition:
    """Mixed in before the plugin's builder of submissions."""

    _decisions: ClusterDecisions
    _offered: tuple[tuple[int, int], ...]
    """Sizes of Fargate: vCPUs, and memory in MB."""
    job: Any
    job_command: str
    envvars: dict[str, str]
    settings: Any
    batch_client: Any

    def submit(self) -> Any:
        overrides = {
            "command": self._make_container_command(self.job_command),  # type: ignore[attr-defined]  # of the plugin
            "environment": [{"name": name, "value": value} for name, value in (self.envvars or {}).items()],
            "resourceRequirements": self._size(),
        }
        return self.batch_client.submit_job(
            jobName=f"{self._decisions.job_id}-{_NOT_IN_NAME.sub('_', self.job.name)}"[:_LONGEST_NAME],
            jobQueue=self.settings.job_queue,
            jobDefinition=self._decisions.job_definition,
            containerOverrides=overrides,
            timeout={"attemptDurationSeconds": self.settings.task_timeout},
            tags=dict(self._decisions.job_tags),
            propagateTags=True,
        )

    def _size(self) -> list[dict[str, str]]:
        """The smallest that holds the rule job. The plugin takes less memory where it knows no such size."""
        cores = max(1, int(self.job.resources.get("_cores", 1)))
        memory = max(1, int(self.job.resources.get("mem_mb", 1)))
        fitting = [size for size in self._offered if size[0] >= cores and size[1] >= memory]
        if not fitting:
            raise WorkflowError(f"AWS Batch on Fargate has no container with {cores} cores and {memory} MB.")
        vcpu, mb = min(fitting)
        return [{"type": "VCPU", "value": str(vcpu)}, {"type": "MEMORY", "value": str(mb)}]
