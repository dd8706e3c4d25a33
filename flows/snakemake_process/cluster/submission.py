"""What is submitted to a cluster: with which resources, whether at all, and the note for who clears up."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.snakemake_process.decisions import ClusterDecisions
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import LEDGER, Message

_POLL_SECONDS = 0.05


class Submission:
    """The submissions of one execution. Thread-safe."""

    def __init__(self, decisions: ClusterDecisions) -> None:
        self._decisions = decisions
        self._ledger = Path(emitter.directory, LEDGER)
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        self._ledger.unlink(missing_ok=True)
        self._lock = threading.Lock()
        self._under_way = 0
        self._removed: set[str] = set()
        self.is_stopped = False

    def prepare(self, unit: Any) -> None:
        """Change the resources of a unit as the operator wants it."""
        before = dict(unit.resources.items())
        after = {name: value for name, value in before.items() if self._may_set(name, value)}
        for name in before.keys() - after.keys():
            if name in self._decisions.default_resources:
                after[name] = self._decisions.default_resources[name]
            self._warn_of(name)
        memory = after.get("mem_mb")
        if isinstance(memory, int) and memory < self._decisions.least_memory_mb:
            after["mem_mb"] = self._decisions.least_memory_mb  # Snakemake itself runs on the node, too
            for other in ("mem", "mem_mib"):
                after.pop(other, None)
        if after != before:
            unit._resources = after if unit.is_group() else type(unit.resources)(fromdict=after)

    @contextmanager
    def begun(self) -> Iterator[bool]:
        """A submission, from its begin to its end. Yields whether it may be made."""
        with self._lock:
            may_submit = not self.is_stopped
            self._under_way += may_submit
        try:
            yield may_submit
        finally:
            with self._lock:
                self._under_way -= may_submit

    def note(self, external_id: str | None) -> None:
        """Write down what is on the cluster, for the case that this process is killed."""
        with self._lock, self._ledger.open("a") as ledger:
            ledger.write(json.dumps(external_id) + "\n")

    def stop(self) -> None:
        """Submit nothing more, and wait for what is being submitted: it has no id yet."""
        with self._lock:
            self.is_stopped = True
        deadline = time.monotonic() + self._decisions.cancel_seconds
        while self._under_way and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _may_set(self, name: str, value: Any) -> bool:
        """Whether a workflow may give this value to a resource."""
        if name not in self._decisions.operator_resources:
            return True
        return str(value) == str(self._decisions.default_resources.get(name))

    def _warn_of(self, name: str) -> None:
        if name not in self._removed:
            self._removed.add(name)
            text = f"Only the operator sets the resource '{name}'; the value of the workflow is ignored."
            emitter.emit(Message(time=time.time(), level="WARNING", text=text))
