"""The console examples of a page that are run: those between `<!-- run -->` and `<!-- end -->`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, run

_MARKED = re.compile(r"<!-- run -->(.*?)<!-- end -->", re.S)
_BLOCK = re.compile(r"```console\n(.*?)```", re.S)
_HERE_DOCUMENT = re.compile(r"<<'(\w+)'$")
_VARIES = {
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}": "[0-9a-f-]{36}",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": r"[\dT:.-]+Z",
    r"\s*…\s*": ".*",
}
"""What is another each time: ids, times, and what was left out."""

_SEPARATOR = "\x1e"


@dataclass(frozen=True)
class Example:
    """A command, and what it is said to print."""

    command: str
    shown: str

    def pattern(self) -> re.Pattern[str]:
        pieces = re.split(f"({'|'.join(_VARIES)})", self.shown.strip())
        return re.compile("".join(map(_pattern_of, pieces)), re.S)


def examples(page: Path) -> Sequence[Example]:
    blocks = [block for part in _MARKED.findall(page.read_text()) for block in _BLOCK.findall(part)]
    return [example for block in blocks for example in _examples_of(iter(block.splitlines()))]


def printed(commands: Sequence[str], directory: Path, environment: Mapping[str, str]) -> list[str]:
    """What each command prints in one shell. Raises `CalledProcessError` at the first that fails."""
    script = f"\nprintf '{_SEPARATOR}'\n".join(["set -euo pipefail", *commands])
    output = run(["bash", "-c", script], cwd=directory, env=environment, stdout=PIPE, text=True, check=True)
    return output.stdout.replace("\r", "").split(_SEPARATOR)[1:]


def _pattern_of(piece: str) -> str:
    return next((now for then, now in _VARIES.items() if re.fullmatch(then, piece)), re.escape(piece))


def _examples_of(lines: Iterator[str]) -> Iterator[Example]:
    command, shown = "", ""
    for line in lines:
        if not line.startswith("$ "):
            shown += f"{line}\n"
            continue
        if command:
            yield Example(command, shown)
        command, shown = line[2:], ""
        while command.endswith("\\"):
            command += f"\n{next(lines)}"
        if (here := _HERE_DOCUMENT.search(command)) is not None:
            while not command.endswith(f"\n{here[1]}"):
                command += f"\n{next(lines)}"
    if command:
        yield Example(command, shown)
