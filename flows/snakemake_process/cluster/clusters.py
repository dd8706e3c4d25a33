"""What we know about a kind of cluster beyond its executor plugin. By default, that is nothing."""

from typing import Any

from flows.snakemake_process.decisions import ClusterDecisions


class Cluster:
    """A cluster of which only the executor plugin is known."""

    def repair(self, decisions: ClusterDecisions) -> None:
        """Change the executor plugin where it would be a danger, or make a workflow wait for ever."""

    def why_ended(self, external_id: str) -> str:
        """Why the cluster has ended a job, for the submitter; empty if the job has ended itself."""
        return ""

    def queue(self, run: Any) -> dict[str, str] | None:
        """Reasons why jobs of this run wait, by id; empty for running ones. None if nobody can tell.

        What the cluster no longer holds is missing.
        """
        return None

    def wait_until_gone(self, run: Any, seconds: float) -> None:
        """Wait until the cluster holds nothing of this run, and cancel what was submitted meanwhile."""
