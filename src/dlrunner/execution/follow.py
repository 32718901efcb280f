"""Ranks above 0 of a distributed run: they train with rank 0, which reads the data first, writes and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlrunner.config.plan import Plan, plan
from dlrunner.errors import Interrupted
from dlrunner.execution.identity import digests, identity_of
from dlrunner.execution.member import member_seed, set_up_process, train_member
from dlrunner.reporting.terminal.progress import SilentDisplay
from dlrunner.system.process_group import SingleProcess, is_peer_failure, is_reporting_rank, joined
from dlrunner.system.signals import StopSignals


class _NoFolder:
    """Stores nothing: rank 0 writes the checkpoints."""

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        return None

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        pass

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass


def follow(config: Mapping[str, Any]) -> int:
    """Train as one of several processes and return the exit status; common errors are reported by rank 0."""
    checked = plan(config)
    try:
        with StopSignals() as signals, joined(checked.device) as group:
            try:
                checked = plan(group.broadcast(None))
                if group.broadcast(None) != "finished":
                    _train(checked, signals, group)
            except (SystemExit, Exception) as error:  # a user's module may leave too
                if is_peer_failure(error) or not is_reporting_rank():
                    return 1
                raise
    except Interrupted as stopped:
        return stopped.exit_status
    return 0


def _train(checked: Plan, signals: StopSignals, group: SingleProcess) -> None:
    """Train like rank 0, without what only one process needs to do."""
    set_up_process(checked)
    settings, data = checked.settings, checked.build_data()
    group.compare(digests(checked, identity_of(data)))
    for index in range(settings.ensemble):
        seed = member_seed(settings.seed, settings.ensemble, index)
        task = checked.build_task(data, seed)
        train_member(checked, task, seed, group, _NoFolder(), SilentDisplay(), signals)
