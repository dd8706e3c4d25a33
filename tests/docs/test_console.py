"""The console examples of the documentation are found in its pages, and compared but for what changes."""

from pathlib import Path

import pytest

from tests.docs.console import Example, examples

PAGE = """
```console
$ make demo
```
<!-- run -->
```console
$ cat > a <<'END'
$ not a command
END
$ echo a \\
    b
a b
```
<!-- end -->
"""


def test_marked_examples_are_found_and_no_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    found = examples(page)

    assert found == [
        Example("cat > a <<'END'\n$ not a command\nEND", ""),
        Example("echo a \\\n    b", "a b\n"),
    ]


@pytest.mark.parametrize(
    ("printed", "is_as_shown"),
    [
        ('{"id":"7bd5a93b-d316-4398-b6a6-11cc086832f9","at":"2026-01-02T03:04:05.6Z","more":1}', True),
        ('{"id":"none","at":"2026-01-02T03:04:05.6Z","more":1}', False),
        ('{"id":"7bd5a93b-d316-4398-b6a6-11cc086832f9","on":"2026-01-02T03:04:05.6Z","more":1}', False),
    ],
)
def test_ids_times_and_what_was_left_out_may_differ(printed: str, is_as_shown: bool) -> None:
    shown = '{"id":"5ac58b21-4ae1-47c1-a4e8-0b9d07b6bf80","at":"2026-11-26T00:29:48.288572Z", …\n'

    assert bool(Example("", shown).pattern().search(printed)) is is_as_shown
