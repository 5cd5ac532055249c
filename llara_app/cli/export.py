"""``llara-app export``: what runs on a laptop or behind any engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options
from llara_app.cli.common import (
    Command,
    examples,
    find_bundle,
    note,
    print_json,
    print_result,
    print_table,
    progress_bar,
    settings,
)
from llara_app.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest
    from train.export.verify import RankingSample

DEFAULT_QUANTIZATION = "Q8_0"
DTYPES = ("auto", "float32", "float16", "bfloat16")
SAMPLE_SIZE = 50


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app export movielens-nano",
        "llara-app export movielens-nano --quantize Q4_K_M --quantize Q8_0 --bake --to ./carry",
        "llara-app export movielens-nano --items-only --add new-items.jsonl",
        "llara-app recommend --bundle ./carry --user 17 --engine llama.cpp",
    ),
)
@click.argument("bundle")
@click.option(
    "--quantize",
    "quantizations",
    multiple=True,
    type=click.Choice(options.QUANTIZATIONS),
    help=f"A GGUF file to write; give it again for more [default: {DEFAULT_QUANTIZATION}]. f16 is always written.",
)
@click.option("--bake", is_flag=True, help="Also put the item tokens into the vocabulary, for stock servers.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write to this folder, with a copy of the bundle [default: into the bundle].",
)
@click.option("--gguf/--no-gguf", default=True, show_default=True, help="Write GGUF files for llama.cpp.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="auto",
    show_default=True,
    help="Of the merged weights; auto keeps the base model's own.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare tokens, logits and rankings; takes memory for the model in single precision.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of llama.cpp [default: all cores].")
@click.option("--items-only", is_flag=True, help="Write nothing but the item table anew.")
@click.option(
    "--add",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='With --items-only: new items, one JSON object a line: {"item_id": ..., "title": ..., "like": [ids]}.',
)
def export(
    bundle: str,
    quantizations: tuple[str, ...],
    bake: bool,
    to: Path | None,
    gguf: bool,
    dtype: str,
    verify: bool,
    threads: int | None,
    items_only: bool,
    add: Path | None,
) -> None:
    """Merge a bundle's adapter into its LLM and write it for llama.cpp, vLLM and transformers.

    BUNDLE is the name of a kept bundle, or its folder. What is written is checked against the bundle, and an export
    that was interrupted goes on where it was. Nothing of the bundle itself is changed.
    """
    from llara_app.models.manifest import Manifest

    folder = find_bundle(bundle)
    if add is not None and not items_only:
        raise UsageError("--add needs --items-only", "", f"llara-app export {bundle} --items-only --add {add}")
    if items_only:
        _export_items(folder, to or folder, add)
        return

    import torch

    from train.export.run import ExportOptions, export_bundle

    wanted = ExportOptions(
        quantizations=quantizations or (DEFAULT_QUANTIZATION,),
        bake=bake,
        gguf=gguf,
        dtype=None if dtype == "auto" else getattr(torch, dtype),
        verify=verify,
        threads=threads,
    )
    with progress_bar() as progress:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total, visible=done < total)

        record = export_bundle(
            folder,
            wanted,
            to=to,
            sample=_test_users(Manifest.read(folder)),
            progress=show,
            tell=note,
        )
    target = to or folder
    document = {
        "bundle": str(folder),
        "folder": str(target),
        "files": {path: file.size for artifact in record.artifacts.values() for path, file in artifact.files.items()},
        "checks": record.checks,
        "notes": {name: artifact.notes for name, artifact in record.artifacts.items() if artifact.notes},
    }
    if settings().as_json:
        print_json(document)
        return
    for check, found in record.checks.items():
        if "logit_difference" in found:
            note(f"{check}: logits differ by at most {found['logit_difference']:.1e}")
    for name, warning in document["notes"].items():  # type: ignore[attr-defined]  # a dict, two lines above
        note(f"{name}: {warning}")
    ranking = record.checks.get("ranking")
    if ranking:
        print_table(
            f"{ranking['prompts']} {ranking['source']}; agreement is with f16",
            ["file", "MB", "ms per user", "HR@1", "same first", "same order"],
            [
                [
                    row["file"],
                    row["megabytes"],
                    row["ms_per_user"],
                    row.get("hit_ratio_at_1"),
                    row["same_first"],
                    row["same_order"],
                ]
                for row in ranking["rows"]
            ],
        )
    note(f"How to serve it: {target / 'README.md'}")


def _export_items(bundle: Path, target: Path, add: Path | None) -> None:
    from train.export.items import read_new_items, write_items

    new = read_new_items(add) if add is not None else []
    num_items, num_behaviour = write_items(bundle, target, new)
    print_result(
        "Item table",
        {
            "folder": str(target / "gguf"),
            "added": len(new),
            "num_items": num_items,
            "num_behaviour": num_behaviour,
        },
    )


def _test_users(manifest: Manifest) -> Callable[[], RankingSample] | None:
    """The dataset's own test users, if the store has the very dataset that the bundle was trained on."""
    from llara_app.sequences import Split
    from train.evaluation import evaluation_prompts
    from train.export.verify import RankingSample

    with settings().open_store() as store:
        try:
            info = store.dataset(manifest.dataset.name)
        except NotFoundError:
            info = None
        if info is None or info.hash != manifest.dataset.hash:
            note("The dataset is not in the store: quantized files are compared on made-up users.")
            return None
        catalogue, sequences = store.catalogue(info.name), store.sequences(info.name)
        split, sets = store.candidate_sets(
            info.name,
            manifest.dataset.protocol,
            "test",
            num_candidates=manifest.num_candidates,
            redraws=1,
            seed=settings().seed,
        )

    def sample() -> RankingSample:
        some = Split(split.protocol, split.name, split.users[:SAMPLE_SIZE], split.targets[:SAMPLE_SIZE])
        redraw = type(sets)(sets.candidates[:, :SAMPLE_SIZE], sets.positions[:, :SAMPLE_SIZE], sets.seed)
        prompts = evaluation_prompts(catalogue, manifest.template, sequences, some, redraw, manifest.max_history)[0]
        return RankingSample(prompts, redraw.positions[0].astype("int64"), "test users")

    return sample
