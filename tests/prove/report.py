"""The table of what was wrong, by fault."""

from collections.abc import Sequence

from tests.prove.faults import Fault
from tests.prove.trials import Trial

INVARIANTS = (
    "not submitted",
    "lost",
    "doubled",
    "backwards",
    "stuck",
    "failed wrongly",
    "left running",
    "outputs wrong",
    "not resumed",
)


def table(trials: Sequence[Trial], faults: Sequence[Fault]) -> str:
    """Markdown: for each fault how often it was inflicted, and how many jobs broke which invariant."""
    lines = [
        f"| fault | times | {' | '.join(INVARIANTS)} | ended by it, and resumed | slowest |",
        f"|---|---|{'---|' * len(INVARIANTS)}---|---|",
    ]
    for fault in faults:
        found = [trial for trial in trials if trial.fault == fault.name and trial.was_inflicted]
        counts = [sum(len(trial.wrong.get(name, [])) for trial in found) for name in INVARIANTS]
        cells = [fault.name, str(len(found)), *map(str, counts), str(sum(trial.failed for trial in found))]
        slowest = max((trial.seconds for trial in found), default=0.0)
        lines.append(f"| {' | '.join([*cells, f'{slowest:.0f} s'])} |")
    return "\n".join(lines)
