"""The site of docs/ can be made without a network, and a mistake in a page ends its making."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local import PROJECT

_LOADED = re.compile(r"""<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"|<link[^>]*\bhref="([^"]+)""")
_IMPORTED = re.compile(r"""(?:url\(|@import )["']?([^"')\s]+)""")


def make_site(pages: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does it."""
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky"]
    command = [sys.executable, "-m", "sphinx", *options, "--doctree-dir", str(site / ".doctrees")]
    return subprocess.run([*command, str(pages), str(site)], capture_output=True, text=True)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Two pages with the configuration of ours."""
    directory = tmp_path / "docs"
    directory.mkdir()
    shutil.copy(PROJECT / "docs" / "conf.py", directory)
    (directory / "index.md").write_text("# Home\n\n```{toctree}\nother\n```\n")
    (directory / "other.md").write_text("# Other\n\n## Part\n\n[home](index.md), [part](#part)\n")
    return directory


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    made = make_site(PROJECT / "docs", tmp_path)

    assert made.returncode == 0, made.stderr
    html = [
        place
        for page in tmp_path.rglob("*.html")
        for pair in _LOADED.findall(page.read_text())
        for place in pair
    ]
    css = [place for sheet in tmp_path.rglob("*.css") for place in _IMPORTED.findall(sheet.read_text())]
    assert len(html) > 100
    assert [place for place in (*html, *css) if re.match(r"(https?:)?//", place)] == []


def test_pages_without_a_mistake_are_made(pages: Path, tmp_path: Path) -> None:
    assert make_site(pages, tmp_path / "site").returncode == 0


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("other.md", "# Other\n\n[nowhere](nowhere.md)\n"),
        ("other.md", "# Other\n\n[no such part](index.md#nowhere)\n"),
        ("other.md", "# Other\n\n![no such picture](nowhere.png)\n"),
        ("orphan.md", "# In no menu\n"),
    ],
    ids=["broken link", "broken anchor", "missing picture", "page in no menu"],
)
def test_a_mistake_ends_the_making(page: str, text: str, pages: Path, tmp_path: Path) -> None:
    (pages / page).write_text(text)

    made = make_site(pages, tmp_path / "site")

    assert made.returncode != 0
    assert page in made.stderr
