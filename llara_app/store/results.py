"""The gateway's part for what came out: training runs and predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llara_app.errors import NotFoundError
from llara_app.store.base import StoreBase
from llara_app.store.columns import read_json


class Results(StoreBase):
    """Training runs and predictions, kept as JSON."""

    def record_run(self, run: Mapping[str, Any]) -> int:
        """Keep a training run as a JSON object; returns its id."""
        now = _now()
        with self._connections.write() as db:
            row = db.execute(
                "INSERT INTO runs (created_at, updated_at, details) VALUES (?, ?, ?)",
                (now, now, json.dumps(dict(run), ensure_ascii=False)),
            ).lastrowid
        assert row is not None
        return row

    def update_run(self, run_id: int, changes: Mapping[str, Any]) -> None:
        """Set some keys of a run."""
        with self._connections.write() as db:
            row = db.execute("SELECT details FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                known = [str(run["id"]) for run in self.runs()]
                raise NotFoundError.of("run", str(run_id), known)
            details = json.dumps({**read_json(row[0]), **changes}, ensure_ascii=False)
            db.execute("UPDATE runs SET updated_at = ?, details = ? WHERE id = ?", (_now(), details, run_id))

    def runs(self) -> list[dict[str, Any]]:
        """All training runs, newest first: what was recorded, with ``id``, ``created_at`` and ``updated_at``."""
        rows = self._connections.db.execute("SELECT id, created_at, updated_at, details FROM runs ORDER BY id DESC")
        return [
            {**read_json(details), "id": run_id, "created_at": created, "updated_at": updated}
            for run_id, created, updated, details in rows
        ]

    def record_predictions(
        self,
        dataset: str,
        user_id: str,
        bundle: str,
        mode: str,
        engine: str,
        history: Sequence[Any],
        items: Sequence[Any],
    ) -> int:
        """Keep one ranked list with the history it was made from (both JSON-serialisable); returns its id."""
        with self._connections.write() as db:
            row = db.execute(
                "INSERT INTO predictions (dataset, user_id, bundle, mode, engine, history, items, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    dataset,
                    user_id,
                    bundle,
                    mode,
                    engine,
                    json.dumps(list(history), ensure_ascii=False),
                    json.dumps(list(items), ensure_ascii=False),
                    _now(),
                ),
            ).lastrowid
        assert row is not None
        return row

    def predictions(self, dataset: str, user_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Kept predictions, newest first."""
        where, parameters = "dataset = ?", [dataset]
        if user_id is not None:
            where, parameters = where + " AND user_id = ?", [dataset, user_id]
        rows = self._connections.db.query(
            f"SELECT * FROM predictions WHERE {where} ORDER BY id DESC LIMIT ?", [*parameters, limit]
        )
        return [{**row, "history": read_json(row["history"]), "items": read_json(row["items"])} for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
