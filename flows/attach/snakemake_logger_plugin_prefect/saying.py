"""What the user reads in the terminal, beside Snakemake's own lines."""

import sys


def warn(text: str) -> None:
    """One line on stderr. Not by Snakemake's logger: it would come back here, and may be gone."""
    sys.stderr.write(f"Prefect: {text}\n")
    sys.stderr.flush()
