"""The program that AWS's clients run for credentials waits for the service, and shows no token."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from flows.snakemake_process.cluster import credentials

MADE = '{"Version": 1, "AccessKeyId": "a-key"}'
AUTH = "job:the-token-of-a-job"


@contextmanager
def service(*statuses: int) -> Iterator[str]:
    """Answers one request with each status, and then no more; its address."""
    answers = iter(statuses)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_job = self.headers["Authorization"] == "Basic am9iOnRoZS10b2tlbi1vZi1hLWpvYg=="
            self.send_response(next(answers) if is_job else 401)
            self.end_headers()
            self.wfile.write(MADE.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/credentials"
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "request.json"
    file.write_text(json.dumps({"url": url, "auth": AUTH}))
    command = [sys.executable, credentials.__file__, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_asks_again_while_the_service_is_away(tmp_path: Path) -> None:
    with service(503, 200) as url:
        done = ask(url, tmp_path)
    assert (done.returncode, done.stdout) == (0, MADE)


def test_a_refusal_ends_it_without_showing_the_token(tmp_path: Path) -> None:
    with service(403) as url:
        done = ask(url, tmp_path)
    assert done.returncode == 1
    assert "403" in done.stderr
    assert "token" not in done.stderr
