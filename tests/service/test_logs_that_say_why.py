"""A failed job leads to the cause, wherever its rules wrote it, and all that they wrote can be downloaded."""

import pytest

from tests.support import JobsClient, Json

SNAKEFILE = r"""
onstart:
    print("onstart says hello")

rule all:
    input: "good.txt", "bad.txt"

rule good:
    output: "good.txt"
    log: "logs/good.log"
    benchmark: "benchmarks/good.tsv"
    shell: "echo all is well > {log}; seq 200000; echo FATAL; touch {output}"

rule bad:
    input: "good.txt"
    output: "bad.txt"
    log: "logs/b.err"
    shell: "(echo E42 >&2; exit 7) 2> {log}"
"""


@pytest.fixture(scope="module")
def failed(jobs: JobsClient, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A job of `SNAKEFILE` that has ended."""
    directory = tmp_path_factory.mktemp("why")
    (directory / "Snakefile").write_text(SNAKEFILE)
    return jobs.wait(jobs.submit(workflow={"path": str(directory)}), "failed")


def test_the_error_ends_with_what_the_rule_wrote_to_its_log_file(failed: Json) -> None:
    assert failed["error"]["message"].endswith("\nIts log file logs/b.err ends with:\nE42")


def test_the_log_of_a_rule_job_has_its_log_files(jobs: JobsClient, failed: Json) -> None:
    logs = {task["rule"]: jobs.log(failed["id"], task["id"]) for task in jobs.tasks(failed["id"])}

    assert "Log file logs/b.err:\nE42\n" in logs["bad"]
    assert logs["good"].endswith("\n200000\nFATAL\nLog file logs/good.log:\nall is well")


def test_logs_and_benchmarks_are_published_apart_from_outputs(jobs: JobsClient, failed: Json) -> None:
    address = f"/jobs/{failed['id']}/outputs"

    kinds = {kind: [item["path"] for item in jobs.items(address, kind=kind)] for kind in ("log", "benchmark")}

    assert [(item["path"], item["kind"]) for item in jobs.items(address)] == [("good.txt", "output")]
    assert kinds["benchmark"] == ["benchmarks/good.tsv"]
    (attempt,) = (path for path in kinds["log"] if path.startswith(".snakemake/"))
    assert kinds["log"] == [attempt, "logs/b.err", "logs/good.log", "snakemake.log"]
    assert len(list(jobs.items(address, kind=["log", "benchmark", "output"]))) == 6
    assert jobs.http.get(f"{address}/logs/b.err").text == "E42\n"
    assert "onstart says hello" in jobs.http.get(f"{address}/snakemake.log").text


def test_the_log_says_where_the_whole_output_of_an_attempt_is(jobs: JobsClient, failed: Json) -> None:
    (good,) = jobs.tasks(failed["id"], rule="good")
    log = jobs.log(failed["id"], good["id"])

    (note,) = (line for line in log.splitlines() if "bytes are left out" in line)
    address = next(word for word in note.split() if word.startswith("/jobs/"))

    assert jobs.http.get(address).text == "".join(f"{n}\n" for n in range(1, 200_001)) + "FATAL\n"
