"""Paths of the server in texts for people."""

from pathlib import Path

from flows.record.shown_paths import ShownPaths

PATHS = ShownPaths(Path("/srv/jobs/1"), Path("/srv/jobs/1/work"))


def test_paths_are_shown_as_the_submitter_knows_them() -> None:
    text = """No such file: '/srv/jobs/1/work/config/a.csv' in /srv/jobs/1/work
  File "/srv/environments/1b/lib/python3.11/site-packages/peppy/project.py", line 164
  see /srv/jobs/1/config.json, and /usr/lib/python3.11/site.py"""
    assert (
        PATHS.in_text(text)
        == """No such file: 'config/a.csv' in .
  File "peppy/project.py", line 164
  see ../config.json, and /usr/lib/python3.11/site.py"""
    )
