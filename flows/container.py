"""What the container of one job runs: Prefect's runner, unless the job has ended already.

A task may begin long after its job was given up, because ECS was asked late or had no room. Prefect's
server takes a run that has crashed for Running again, and so would `prefect flow-run execute`.
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
    """Run the job that `PREFECT__FLOW_RUN_ID` names. Raises Prefect's errors, when there is no such job."""
    with get_client(sync_client=True) as client:
        state = read_flow_run(client, UUID(os.environ["PREFECT__FLOW_RUN_ID"])).state
    if state is not None and state.is_final():
        _log.warning("The job has ended as %s already: nothing is run.", state.name)
        return
    # A server whose database is away for a moment answers 500; what has been done must not fail for that.
    os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500")
    sys.argv = ["prefect", "flow-run", "execute"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main()
