"""``llara-app demo``: the browser demo."""

from __future__ import annotations

import time

import click

from llara_app import locations
from llara_app.cli import options
from llara_app.cli.common import Command, examples, find_bundle, note, settings


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app demo",
        "llara-app demo --bundle my-run --port 8080",
        "LLARA_DEMO_PASSWORD=... llara-app demo --host 0.0.0.0 --user guest",
    ),
)
@click.option("--bundle", help="Name or folder of the bundle to begin with [default: the newest one].")
@options.engine
@click.option("--port", type=click.IntRange(1, 65535), help="[default: the first free one from 7860]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address lets other machines in.")
@click.option("--user", help="Ask visitors for this name and --password.")
@click.option(
    "--password", envvar="LLARA_DEMO_PASSWORD", show_envvar=True, help="Better set as the environment variable."
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
def demo(
    bundle: str | None,
    engine: str,
    port: int | None,
    host: str,
    user: str | None,
    password: str | None,
    open_browser: bool,
) -> None:
    """Serve the demo: explore, compare, map, training and evaluation in the browser."""
    from demo.server import Address, launch
    from demo.workbench import Workbench
    from llara_app.demo_bundle import NAME
    from llara_app.models.manifest import list_bundles

    address = Address(host, port, user, password)
    if not address.is_loopback:
        guarded = "" if address.auth else " without a password"
        note(f"warning: {host} lets other machines reach this demo{guarded}; anyone there can use your models.")
    if bundle is None and next(list_bundles(), None) is None:
        bundle = NAME
    first = str(find_bundle(bundle)) if bundle else None
    workbench = Workbench(
        settings().db or locations.database(), bundle=first, engine=engine, engine_options=options.engine_options()
    )
    served = launch(workbench, address, open_browser=open_browser)
    note(f"The demo is at {served.local_url}  (Ctrl-C ends it)")
    try:
        # In short turns: a wait without end cannot be interrupted on every system.
        while True:
            time.sleep(0.5)
    finally:
        served.close(verbose=False)
