"""Random workflows, for comparing how they are scheduled."""

import random
from collections.abc import Iterator
from textwrap import dedent

CORES = 3
MEMORY = 6
"""Limit of the resource `mem_mb`."""

_CHECKPOINT_AND_PIPE = """
    checkpoint scatter:
        output: directory("parts")
        shell: "echo {rule} >> journal; mkdir {output}; for n in 1 2 3; do echo $n > {output}/$n; done"

    rule work:
        input: "parts/{part}"
        output: temp("worked/{part}")
        shell: "echo {rule} {wildcards} >> journal; cp {input} {output}"

    def parts(wildcards):
        directory = checkpoints.scatter.get().output[0]
        return expand("worked/{part}", part=glob_wildcards(directory + "/{part}").part)

    rule gather:
        input: parts
        output: "gathered"
        shell: "echo {rule} >> journal; cat {input} > {output}"

    rule speak:
        output: pipe("spoken")
        shell: "echo {rule} >> journal; echo word > {output}"

    rule hear:
        input: "spoken"
        output: "heard"
        shell: "echo {rule} >> journal; cat {input} > {output}"
"""


def random_snakefile(seed: int, size: int = 24) -> str:
    """Rules with random edges, priorities, demands, temporary outputs and failures.

    Whatever starts writes its name to the file `journal`. Some rules fail once and are retried,
    at most one fails always. A checkpoint and a pipe are part of each.
    """
    chance = random.Random(seed)
    inputs = {number: _some_before(number, chance) for number in range(size)}
    used = {number for needed in inputs.values() for number in needed}
    failing = chance.choice([None, *used])
    goals = [f"out/{number}" for number in range(size) if number not in used]
    rules = [f"rule all:\n    input: {['gathered', 'heard', *goals]}\n"]
    for number, needed in inputs.items():
        lines = _rule(number, needed, chance, is_temporary=number in used, always_fails=number == failing)
        rules.append("\n    ".join(lines) + "\n")
    return "\n".join([*rules, dedent(_CHECKPOINT_AND_PIPE)])


def _some_before(number: int, chance: random.Random) -> list[int]:
    return sorted(chance.sample(range(number), min(number, chance.randrange(4))))


def _rule(
    number: int, needed: list[int], chance: random.Random, *, is_temporary: bool, always_fails: bool
) -> Iterator[str]:
    output = f'"out/{number}"'
    yield f"rule n{number}:"
    yield f"input: {[f'out/{other}' for other in needed]}"
    yield f"output: {f'temp({output})' if is_temporary and chance.random() < 0.4 else output}"
    yield f"priority: {chance.randrange(5)}"
    yield f"threads: {chance.randint(1, CORES)}"
    yield f"resources: mem_mb={chance.randint(1, MEMORY)}"
    trouble = "exit 1;" if always_fails else ""
    if chance.random() < 0.2:
        trouble = f"mkdir once.{number} 2>/dev/null && exit 1; {trouble}"
    merge = f"(echo {number}; cat {{input}}) < /dev/null | sort -u > {{output}}"
    yield f'shell: "echo {{rule}} >> journal; {trouble} {merge}"'
