"""Count the letters of a sample's text."""

import json
from collections import Counter
from pathlib import Path
from typing import Any


def count(text: str) -> dict[str, int]:
    return dict(Counter(letter for letter in text if letter.isalpha()))


def main(step: Any) -> None:
    counts = count(Path(step.input[0]).read_text())
    Path(step.output[0]).write_text(json.dumps(counts) + "\n")
    Path(step.log[0]).write_text(f"{step.wildcards.sample}: {counts}\n")
    print(f"counted {step.wildcards.sample} with {step.threads} threads")


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
