"""Which files fire a trigger: those that match, inside of the group's roots only."""

from pathlib import Path

from api.workflows.new_files import files_of, resource_of


def test_files_are_found_inside_of_the_roots_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root / "a", outside):
        directory.mkdir(parents=True)
    (root / "a" / "reads.txt").write_text("reads")
    (root / "a" / "other.csv").write_text("other")
    (root / "a" / "directory.txt").mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "a" / "link.txt").symlink_to(outside / "secret.txt")
    (root / "link").symlink_to(outside)

    assert set(files_of(f"{root}/*/*.txt", [root])) == {f"{root}/a/reads.txt"}


def test_a_file_that_is_written_to_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "reads.txt"
    file.write_text("some")
    before = files_of(f"{tmp_path}/*.txt", [tmp_path])
    file.write_text("some more")

    assert files_of(f"{tmp_path}/*.txt", [tmp_path]) != before


def test_what_prefect_matches_has_no_wildcard_at_its_end() -> None:
    """Else a trigger would also fire for every pattern that begins as its own."""
    assert not resource_of("/srv/data/*").endswith("*")
