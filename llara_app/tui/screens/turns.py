"""Screens that let others have their turn."""

from __future__ import annotations

import asyncio

from textual.events import Event
from textual.message_pump import MessagePump


class TakesTurns(MessagePump):
    """Makes a screen do one thing a turn.

    To open, a screen is resumed, laid out and painted. These wait in its queue one after the other, and Textual
    works through a queue without a pause for anything else: together they are felt, each alone is not.
    """

    async def on_event(self, event: Event) -> None:
        await super().on_event(event)
        await asyncio.sleep(0)
