"""Clears up on a cluster after jobs whose flow process is gone."""

import asyncio
import logging
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from flows.contract.executors import ExecutorSettings
from flows.contract.spec import DEFAULT_GROUP
from flows.engines.cluster import sweep

logger = logging.getLogger("prefect.workers.snakemake")


async def clear_cluster(client: PrefectClient, flow_run_id: UUID, work: Path) -> None:
    """Cancel what the job has left on the cluster of its group, unless it ended by itself."""
    settings = ExecutorSettings()
    if not settings.executors_by_group:
        return
    try:
        flow_run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return
    cluster = settings.executor_of(flow_run.work_queue_name or DEFAULT_GROUP)
    if cluster is None or (flow_run.state is not None and flow_run.state.is_final()):
        return
    try:
        count = await asyncio.to_thread(sweep, cluster, flow_run_id, work)
    except OSError as error:
        logger.error("Job %s may have jobs on the cluster: %s", flow_run_id, error)
    else:
        if count:
            logger.warning("Job %s had left %d jobs on the cluster; they are cancelled.", flow_run_id, count)
