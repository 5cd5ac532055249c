"""The database schema as numbered migrations; a migration once released is never edited, only followed."""

from __future__ import annotations

import numpy as np
from sqlite_utils import Database, Migrations

from llara_app.store.user_search import write_postings

migrations = Migrations("llara-app")


@migrations()
def m001_datasets(db: Database) -> None:
    # `first_item` and `first_user` make item and user numbers plain offsets into the ids: a sequence of item
    # indexes is then one range scan and one subtraction, without a join.
    db.executescript("""
        CREATE TABLE datasets (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            domain TEXT NOT NULL,
            hash TEXT NOT NULL,
            num_users INTEGER NOT NULL,
            num_items INTEGER NOT NULL,
            num_interactions INTEGER NOT NULL,
            first_item INTEGER NOT NULL,
            first_user INTEGER NOT NULL,
            imported_at TEXT NOT NULL,
            notes TEXT NOT NULL
        );
        CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            dataset INTEGER NOT NULL REFERENCES datasets(id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            item_id TEXT NOT NULL,
            title TEXT NOT NULL,
            metadata TEXT NOT NULL
        );
        CREATE UNIQUE INDEX items_number ON items(dataset, number);
        CREATE UNIQUE INDEX items_item_id ON items(dataset, item_id);
        CREATE UNIQUE INDEX items_title ON items(dataset, title);
    """)


@migrations()
def m002_histories(db: Database) -> None:
    # WITHOUT ROWID keeps the rows in key order, so a history is one range scan. A trigger takes a user's history
    # along: a foreign key would check each of a million rows, whose ids the import has just made itself. One on
    # `item` would also need an index over every interaction, only to delete a dataset.
    db.executescript("""
        CREATE TABLE users (
            id INTEGER PRIMARY KEY,
            dataset INTEGER NOT NULL REFERENCES datasets(id) ON DELETE CASCADE,
            user_id TEXT NOT NULL,
            history_length INTEGER NOT NULL,
            custom INTEGER NOT NULL
        );
        CREATE UNIQUE INDEX users_user_id ON users(dataset, user_id);
        CREATE INDEX users_order ON users(dataset, custom DESC, id);
        CREATE TABLE interactions (
            user INTEGER NOT NULL,
            position INTEGER NOT NULL,
            item INTEGER NOT NULL,
            time INTEGER,
            PRIMARY KEY (user, position)
        ) WITHOUT ROWID;
        CREATE TRIGGER users_deleted AFTER DELETE ON users BEGIN
            DELETE FROM interactions WHERE user = old.id;
        END;
    """)


@migrations()
def m003_search(db: Database) -> None:
    # Diacritics are folded so that "cafe" finds "Café"; the prefix indexes serve search as you type.
    # Items only ever come with a whole import, which fills the index at once; they go by cascade, one by one.
    db.executescript("""
        CREATE VIRTUAL TABLE items_fts USING fts5(
            title, content='items', content_rowid='id', tokenize='unicode61 remove_diacritics 2', prefix='1 2 3'
        );
        CREATE TRIGGER items_deleted AFTER DELETE ON items BEGIN
            INSERT INTO items_fts(items_fts, rowid, title) VALUES ('delete', old.id, old.title);
        END;
        INSERT INTO items_fts(items_fts) VALUES ('rebuild');
    """)


@migrations()
def m004_splits_and_candidates(db: Database) -> None:
    # Splits and candidates are read whole and as arrays, never row by row: little-endian int32 blobs.
    db.executescript("""
        CREATE TABLE splits (
            dataset INTEGER NOT NULL REFERENCES datasets(id) ON DELETE CASCADE,
            protocol TEXT NOT NULL,
            name TEXT NOT NULL,
            users BLOB NOT NULL,
            targets BLOB NOT NULL,
            PRIMARY KEY (dataset, protocol, name)
        );
        CREATE TABLE candidate_sets (
            dataset INTEGER NOT NULL REFERENCES datasets(id) ON DELETE CASCADE,
            protocol TEXT NOT NULL,
            split TEXT NOT NULL,
            num_candidates INTEGER NOT NULL,
            redraws INTEGER NOT NULL,
            seed INTEGER NOT NULL,
            min_history INTEGER NOT NULL,
            candidates BLOB NOT NULL,
            positions BLOB NOT NULL,
            hash TEXT NOT NULL,
            PRIMARY KEY (dataset, protocol, split, num_candidates, redraws, seed, min_history)
        );
    """)


@migrations()
def m005_results(db: Database) -> None:
    # Predictions and runs name their dataset by text: they stay readable when it is imported anew or removed.
    db.executescript("""
        CREATE TABLE predictions (
            id INTEGER PRIMARY KEY,
            dataset TEXT NOT NULL,
            user_id TEXT NOT NULL,
            bundle TEXT NOT NULL,
            mode TEXT NOT NULL,
            engine TEXT NOT NULL,
            history TEXT NOT NULL,
            items TEXT NOT NULL,
            created_at TEXT NOT NULL
        );
        CREATE INDEX predictions_user ON predictions(dataset, user_id, id);
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            details TEXT NOT NULL
        );
    """)


@migrations()
def m006_postings(db: Database) -> None:
    # Which users met an item, as one array of little-endian int32 offsets from the dataset's first user: an index
    # over all interactions would triple the time of an import to answer the same question.
    db.executescript("""
        CREATE TABLE postings (
            item INTEGER PRIMARY KEY REFERENCES items(id) ON DELETE CASCADE,
            users BLOB NOT NULL
        );
    """)
    for dataset, first_item, first_user in db.execute("SELECT id, first_item, first_user FROM datasets").fetchall():
        rows = db.execute(
            "SELECT item, user FROM interactions WHERE user IN"
            " (SELECT id FROM users WHERE dataset = ? AND NOT custom) ORDER BY user",
            (dataset,),
        ).fetchall()
        pairs = np.array(rows, dtype=np.int64).reshape(-1, 2)
        write_postings(db, first_item, first_user, pairs[:, 0], pairs[:, 1])
