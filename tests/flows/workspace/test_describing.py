"""What a workflow says about itself, in the ways that published workflows say it."""

from pathlib import Path

import pytest

from flows.workspace.describing import describe

SCHEMA = "type: object\nproperties: {depth: {type: integer}}\n"


def tree_of(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize(
    "files",
    [
        {"Snakefile": "validate(config, 'conf.schema.yaml')\n", "conf.schema.yaml": SCHEMA},
        {"Snakefile": 'validate(\n    config,\n    schema="s/c.yaml",\n)\n', "s/c.yaml": SCHEMA},
        {
            "Snakefile": 'include: "rules/common.smk"\n',
            "rules/common.smk": 'validate(config, schema="../schemas/any.yaml")\n',
            "schemas/any.yaml": SCHEMA,
        },
        {"Snakefile": "", "workflow/schemas/config.schema.yaml": SCHEMA},
        {"Snakefile": "", "config/config.schema.yaml": SCHEMA},
    ],
)
def test_the_schema_of_the_configuration_is_found(files: dict[str, str], tmp_path: Path) -> None:
    found = describe(tree_of(tmp_path, files), Path("Snakefile"))
    assert found.config_schema["properties"] == {"depth": {"type": "integer"}}
    assert found.config_schema_file in files


def test_without_a_schema_the_configuration_is_one(tmp_path: Path) -> None:
    files = {
        "workflow/Snakefile": 'configfile: f"{workflow.basedir}/../config/mine.yaml"\n',
        "config/mine.yaml": "depth: 3\nrate: 0.5\nclean: true\nnames: [A]\ncaller: {name: x}\nnothing:\n",
    }
    found = describe(tree_of(tmp_path, files), Path("workflow/Snakefile"))
    kinds = {name: field.get("type") for name, field in found.config_schema["properties"].items()}
    assert kinds == {
        "depth": "integer",
        "rate": "number",
        "clean": "boolean",
        "names": "array",
        "caller": "object",
        "nothing": None,
    }
    assert found.config_schema_file is None


def test_tables_are_those_that_the_configuration_names(tmp_path: Path) -> None:
    files = {
        "Snakefile": """
            configfile: "config/config.yaml"
            validate(samples, schema="schemas/samples.schema.yaml")
            validate(units, "schemas/units.schema.yaml")
        """.replace("            ", ""),
        "config/config.yaml": "samples: config/samples.tsv\nunits: /srv/units.tsv\n",
        "schemas/samples.schema.yaml": "required: [sample]\n",
        "schemas/units.schema.yaml": "required: [unit]\n",
    }
    (table,) = describe(tree_of(tmp_path, files), Path("Snakefile")).tables
    assert (table.path, table.schema_file) == ("config/samples.tsv", "schemas/samples.schema.yaml")


def test_the_schema_of_a_part_is_not_that_of_the_configuration(tmp_path: Path) -> None:
    files = {
        "Snakefile": """validate(config["data"]["samples"], schema="samples.schema.yaml")\n""",
        "samples.schema.yaml": "required: [sample]\n",
        "config/config.yaml": "depth: 1\n",
    }
    found = describe(tree_of(tmp_path, files), Path("Snakefile"))
    assert list(found.config_schema["properties"]) == ["depth"]


def test_nothing_outside_of_the_workflow_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: x\n")
    lines = [
        'configfile: "../secret.yaml"',
        'validate(config, "../secret.yaml")',
        'include: "../secret.yaml"',
    ]
    tree = tree_of(tmp_path / "tree", {"Snakefile": "\n".join(lines)})
    (tree / "README.md").symlink_to(tmp_path / "secret.yaml")
    found = describe(tree, Path("Snakefile"))
    assert (found.config, found.config_schema["properties"], found.readme) == ({}, {}, "")


def test_files_that_are_no_yaml_are_no_error(tmp_path: Path) -> None:
    files = {"Snakefile": 'configfile: "c.yaml"\n', "c.yaml": "a: [", "config/config.yaml": "- 1\n"}
    assert describe(tree_of(tmp_path, files), Path("Snakefile")).config == {}
