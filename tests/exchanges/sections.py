"""The requests, in order. Each may use values that an earlier one has kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command, with a sentence about it."""

    command: str
    text: str = ""
    keeps: tuple[str, str] | None = None
    """A variable for later commands, and the expression of `answer` that it is set to."""


_JSON = "-H 'Content-Type: application/json'"
_WES = "localhost:8000/ga4gh/wes/v1"
_JOB = ("JOB", "answer['id']")

SECTIONS = {
    "Send a workflow": [
        Exchange("tar -czf variants.tgz -C variants . && curl -T variants.tgz localhost:8000/bundles",
                 keeps=("BUNDLE", "answer['bundle']")),
    ],
    "Read how large a workflow may be": [Exchange("curl localhost:8000/bundles/limits")],
    "Submit a job": [
        Exchange(
            f"curl -i localhost:8000/jobs {_JSON} -H 'Idempotency-Key: run-1' "
            """-d '{"name": "run-1", "workflow": {"bundle": "'$BUNDLE'"}, "cores": 2, """
            """"environment": {"file": "requirements.txt"}, "tags": {"project": "x"}, """
            """"options": {"report": true}}'""",
            keeps=_JOB,
        ),
        Exchange(
            f"curl localhost:8000/jobs {_JSON} "
            """-d '{"workflow": {"bundle": "'$BUNDLE'"}, "cores": 0}'""",
            "An invalid spec is rejected. The response names the field, and says what to do:",
        ),
    ],
    "Follow it": [
        Exchange("curl -N --max-time 6 localhost:8000/jobs/events || true",
                 "All jobs, as server-sent events. With `Last-Event-ID`, missed events come first:"),
        Exchange("curl -N localhost:8000/jobs/$JOB/events | tail -9",
                 "One job, from start to end. The last events:"),
        Exchange("curl -i localhost:8000/jobs/$JOB?wait=30",
                 "Long polling: `wait` delays the response until the job changes, unless it has ended:"),
    ],
    "List jobs": [
        Exchange("curl 'localhost:8000/jobs?status=completed&tag=project:x&limit=1'"),
    ],
    "See its rule jobs": [
        Exchange("curl 'localhost:8000/jobs/$JOB/tasks?rule=map_reads&limit=1'".replace("'", '"'),
                 keeps=("TASK", "answer['items'][0]['id']")),
        Exchange("curl localhost:8000/jobs/$JOB/tasks/$TASK"),
        Exchange('curl "localhost:8000/jobs/$JOB/tasks/$TASK/logs?limit=3"'),
    ],
    "Read its log": [
        Exchange('curl "localhost:8000/jobs/$JOB/logs?limit=2"'),
    ],
    "Take its outputs": [
        Exchange('curl "localhost:8000/jobs/$JOB/outputs?limit=2"'),
        Exchange('curl "localhost:8000/jobs/$JOB/outputs?kind=log&limit=2"'),
        Exchange("curl -i -r 0-63 localhost:8000/jobs/$JOB/outputs/results/summary.md",
                 "Downloads support ranges:"),
    ],
    "Register a workflow, and run it by name": [
        Exchange(
            f"curl -i -X PUT localhost:8000/workflows/variants/versions/1.0.0 {_JSON} "
            """-d '{"workflow": {"bundle": "'$BUNDLE'"}, "cores": 2, """
            """"environment": {"file": "requirements.txt"}}'""",
        ),
        Exchange(
            f"curl localhost:8000/jobs {_JSON} "
            """-d '{"workflow": {"name": "variants"}, "config": {"depth": 1000}}'""",
            "What a job sets is checked against the workflow's schema:",
        ),
        Exchange("curl localhost:8000/workflows"),
        Exchange("curl localhost:8000/workflows/variants"),
        Exchange("curl localhost:8000/workflows/variants/versions/1.0.0"),
        Exchange("curl localhost:8000/workflows/variants/usage"),
        Exchange(
            f"curl -i -X PUT localhost:8000/workflows/variants/schedules/weekly {_JSON} "
            """-d '{"cron": "0 6 * * 1", "timezone": "Europe/Zurich"}'""",
            "It runs by a schedule, too:",
        ),
        Exchange("curl localhost:8000/workflows/variants/schedules"),
        Exchange("curl -i -X DELETE localhost:8000/workflows/variants/schedules/weekly"),
        Exchange(
            f"curl -i -X PUT localhost:8000/workflows/summaries/versions/1.0.0 {_JSON} "
            """-d '{"workflow": {"bundle": "'$BUNDLE'"}, "environment": {"file": "requirements.txt"}}'""",
            "A job that completes can make a job of another workflow:",
        ),
        Exchange(
            f"curl -i -X PUT localhost:8000/workflows/summaries/triggers/next {_JSON} "
            """-d '{"completed": "variants", "outputs": {"resources/before": "results"}}'""",
        ),
        Exchange("curl localhost:8000/workflows/summaries/triggers"),
        Exchange("curl -i -X DELETE localhost:8000/workflows/summaries/triggers/next"),
        Exchange("curl -X POST localhost:8000/workflows/variants/versions/1.0.0/retire"),
    ],
    "See what ran": [
        Exchange("curl -i localhost:8000/jobs/$JOB/graph.svg"),
        Exchange("curl -OJ localhost:8000/jobs/$JOB/ro-crate && unzip -l *.crate.zip"),
        Exchange("curl localhost:8000/jobs/$JOB/usage", "What each rule took, and what would be enough:"),
        Exchange("curl -i localhost:8000/jobs/$JOB/usage.svg"),
        Exchange("curl localhost:8000/jobs/$JOB/comparison/$JOB"),
    ],
    "Cancel, resume, remove": [
        Exchange(
            f"curl localhost:8000/jobs {_JSON} "
            """-d '{"workflow": {"path": "'$PWD'/sleeper"}, "config": {"seconds": 30}}'""",
            keeps=_JOB,
        ),
        Exchange("curl -i -X POST localhost:8000/jobs/$JOB/cancel"),
        Exchange("curl -N localhost:8000/jobs/$JOB/events | tail -4"),
        Exchange("curl -i -X POST localhost:8000/jobs/$JOB/resume",
                 "A new job continues in the same directory:", keeps=("RESUMED", "answer['id']")),
        Exchange("curl -X POST localhost:8000/jobs/$RESUMED/cancel"),
        Exchange("curl -N localhost:8000/jobs/$RESUMED/events | tail -4"),
        Exchange("curl -i -X DELETE localhost:8000/jobs/$RESUMED"),
    ],
    "Operate the service": [
        Exchange("curl localhost:8000/livez"),
        Exchange("curl localhost:8000/readyz"),
        Exchange("curl localhost:8000/metrics | grep -v '^#' | grep jobs_ | head -8"),
    ],
    "GA4GH WES": [
        Exchange(f"curl {_WES}/service-info"),
        Exchange(
            f"curl {_WES}/runs -F workflow_type=SMK -F workflow_type_version=1.0 -F workflow_url=Snakefile "
            """-F 'workflow_params={"seconds": 1}' -F 'workflow_attachment=@sleeper/Snakefile'""",
            keeps=("RUN", "answer['run_id']"),
        ),
        Exchange(f"curl {_WES}/runs/$RUN/status"),
        Exchange(f"sleep 12 && curl {_WES}/runs/$RUN"),
        Exchange(f'curl "{_WES}/runs?page_size=1"'),
        Exchange(f'curl "{_WES}/runs/$RUN/tasks?page_size=1"',
                 keeps=("TASK", "answer['task_logs'][0]['id']")),
        Exchange(f"curl {_WES}/runs/$RUN/tasks/$TASK"),
        Exchange(f"curl -X POST {_WES}/runs/$RUN/cancel"),
    ],
}  # fmt: skip
