"""Prints credentials of AWS as botocore's `credential_process` reads them: `python credentials.py FILE`.

FILE has the address of the facade and the token of the job, as `flows.engines.batch_credentials` writes it.
Run in the environment of the workflow, without the service's packages.
"""

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

_GIVE_UP_SECONDS = 300.0
"""As long as the rest of a job waits for a service that is away."""

_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0


def main(file: str) -> int:
    """Returns an exit code. An error says why, and has neither address nor token."""
    wanted = json.loads(Path(file).read_text())
    token = base64.b64encode(wanted["auth"].encode()).decode()
    request = urllib.request.Request(wanted["url"], headers={"Authorization": f"Basic {token}"})
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        try:
            # The service is inside the network: a proxy would get the token.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                sys.stdout.write(response.read().decode())
            return 0
        except OSError as error:
            if _is_refusal(error) or time.monotonic() > deadline:
                sys.stderr.write(f"The service gives no credentials of AWS: {error}\n")
                return 1
        time.sleep(_PAUSE_SECONDS)


def _is_refusal(error: OSError) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code < HTTPStatus.INTERNAL_SERVER_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
