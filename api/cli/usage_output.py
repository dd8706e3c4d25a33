"""Shows what jobs took, and how two of them differ."""

from typing import Any

from rich.console import Console
from rich.table import Table

from api.cli.service import Json

_OUTPUTS = {
    "different": "differs",
    "only_one": "only in the first",
    "only_other": "only in the second",
}


def show_usage(console: Console, usage: Json) -> None:
    efficiency = usage["cpu_efficiency"]
    busy = "" if efficiency is None else f", {efficiency:.0%} of {usage['cores']} cores busy"
    took = "still running" if usage["seconds"] is None else f"{usage['seconds']:.1f} s"
    cost = "" if usage["cost_usd"] is None else f", {usage['cost_usd']:.2f} USD at list price"
    console.print(f"{took}, {usage['cpu_seconds']:.1f} s of CPU{busy}{cost}", highlight=False)
    console.print(_rules_table(usage["rules"]))
    if usage["critical_path"]:
        console.print("\nThe chain that the end waited for:", highlight=False)
        for step in usage["critical_path"]:
            waited = f"  (waited {step['waited_seconds']:.1f} s)" if step["waited_seconds"] >= 1 else ""
            console.print(f"{step['seconds']:>9.1f} s  {step['name']}{waited}", highlight=False, markup=False)


def show_comparison(console: Console, found: Json) -> None:
    for title, differences in (("Asked for", found["spec"]), ("Versions", found["versions"])):
        if differences:
            console.print(_differences_table(title, differences))
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "jobs", "seconds (median)", "memory (largest)"):
        table.add_column(heading)
    for rule in found["rules"]:
        both = (rule["one"], rule["other"])
        table.add_row(
            rule["rule"],
            _pair(both, lambda usage: str(usage["jobs"])),
            _pair(both, lambda usage: f"{usage['seconds']['median']:.1f}"),
            _pair(both, lambda usage: _memory(usage["peak_memory_bytes"])),
        )
    console.print(table)
    outputs = found["outputs"]
    console.print(f"{outputs['same']} outputs are the same.", highlight=False)
    for name, text in _OUTPUTS.items():
        for path in outputs[name]:
            console.print(f"{path}: {text}", highlight=False, markup=False)


def profile_of(rules: list[Json]) -> Json:
    """A profile of Snakemake with what would have been enough."""
    resources: Json = {}
    threads: Json = {}
    for usage in rules:
        suggested = usage["suggested"]
        memory = {} if suggested["mem_mb"] is None else {"mem_mb": suggested["mem_mb"]}
        resources[usage["rule"]] = {**memory, "runtime": suggested["runtime"]}
        if suggested["threads"] is not None:
            threads[usage["rule"]] = suggested["threads"]
    return {"set-resources": resources, **({"set-threads": threads} if threads else {})}


def _rules_table(rules: list[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "jobs", "seconds", "largest", "threads busy", "memory", "asked for", "enough"):
        table.add_column(heading)
    for usage in rules:
        busy, asked = usage["cpu_efficiency"], usage["requested_mem_mb"]
        suggested = usage["suggested"]
        enough = [] if suggested["mem_mb"] is None else [f"{suggested['mem_mb']} MB"]
        enough += [] if suggested["threads"] is None else [f"{suggested['threads']} threads"]
        table.add_row(
            usage["rule"],
            str(usage["jobs"]),
            f"{usage['seconds']['median']:.1f}",
            f"{usage['seconds']['largest']:.1f}",
            "-" if busy is None else f"{busy['median']:.0%} of {usage['threads']}",
            _memory(usage["peak_memory_bytes"]),
            "-" if asked is None else f"{asked:.0f} MB",
            ", ".join([*enough, f"{suggested['runtime']} min"]),
        )
    return table


def _differences_table(title: str, differences: list[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (title, "first", "second"):
        table.add_column(heading)
    for each in differences:
        table.add_row(each["pointer"], _shown(each["one"]), _shown(each["other"]))
    return table


def _pair(both: tuple[Json | None, Json | None], text_of: Any) -> str:
    return " | ".join("-" if each is None else text_of(each) for each in both)


def _memory(spread: Json | None) -> str:
    return "-" if spread is None else f"{spread['largest'] / 1e6:.0f} MB"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
