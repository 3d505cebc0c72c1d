"""Artifacts while the server is away: live ones are left out, the last ones kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

import flows.reporting.artifacts
import flows.reporting.progress_artifacts
from flows.reporting.artifacts import LiveArtifact, publish_markdown, publish_table
from flows.reporting.progress_artifacts import artifact_progress


@dataclass
class Server:
    """Takes artifacts unless it is away; what is put off is kept beside it."""

    is_away: bool = False
    keys: dict[UUID, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    n_asked: int = 0
    late: list[Any] = field(default_factory=list)

    def create(self, key: str, _kind: str, data: Any, description: str) -> UUID:
        artifact = uuid4()
        self.keys[artifact] = key
        self.update(artifact, data, description)
        return artifact

    def update(self, artifact: UUID, data: Any, _description: str) -> None:
        self.n_asked += 1
        if self.is_away:
            raise httpx.ConnectError("nobody there")
        self.data[self.keys[artifact]] = data

    def delete(self, artifact: UUID) -> None:
        self.n_asked += 1
        del self.data[self.keys[artifact]]

    def report(self, send: Any) -> None:
        if self.is_away:
            self.late.append(send)
        else:
            send()

    def come_back(self) -> None:
        self.is_away = False
        for send in self.late:
            send()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    for module in (flows.reporting.artifacts, flows.reporting.progress_artifacts):
        monkeypatch.setattr(module, "create_artifact", server.create)
        monkeypatch.setattr(module, "update_artifact", server.update)
        monkeypatch.setattr(module, "delete_artifact", server.delete)
        monkeypatch.setattr(module, "report", server.report)
        monkeypatch.setattr(module, "server_is_away", lambda: server.is_away)
    return server


def test_a_server_that_is_away_is_not_asked_for_live_artifacts_and_gets_the_last(server: Server) -> None:
    table = LiveArtifact("epochs", pytest.fail)
    table.write_table([{"epoch": 1}], "Epochs")
    server.is_away = True
    table.write_table([{"epoch": 2}], "Epochs")
    table.write_table([{"epoch": 3}], "Epochs", is_last=True)
    assert server.n_asked == 1
    server.come_back()
    assert json.loads(server.data["epochs"]) == [{"epoch": 3}]
    assert len(server.keys) == 1


def test_results_are_published_when_it_is_back(server: Server) -> None:
    server.is_away = True
    publish_table("Scores", [{"score": 1.5}], "Scores")
    publish_markdown("run", "Done.", "Run")
    assert server.n_asked == 0
    server.come_back()
    assert json.loads(server.data["scores"]) == [{"score": 1.5}]
    assert server.data["run"] == "Done."


def test_progress_is_deleted_when_it_is_back(server: Server) -> None:
    now_s = 0.0
    progress = artifact_progress(pytest.fail, every_s=5, clock=lambda: now_s)
    progress("convert F", 0, 10)
    server.is_away = True
    for n_done in range(1, 11):
        now_s += 10
        progress("convert F", n_done, 10)
    assert server.n_asked == 1
    server.come_back()
    assert server.data == {}
