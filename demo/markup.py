"""The demo's HTML: pure functions from the core's values to markup. Every word from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from html import escape

from llara_app.catalogue import Item
from llara_app.explain import Explanation
from llara_app.prompts import BehaviourToken, PromptMode, Role, UserToken, prompt_title
from llara_app.recommendation import RankedItem, Recommendation
from llara_app.store.records import UserMatch

SHOWN_HISTORY = 60
"""Rows of a history that are drawn; the older ones are counted."""

NEXT = "actually chosen next"


def title(text: str) -> str:
    """A title on one line, without invisible characters, escaped."""
    return escape(prompt_title(text))


def button(action: str, label: str, text: str, *, key: str, disabled: bool = False, kind: str = "icon") -> str:
    """A button that the page's script turns into an event.

    Args:
        action: what it does, with `key` what it does it to.
        label: what a screen reader says.
        text: what is seen; trusted markup.
    """
    off = " disabled" if disabled else ""
    return (
        f'<button type="button" class="{kind}" data-action="{action}" data-key="{escape(key)}"'
        f' aria-label="{escape(label)}" title="{escape(label)}"{off}>{text}</button>'
    )


def heading(text: str, aside: str = "", level: int = 2) -> str:
    """A card's heading with a quiet remark beside it; both are escaped."""
    beside = f'<span class="aside">{escape(aside)}</span>' if aside else ""
    return f'<div class="heading"><h{level}>{escape(text)}</h{level}>{beside}</div>'


def empty(text: str, hint: str = "", command: str = "") -> str:
    """An empty state: what is missing, and what to do about it."""
    lines = f"<p>{escape(text)}</p>"
    if hint:
        lines += f'<p class="quiet">{escape(hint)}</p>'
    if command:
        lines += f'<pre class="command"><code>{escape(command)}</code></pre>'
    return f'<div class="empty" role="status">{lines}</div>'


# Choosing


def user_list(users: Sequence[UserMatch], chosen: str, query: str) -> str:
    """Users to pick from."""
    if not users:
        what = (
            f"No user's id or history matches “{query}”."
            if query
            else "This database holds no users of this dataset."
        )
        return empty(what, "Search for titles below to build a history of your own.")
    rows = "".join(
        f'<li><button type="button" class="option" data-action="user" data-key="{escape(user.user_id)}"'
        f' aria-pressed="{str(user.user_id == chosen).lower()}">'
        f'<span class="name">{title(user.user_id)}{_because(user)}</span>'
        f'<span class="quiet">{"own · " if user.custom else ""}{user.history_length} items</span></button></li>'
        for user in users
    )
    return f'<ul class="options" aria-label="Users">{rows}</ul>'


def _because(user: UserMatch) -> str:
    return f' <span class="quiet">· {title(user.title.title)}</span>' if user.title is not None else ""


def title_list(items: Sequence[Item], query: str) -> str:
    """Titles to add to a history."""
    if not query.strip():
        return ""
    if not items:
        return empty(f"No title has words that begin with “{query}”.")
    rows = "".join(
        f'<li><button type="button" class="option" data-action="add" data-key="{escape(item.item_id)}"'
        f' aria-label="Add {title(item.title)}"><span class="name">{title(item.title)}</span>'
        f'<span class="plus" aria-hidden="true">＋</span></button></li>'
        for item in items
    )
    return f'<ul class="options" aria-label="Titles found">{rows}</ul>'


def history_list(items: Sequence[Item], max_history: int, *, can_undo: bool = False) -> str:
    """The history, newest first, with buttons to move and remove; the model reads the newest `max_history`."""
    count = f"{len(items)} item{'s' if len(items) != 1 else ''}"
    tools = button("undo", "Undo the last change", "↶ Undo", key="undo", disabled=not can_undo, kind="small")
    tools += button("clear", "Remove all items", "Clear", key="clear", disabled=not items, kind="small")
    head = f'<div class="heading"><h2>History</h2><span class="aside">{count}, newest first</span>{tools}</div>'
    if not items:
        return head + empty("This history is empty.", "Pick a user above, an example, or add titles below.")
    rows = []
    newest = len(items) - 1
    for position in range(newest, max(-1, newest - SHOWN_HISTORY), -1):
        if position == newest - max_history:
            rows.append('<li class="divider"><span>older than the model reads</span></li>')
        name = title(items[position].title)
        place = str(position)
        unread = ' class="unread"' if position <= newest - max_history else ""
        rows.append(
            f'<li{unread}><span class="place">{position + 1}</span><span class="name">{name}</span>'
            f'<span class="tools">'
            + button("newer", f"Move {items[position].title} up", "↑", key=place, disabled=position == newest)
            + button("older", f"Move {items[position].title} down", "↓", key=place, disabled=position == 0)
            + button("remove", f"Remove {items[position].title}", "✕", key=place)
            + "</span></li>"
        )
    hidden = len(items) - SHOWN_HISTORY
    more = f'<p class="quiet">… and {hidden:,} older</p>' if hidden > 0 else ""
    return f'{head}<ol class="history" reversed>{"".join(rows)}</ol>{more}'


def chips(examples: Iterable[tuple[str, str]]) -> str:
    """Examples to click: pairs of key and label."""
    buttons = "".join(button("example", label, escape(label), key=key, kind="chip") for key, label in examples)
    return f'<div class="chips" role="group" aria-label="Examples"><span class="quiet">Try</span>{buttons}</div>'


# Results


def predictions(
    result: Recommendation, next_item: Item | None, *, shown: int = 10, added: bool = False, aside: str = ""
) -> str:
    """The ranked items as a bar chart.

    Args:
        next_item: marked where it is known.
        shown: how many of the best are drawn; the true next item is drawn in any case.
        added: the true next item was put among the candidates, where the encoder had not proposed it.
    """
    best = result.items[0].probability if result.items else 1.0
    rows = []
    for rank, ranked in enumerate(result.items, start=1):
        is_next = next_item is not None and ranked.item.item_id == next_item.item_id
        if rank <= shown or is_next:
            if rank > shown + 1:
                rows.append('<li class="gap" aria-hidden="true">⋮</li>')
            rows.append(_prediction(rank, ranked, best, is_next, added))
    remark = aside or f"{result.milliseconds:,.0f} ms · {len(result.items)} candidates · {result.engine}"
    caution = f'<p class="quiet">{escape(result.caution)}</p>' if result.caution else ""
    return heading("What comes next?", remark) + caution + f'<ol class="bars predictions">{"".join(rows)}</ol>'


def _prediction(rank: int, ranked: RankedItem, best: float, is_next: bool, added: bool) -> str:
    percent = f"{100 * ranked.probability:.1f} %"
    width = 100 * ranked.probability / best if best else 0.0
    badge = f'<span class="next">★ {NEXT}</span>' if is_next else ""
    note = "added: the encoder did not propose it" if is_next and added else "rank by the encoder among all items"
    return (
        f'<li class="{"is-next" if is_next else ""}">'
        f'<span class="place">{rank}</span>'
        f'<span class="name"><button type="button" class="plain" data-action="why"'
        f' data-key="{escape(ranked.item.item_id)}" title="Why this one?">{title(ranked.item.title)}</button> {badge}'
        "</span>"
        f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'
        f'<span class="value">{percent}</span>'
        f'<span class="encoder-rank" title="{note}">encoder #{ranked.encoder_rank:,}</span></li>'
    )


def plain_bars(ranked: Sequence[tuple[Item, float]], next_item: Item | None, *, shown: int) -> str:
    """Items with their probabilities, best first, as narrow bars."""
    best = ranked[0][1] if ranked else 1.0
    rows = []
    for rank, (item, probability) in enumerate(ranked, start=1):
        is_next = next_item is not None and item.item_id == next_item.item_id
        if rank > shown and not is_next:
            continue
        if rank > shown + 1:
            rows.append('<li class="gap" aria-hidden="true">⋮</li>')
        badge = f' <span class="next">★ {NEXT}</span>' if is_next else ""
        rows.append(
            f'<li class="{"is-next" if is_next else ""}"><span class="place">{rank}</span>'
            f'<span class="name">{title(item.title)}{badge}</span>'
            f'<span class="value">{100 * probability:.1f} %</span>'
            f'<span class="bar" aria-hidden="true">'
            f'<span style="width:{100 * probability / best if best else 0:.1f}%"></span></span></li>'
        )
    return f'<ol class="bars">{"".join(rows)}</ol>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: Container[int] = ()) -> str:
    """A table; its cells are markup, its caption and head are escaped.

    Args:
        words: columns that hold words and stand to the left, besides the first.
    """
    above = f"<caption><span>{escape(caption)}</span></caption>" if caption else ""
    kinds = [' class="words"' if number in words else "" for number in range(len(head))]
    names = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="sheet">{above}<thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def why(explanation: Explanation) -> str:
    """What each history item does to a prediction: bars to the right speak for it, to the left against it."""
    most = max((abs(influence.change) for influence in explanation.influences), default=0.0) or 1.0
    rows = []
    for influence in reversed(explanation.influences):
        speaks = "for" if influence.change >= 0 else "against"
        width = 50 * abs(influence.change) / most
        times = math.exp(min(abs(influence.change), 99.0))
        sign = "×" if speaks == "for" else "÷"
        effect = f"{sign} {times:.2f}" if times < 100 else f"{sign} 100+"
        note = f"Without it, {influence.best_without.title} comes first."
        rows.append(
            f'<li title="{title(note)}"><span class="name">{title(influence.item.title)}</span>'
            f'<span class="bar {speaks}" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'
            f'<span class="value" aria-label="speaks {speaks} it, {effect}">{effect}</span></li>'
        )
    head = heading("Why?", f"{explanation.milliseconds:,.0f} ms")
    about = (
        f'<p class="quiet about">How much more likely each item of the history makes'
        f" <strong>{title(explanation.target.title)}</strong> ({100 * explanation.probability:.1f} %):"
        " left out one at a time, all else the same. Click a title above to ask about that one.</p>"
    )
    return f'{head}{about}<ol class="bars why">{"".join(rows)}</ol>'


def legend(mode: PromptMode, *, with_user: bool = False) -> str:
    """What the marks in a prompt mean; shapes differ, not only colours."""
    titled = "number of a history item" if mode is PromptMode.INDEX else "title in the history"
    entries = []
    if mode is not PromptMode.BEHAVIOUR:
        candidate = titled.replace("history item", "candidate").replace("in the history", "of a candidate")
        entries += [f'<span class="item history">{titled}</span>', f'<span class="item candidate">{candidate}</span>']
    if mode in (PromptMode.HYBRID, PromptMode.BEHAVIOUR):
        entries.append('<span class="token">◆ item</span> behaviour token: the encoder’s view of the item')
        if with_user:
            entries.append('<span class="token">◆ user</span> user token: the encoder’s view of the whole history')
    return f'<div class="legend" aria-label="Legend">{"".join(f"<span>{entry}</span>" for entry in entries)}</div>'


def prompt(result: Recommendation) -> str:
    """The prompt as the LLM got it, with titles and behaviour tokens marked."""
    built, mode = result.prompt, result.mode
    parts = []
    tokens = 0
    for piece in result.pieces():
        if isinstance(piece, BehaviourToken):
            tokens += 1
            index = piece.mention.item.index
            parts.append(
                f'<span class="token" title="behaviour token of {title(piece.mention.item.title)}">◆ {index}</span>'
            )
        elif isinstance(piece, UserToken):
            parts.append('<span class="token" title="the encoder’s view of the whole history">◆ user</span>')
        elif piece.mention is not None:
            role = "history" if piece.mention.role is Role.HISTORY else "candidate"
            parts.append(f'<span class="item {role}">{escape(piece.text)}</span>')
        else:
            parts.append(escape(piece.text))
    count = f"{mode} · {len(built.history)} items of history · {len(built.candidates)} candidates"
    if tokens:
        count += f" · {tokens} behaviour tokens"
    return (
        heading("The prompt", count)
        + legend(mode, with_user=built.template.has_user)
        + f'<div class="prompt" tabindex="0">{"".join(parts)}</div>'
    )
