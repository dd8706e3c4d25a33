"""A manifest is parsed once for all pages of a list, and anew when it has changed."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import api.jobs.manifests
from api.jobs.manifests import Manifests
from flows.contract.storage import LocalStorage


def write(home: Path, job_id: UUID, *paths: str) -> None:
    described = {"size": 0, "sha256": "", "modified_at": "2025-10-09T08:53:20Z"}
    manifest = home / "jobs" / str(job_id) / "outputs.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"outputs": [{"path": path, **described} for path in paths]}))


def test_what_has_not_changed_is_not_parsed_again(tmp_path: Path) -> None:
    manifests, job_id = Manifests(LocalStorage(tmp_path)), uuid4()
    write(tmp_path, job_id, "b", "a")
    first = manifests.read(job_id)
    assert first.paths == ("a", "b")
    assert manifests.read(job_id) is first


def test_what_has_changed_is_read_anew(tmp_path: Path) -> None:
    manifests, job_id = Manifests(LocalStorage(tmp_path)), uuid4()
    write(tmp_path, job_id, "a")
    manifests.read(job_id)
    write(tmp_path, job_id, "b")
    assert manifests.read(job_id).paths == ("b",)


def test_what_is_kept_is_bounded_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.jobs.manifests, "KEPT_BYTES", 250)  # two manifests of one file
    manifests, (first, second, third) = Manifests(LocalStorage(tmp_path)), (uuid4(), uuid4(), uuid4())
    for job_id, name in ((first, "a"), (second, "b"), (third, "c")):
        write(tmp_path, job_id, name)
    kept = {job_id: manifests.read(job_id) for job_id in (first, second)}
    assert manifests.read(first) is kept[first]
    manifests.read(third)
    assert manifests.read(first) is kept[first]
    assert manifests.read(second) is not kept[second]
