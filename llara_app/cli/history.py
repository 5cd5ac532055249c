"""``llara-app history``: look at users' histories, and keep some of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llara_app.cli.common import Group, examples, note, print_json, print_table, settings
from llara_app.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from llara_app.catalogue import Item
    from llara_app.store import Store

dataset_option = click.option("--dataset", help="The dataset [default: the only one there is].")


@click.group(cls=Group)
def history() -> None:
    """Histories: list users, look at what they did, make and edit histories of your own."""


@history.command(
    "list", epilog=examples("llara-app history list --dataset movielens", "llara-app history list --query me")
)
@dataset_option
@click.option("--query", default="", help="Only users whose id contains this.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Users at most.")
@click.option("--offset", default=0, show_default=True, type=click.IntRange(min=0), help="Users to skip.")
def list_users(dataset: str | None, query: str, limit: int, offset: int) -> None:
    """List users, your own first."""
    with settings().open_store() as store:
        name = choose_dataset(store, dataset)
        found = store.users(name, query=query, limit=limit, offset=offset)
    if settings().as_json:
        print_json([{"user": u.user_id, "history_length": u.history_length, "own": u.custom} for u in found])
    else:
        rows = [[u.user_id, u.history_length, "own" if u.custom else ""] for u in found]
        print_table(f"Users of {name}", ["user", "history", ""], rows)


@history.command(
    epilog=examples("llara-app history show 196 --dataset movielens", "llara-app history show me --format json")
)
@click.argument("user")
@dataset_option
def show(user: str, dataset: str | None) -> None:
    """Show the history of USER, oldest first."""
    with settings().open_store() as store:
        _print_history(store, choose_dataset(store, dataset), user)


@history.command(
    epilog=examples(
        'llara-app history add me "The Usual Suspects (1995)"', "llara-app history add me 50 --position 0"
    )
)
@click.argument("user")
@click.argument("item")
@dataset_option
@click.option("--position", type=int, help="Put it before this position [default: at the end].")
def add(user: str, item: str, dataset: str | None, position: int | None) -> None:
    """Add ITEM (its id or whole title) to the history of USER, one of your own."""
    with settings().open_store() as store:
        name = choose_dataset(store, dataset)
        store.add_to_history(name, user, find_item(store, name, item).item_id, position)
        _print_history(store, name, user)


@history.command(epilog=examples("llara-app history remove me 0"))
@click.argument("user")
@click.argument("position", type=int)
@dataset_option
def remove(user: str, position: int, dataset: str | None) -> None:
    """Remove the item at POSITION (from 0) from the history of USER, one of your own."""
    with settings().open_store() as store:
        name = choose_dataset(store, dataset)
        store.remove_from_history(name, user, position)
        _print_history(store, name, user)


@history.command(
    epilog=examples(
        'llara-app history new "Toy Story (1995)" 50 181',
        "llara-app history new --from 196 --name alice",
    )
)
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@dataset_option
@click.option("--name", "user", help="What to call the user [default: me, me-2, ...].")
@click.option("--from", "original", metavar="USER", help="Begin with a copy of this user's history.")
def new(items: tuple[str, ...], dataset: str | None, user: str | None, original: str | None) -> None:
    """Make a user of your own, with a history of ITEMs (ids or whole titles)."""
    with settings().open_store() as store:
        name = choose_dataset(store, dataset)
        copied = [] if original is None else [step.item.item_id for step in store.history(name, original)]
        added = [find_item(store, name, item).item_id for item in items]
        user = store.new_user(name, user, [*copied, *added])
        note(f"made user {user}")
        _print_history(store, name, user)


@history.command(epilog=examples("llara-app history delete me"))
@click.argument("user")
@dataset_option
def delete(user: str, dataset: str | None) -> None:
    """Delete USER, one of your own, with the whole history."""
    with settings().open_store() as store:
        store.remove_user(choose_dataset(store, dataset), user)
    note(f"deleted user {user}")
    if settings().as_json:
        print_json({"deleted": user})


def choose_dataset(store: Store, name: str | None) -> str:
    """The dataset that was asked for, or the only one there is."""
    if name is not None:
        return store.dataset(name).name
    names = [info.name for info in store.datasets()]
    if len(names) != 1:
        raise UsageError(
            "Which dataset?" if names else "There is no dataset yet",
            f"there are {', '.join(names)}" if names else "",
            "Name one with --dataset." if names else "Import one first: llara-app data import --help",
        )
    return names[0]


def find_item(store: Store, dataset: str, text: str) -> Item:
    """The item with this id, or with this title (letter case aside).

    Raises:
        NotFoundError: with the nearest titles, where there is none.
    """
    catalogue = store.catalogue(dataset)
    if text in catalogue.by_id:
        return catalogue.by_id[text]
    by_title = {item.title.casefold(): item for item in catalogue}
    if (item := by_title.get(text.casefold())) is not None:
        return item
    near = store.search_items(dataset, text, limit=5)
    if near:
        raise NotFoundError(
            f"No item has the id or whole title {text!r}",
            f"in {dataset}",
            "Did you mean " + ", ".join(f"{item.item_id} ({item.title})" for item in near) + "?",
        )
    raise NotFoundError.of("item", text, [item.title for item in catalogue], hint="Give its id or whole title.")


def _print_history(store: Store, dataset: str, user: str) -> None:
    steps = store.history(dataset, user)
    if settings().as_json:
        document = [
            {"position": step.position, "item": step.item.item_id, "title": step.item.title, "time": step.time}
            for step in steps
        ]
        print_json({"dataset": dataset, "user": user, "history": document})
    else:
        rows = [[step.position, step.item.item_id, step.item.title] for step in steps]
        print_table(f"History of {user}", ["position", "item", "title"], rows)
