"""``llara-app data``: bring datasets in, look at them, and let them go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli.common import (
    Group,
    examples,
    note,
    print_json,
    print_table,
    progress_bar,
    settings,
)
from llara_app.dataset_files import KINDS, read_files
from llara_app.errors import UsageError
from llara_app.locations import require_file_name

if TYPE_CHECKING:
    from llara_app.datasets.source import SourceData
    from llara_app.store import DatasetInfo, Store


@click.group(cls=Group)
def data() -> None:
    """Datasets: import, download, list, look into, remove."""


@data.command("list", epilog=examples("llara-app data list", "llara-app data list --format json"))
def list_datasets() -> None:
    """List the datasets in the store."""
    with settings().open_store() as store:
        infos = store.datasets()
    if settings().as_json:
        print_json([_document(info) for info in infos])
    elif infos:
        print_table(
            "Datasets",
            ["name", "domain", "users", "items", "interactions", "imported", "hash"],
            [
                [i.name, i.domain, i.num_users, i.num_items, i.num_interactions, i.imported_at, i.hash[:12]]
                for i in infos
            ],
        )
    else:
        note("No datasets yet. Download one with: llara-app data fetch movielens")


@data.command(epilog=examples("llara-app data stats movielens", "llara-app data stats steam --format json"))
@click.argument("name")
def stats(name: str) -> None:
    """Show the counts, history lengths and splits of dataset NAME."""
    with settings().open_store() as store:
        document = store.stats(name)
    if settings().as_json:
        print_json(document)
        return
    lengths = document["history_length"]
    rows: list[list[object]] = [[key.replace("_", " "), document[key]] for key in ("domain", "hash")]
    rows += [[key.removeprefix("num_"), f"{document[key]:,}"] for key in document if key.startswith("num_")]
    rows.append(["history length", ", ".join(f"{key} {value:g}" for key, value in lengths.items())])
    rows.append(["own users", document["own_users"]])
    rows += [["note", text] for text in document["notes"]]
    print_table(name, ["", ""], [[key, str(value)] for key, value in rows])
    split_rows = [
        [protocol, split, *counts.values()]
        for protocol, splits in document["splits"].items()
        for split, counts in splits.items()
    ]
    print_table("Splits", ["protocol", "split", "users", "rows", "rows with history of 3+"], split_rows)


@data.command(epilog=examples("llara-app data remove movielens"))
@click.argument("name")
def remove(name: str) -> None:
    """Remove dataset NAME, with its users, histories and frozen candidates."""
    with settings().open_store() as store:
        store.remove_dataset(name)
    note(f"removed {name}")
    if settings().as_json:
        print_json({"removed": name})


@data.command(epilog=examples("llara-app data fetch movielens", "llara-app data fetch steam --replace"))
@click.argument("name")
@click.option("--replace", is_flag=True, help="Import it anew if it is in the store already.")
def fetch(name: str, replace: bool) -> None:
    """Download dataset NAME, verify and import it.

    NAME: movielens, steam, lastfm (the paper's data), movielens-raw, lastfm-hetrec.
    """
    from llara_app.datasets import sources

    with settings().open_store() as store:
        if name in sources.SOURCES and not replace and any(i.name == name for i in store.datasets()):
            note(f"{name} is in the store already; pass --replace to import it anew")
            _report(store.dataset(name))
            return
        with _download_progress() as progress:
            source = sources.fetch(name, progress=progress)
        _import(store, name, source, replace)


@data.command(
    "import",
    epilog=examples(
        "llara-app data import movielens ml-100k --name movielens --frames llara/movielens",
        "llara-app data import frames llara/steam --name steam --domain game",
        "llara-app data import lastfm hetrec2011-lastfm-2k.zip --name lastfm",
        "llara-app data import table ratings.csv --name shop --items products.csv --user-column buyer",
        "llara-app data import recbole dataset/ml-1m --name ml-1m",
    ),
)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What to call the dataset.")
@click.option("--replace", is_flag=True, help="Replace the dataset of that name.")
@click.option("--domain", help="movie, game, artist or item: chooses the prompt templates.")
@click.option("--frames", type=click.Path(path_type=Path), help="movielens: the paper's frames, for its exact rows.")
@click.option("--min-rating", type=int, help="movielens: leave lower ratings out (the paper's rows hold 3 to 5).")
@click.option("--items", type=click.Path(path_type=Path), help="table: a second table with the items' titles.")
@click.option("--user-column", help="table: the column of users, if not called as usual.")
@click.option("--item-column", help="table: the column of items.")
@click.option("--time-column", help="table: the column of times.")
@click.option("--title-column", help="table: the column of titles.")
def import_data(kind: str, path: Path, name: str, replace: bool, **options: Any) -> None:
    """Import the files at PATH (a folder, file or zip) as a dataset.

    \b
    KIND is one of
      movielens   GroupLens' MovieLens 100K: u.data, u.item
      frames      the paper's pickled frames: train_data.df, Val_data.df, Test_data.df and titles
      lastfm      LastFM of HetRec 2011: artists.dat, user_artists.dat, user_taggedartists-timestamps.dat
      table       CSV, TSV, Parquet or JSON lines: one row per interaction
      recbole     RecBole's atomic files: .inter and .item
    """
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - KINDS[kind].options:
        raise click.UsageError(f"--{option.replace('_', '-')} does not go with {kind}")
    require_file_name(name, "a dataset")
    with settings().open_store() as store:
        # Asked before a long file is read, not after.
        if not replace and any(info.name == name for info in store.datasets()):
            raise UsageError(f"There is a dataset named {name!r} already", "", "Pass --replace to import it anew.")
        _import(store, name, read_files(kind, path, **given), replace)


def _import(store: Store, name: str, source: SourceData, replace: bool) -> None:
    with progress_bar() as progress:
        task = progress.add_task(f"importing {name}", total=source.interactions.height)
        info = store.import_dataset(
            name, source, replace=replace, progress=lambda done, total: progress.update(task, completed=done)
        )
    for text in info.notes:
        note(text)
    _report(info)


def _report(info: DatasetInfo) -> None:
    if settings().as_json:
        print_json(_document(info))
    else:
        print_table(
            "Imported",
            ["name", "domain", "users", "items", "interactions", "hash"],
            [[info.name, info.domain, info.num_users, info.num_items, info.num_interactions, info.hash[:12]]],
        )


@contextmanager
def _download_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from llara_app.cli.common import stderr

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr, disable=settings().quiet, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def update(name: str, received: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=received, total=total)

        yield update


def _document(info: DatasetInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "domain": info.domain,
        "hash": info.hash,
        "num_users": info.num_users,
        "num_items": info.num_items,
        "num_interactions": info.num_interactions,
        "imported_at": info.imported_at,
        "notes": list(info.notes),
    }
