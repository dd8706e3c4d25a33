"""The documentation knows what the code has: sections, variables, files."""

import ast
import re
from collections.abc import Iterator

import pytest

import flows.known_errors
from api.web.problems import ProblemError
from flows.contract.documentation import TROUBLESHOOTING
from tests.docs.configuration import PAGE, PROGRAMS, page, settings_classes
from tests.house.test_names import PROJECT, tracked_files

DOCS = PROJECT / "docs"
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\bJOBS_[A-Z][A-Z_]*[A-Z]\b")


def sections() -> set[str]:
    """The anchors of the troubleshooting page."""
    headings = re.findall(r"^#+ (.+)$", (PROJECT / TROUBLESHOOTING).read_text(), re.M)
    return {heading.lower().replace(" ", "-") for heading in headings}


def problem_types(base: type[ProblemError] = ProblemError) -> set[str]:
    return {kind.slug for kind in base.__subclasses__()}.union(
        *(problem_types(kind) for kind in base.__subclasses__())
    )


def test_every_problem_type_has_a_section() -> None:
    assert problem_types() - sections() == set()


def test_every_exception_that_is_explained_has_a_section() -> None:
    exceptions = {name.lower() for name in flows.known_errors.RESOLUTIONS}
    assert exceptions - sections() == set()


def test_every_section_that_the_code_names_is_there() -> None:
    """As the last text of a `JobError` or of what is known of a message, or as the name `section`."""
    paths = [path for path in tracked_files() if path.startswith(("api/", "flows/")) and path.endswith(".py")]
    named = {section for path in paths for section in _sections_in(ast.parse((PROJECT / path).read_text()))}
    assert {"timeout", "environment", "failed-rule", "modulenotfounderror"} <= named
    assert named - sections() == set()


def _sections_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("JobError"), args=[_, _, _, ast.Constant(str(section))]):
                yield section
            case ast.Call(func=ast.Name("_Known"), args=[_, _, ast.Constant(str(section)), *_]):
                yield section
            case ast.Tuple([ast.Attribute(ast.Name("ErrorKind")), _, ast.Constant(str(section))]):
                yield section
            case ast.Call(func=ast.Name("with_reference"), args=[_, ast.Constant(str(section))]):
                yield section
            case ast.Assign(
                [ast.Tuple([_, ast.Name("section")])], ast.Tuple([_, ast.Constant(str(section))])
            ):
                yield section


def test_the_page_of_the_configuration_is_made_from_the_settings() -> None:
    assert PAGE.read_text() == page(), "run `make configuration`"


def test_every_settings_class_is_on_the_page_of_the_configuration() -> None:
    listed = {base for classes in PROGRAMS.values() for settings in classes for base in settings.__mro__}
    assert settings_classes() - listed == set()


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
def test_the_variables_that_a_page_names_are_there(document: str) -> None:
    known = set(_VARIABLE.findall(PAGE.read_text())) | {"JOBS_ECS"}
    assert set(_VARIABLE.findall((PROJECT / document).read_text())) - known == set()


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "api/SECURITY.md", "api/WES.md"])
def test_the_files_that_a_document_links_to_are_there(document: str) -> None:
    """Of the pages in docs/, the site's generator sees to it."""
    directory = (PROJECT / document).parent
    links = {link for link in _LINK.findall((PROJECT / document).read_text()) if "://" not in link}
    missing = {link for link in links if not (directory / link.partition("#")[0]).exists()}
    assert missing == set()


def test_readme_is_read_in_two_minutes() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150


def test_the_rooms_of_the_architecture_are_those_of_the_code() -> None:
    """Every package of the service has a row, and every module that a row names is there."""
    rooms: dict[str, set[str]] = {}
    room = ""
    for named, modules in re.findall(
        r"^\| (`[^|]+`)? ?\| (.*?) \|", (DOCS / "architecture.md").read_text(), re.M
    ):
        room = named.strip("`") or room
        rooms.setdefault(room, set()).update(re.findall(r"`([\w.]+\.py)`", modules))
    files = set(tracked_files())
    assert {f"{room}{module}" for room in rooms for module in rooms[room]} - files == set()
    packages = {path.removesuffix("__init__.py") for path in files if path.endswith("/__init__.py")}
    of_the_service = {path for path in packages if path.startswith(("api/", "flows/", "deployments/"))}
    assert {path for path in of_the_service if "/plugins/" not in path} - set(rooms) == set()
