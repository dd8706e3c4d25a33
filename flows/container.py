"""The program of a job's container: Prefect's runner, unless the job has already ended.

A task may start long after its job has been given up, because ECS received the request late or lacked
capacity. Prefect's server would set a crashed run to Running again, and `prefect flow-run execute` too.
"""

import logging
import os
import runpy
import sys
from uuid import UUID

from prefect.client.orchestration import get_client

from flows.first_read import read_flow_run

_log = logging.getLogger(__name__)


def main() -> None:
    """Run the job of `PREFECT__FLOW_RUN_ID`. Raises Prefect's errors if there is no such job."""
    with get_client(sync_client=True) as client:
        state = read_flow_run(client, UUID(os.environ["PREFECT__FLOW_RUN_ID"])).state
    if state is not None and state.is_final():
        _log.warning("The job has already ended as %s; it is not run.", state.name)
        return
    # A server whose database is briefly unreachable responds with 500; a job must survive that.
    os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500")
    sys.argv = ["prefect", "flow-run", "execute"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main()
