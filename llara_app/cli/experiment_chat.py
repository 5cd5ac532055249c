"""``llara-app experiment chat``: a chat model behind an OpenAI-compatible API as one more system."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options
from llara_app.cli.common import Command, examples, note, print_json, print_table, progress_bar, settings
from llara_app.errors import UsageError

if TYPE_CHECKING:
    from llara_app.prompts import HybridPrompt
    from llara_app.ranking.chat_ranker import ChatRanker
    from train.experiments.chat import ChatModel, ChatResult

KEY_VARIABLE = "OPENAI_API_KEY"


class Parameter(click.ParamType[tuple[str, Any]]):
    """``NAME=VALUE`` with a value in JSON, or plain text where it is none."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, Any]:
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not NAME=VALUE", parameter, context)
        if name in ("model", "messages", "stream", "n"):
            self.fail(f"{name!r} is not free to choose", parameter, context)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


def model_options(prefix: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Which chat model, and how it is asked; :func:`chosen_model` reads what was given.

    Args:
        prefix: of the options, where a command has others too; no chat model need be named then.
    """
    chosen = (
        click.option(
            f"--{prefix}model",
            "chat_model",
            required=not prefix,
            metavar="NAME",
            help="As the server calls it; answers are kept by this name.",
        ),
        click.option(
            f"--{prefix}base-url",
            "chat_base_url",
            required=not prefix,
            metavar="URL",
            help="What stands before /chat/completions.",
        ),
        click.option(
            f"--{prefix}key-env",
            "chat_key_env",
            metavar="VARIABLE",
            default=KEY_VARIABLE,
            show_default=True,
            help="The environment variable that holds the API key; a server on this machine needs none.",
        ),
        click.option(
            f"--{prefix}parameter",
            "chat_parameters",
            type=Parameter(),
            multiple=True,
            help="Of the requests, such as max_completion_tokens=200; null leaves one out "
            "[temperature=0, max_tokens=128].",
        ),
        click.option(
            f"--{prefix}concurrency",
            "chat_concurrency",
            type=click.IntRange(1),
            default=8,
            show_default=True,
            help="Requests at a time.",
        ),
        click.option(
            f"--{prefix}timeout",
            "chat_timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=120.0,
            show_default=True,
            help="Seconds that the server may be silent.",
        ),
        click.option(
            f"--{prefix}price-in", "chat_price_in", type=click.FloatRange(min=0), help="Of a million tokens read."
        ),
        click.option(
            f"--{prefix}price-out",
            "chat_price_out",
            type=click.FloatRange(min=0),
            help="Of a million tokens written.",
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(chosen):
            command = option(command)
        return command

    return add


def chosen_model(given: dict[str, Any]) -> ChatModel | None:
    """The chat model that :func:`model_options` name, taken out of `given`; None if they name none.

    Raises:
        UsageError: they name half of one.
    """
    from train.experiments.chat import ChatModel

    name, base_url = given.pop("chat_model"), given.pop("chat_base_url")
    key_env, parameters = given.pop("chat_key_env"), dict(given.pop("chat_parameters"))
    concurrency, timeout = given.pop("chat_concurrency"), given.pop("chat_timeout")
    price_in, price_out = given.pop("chat_price_in"), given.pop("chat_price_out")
    if (price_in is None) != (price_out is None):
        raise UsageError(
            "A cost needs both prices", "", "Give the price of tokens read and of those written, or neither."
        )
    prices = (price_in, price_out) if price_in is not None else None
    if name is None and base_url is None and not parameters and prices is None:
        return None
    if name is None or base_url is None:
        raise UsageError(
            "A chat model needs a name and an address",
            "",
            "Give the model's name and its base URL (what stands before /chat/completions), or neither.",
        )
    return ChatModel(name, base_url, key_env, parameters, concurrency, timeout, prices)


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app experiment chat --dataset movielens --model gpt-4 --base-url https://api.openai.com/v1 --dry-run",
        "llara-app experiment chat --dataset movielens --model gpt-4 --base-url https://api.openai.com/v1 "
        "--price-in 30 --price-out 60 --output gpt-4.json",
        "llara-app experiment chat --dataset demo --model nano --base-url http://127.0.0.1:8000/v1 --users 50",
    ),
)
@click.option("--dataset", required=True, metavar="NAME", help="A dataset in the store.")
@model_options()
@options.protocol
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Whose rows.")
@click.option("--users", type=click.IntRange(1), help="So many of them, drawn by --seed [default: all].")
@click.option("--redraws", type=click.IntRange(1), default=1, show_default=True, help="Of the candidates.")
@click.option(
    "--candidates", "num_candidates", type=click.IntRange(2), default=20, show_default=True, help="Of each user."
)
@click.option("--template", metavar="NAME", help="The prompt's words [default: those of the dataset's domain].")
@click.option("--dry-run", is_flag=True, help="Only say how much would be asked.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write results and answers here, as JSON."
)
def chat(
    dataset: str,
    protocol: str,
    split: str,
    users: int | None,
    redraws: int,
    num_candidates: int,
    template: str | None,
    dry_run: bool,
    output: Path | None,
    **model: Any,
) -> None:
    """Ask a chat model for the next title, and measure its answers.

    Every answer is kept as it arrives: the same command goes on where an interrupted one stopped, and pays for
    nothing twice. An answer that names no candidate, or two, is invalid and wrong.
    """
    from llara_app.files import write_whole
    from llara_app.prompts import find_template
    from llara_app.ranking.chat_ranker import Usage
    from train.evaluation import evaluation_prompts
    from train.experiments.chat import chat_experiment, some_users

    chosen = chosen_model(model)
    assert chosen is not None
    if not dry_run:
        chosen.require_askable()
    with settings().open_store() as store:
        info = store.dataset(dataset)
        words = find_template(template) if template else find_template(info.domain, fallback=True)
        catalogue, sequences = store.catalogue(dataset), store.sequences(dataset)
        rows, sets = store.candidate_sets(
            dataset, protocol, split, num_candidates=num_candidates, redraws=redraws, seed=settings().seed
        )
    rows, sets = some_users(rows, sets, users, settings().seed)
    prompts = evaluation_prompts(catalogue, words, sequences, rows, sets)
    with chosen.ranker() as ranker:
        if dry_run:
            _print_estimate(ranker, [prompt for redraw in prompts for prompt in redraw], chosen.prices)
            return
        try:
            with progress_bar() as progress:
                task = progress.add_task(f"{ranker.model}, answers", total=sets.positions.size)
                result = chat_experiment(
                    ranker, prompts, sets, dataset, progress=lambda count: progress.advance(task, count)
                )
        except KeyboardInterrupt:
            note(f"{len(ranker.asked)} new answers are kept; the same command goes on from there.")
            raise
    asked = Usage.of(ranker.asked)
    document: dict[str, Any] = {
        "model": ranker.model,
        "base_url": ranker.client.base_url,
        "protocol": protocol,
        "split": split,
        "template": words.name,
        "parameters": ranker.parameters,
        **result.evaluation.as_document(),
        "asked_now": asked.as_document(),
    }
    if chosen.prices is not None:
        document["cost"] = {
            "price_in": chosen.prices[0],
            "price_out": chosen.prices[1],
            "all_answers": Usage.of(result.answers).cost(*chosen.prices),
            "asked_now": asked.cost(*chosen.prices),
        }
    if output is not None:
        users_of_rows = [sequences.user_ids[int(user)] for user in rows.users]
        everything = {
            **document,
            "answers": _answers(result, users_of_rows, prompts, sets.positions.ravel().tolist()),
        }
        write_whole(output, json.dumps(everything, ensure_ascii=False, indent=2) + "\n")
    if settings().as_json:
        print_json(document)
        return
    _print_result(document)


def _answers(
    result: ChatResult, users: Sequence[str], prompts: Sequence[Sequence[HybridPrompt]], positions: Sequence[int]
) -> list[dict[str, Any]]:
    """Every answer beside the item that came next."""
    rows = [
        (redraw, user, prompt) for redraw, row in enumerate(prompts) for user, prompt in zip(users, row, strict=True)
    ]
    return [
        {
            "redraw": redraw,
            "user": user,
            "answer": answer.text,
            "named": prompt.candidates[named].item_id if named is not None else None,
            "target": prompt.candidates[position].item_id,
        }
        for (redraw, user, prompt), answer, named, position in zip(
            rows, result.answers, result.named, positions, strict=True
        )
    ]


def _print_estimate(ranker: ChatRanker, prompts: Sequence[HybridPrompt], prices: tuple[float, float] | None) -> None:
    from llara_app.ranking.chat_ranker import Usage

    missing = ranker.missing(prompts)
    reading = sum(request.estimated_tokens for request in missing)
    bound = ranker.parameters.get("max_tokens")
    document: dict[str, Any] = {
        "model": ranker.model,
        "answers_kept": len(prompts) - len(missing),
        "requests": len(missing),
        "tokens_to_read_about": reading,
        "tokens_to_write_at_most": len(missing) * bound if bound else None,
    }
    if prices is not None and bound:
        document["cost_at_most_about"] = Usage(len(missing), reading, len(missing) * bound).cost(*prices)
    if settings().as_json:
        print_json(document)
        return
    print_table("Nothing was asked", ["", ""], [[name.replace("_", " "), value] for name, value in document.items()])


def _print_result(document: dict[str, Any]) -> None:
    def interval(name: str) -> str:
        low, high = document[name]["ci95"]
        return f"{document[name]['mean']:.4f} [{low:.3f}, {high:.3f}]"

    table: list[list[object]] = [
        ["HR@1", interval("hit_ratio_at_1")],
        ["ValidRatio", interval("valid_ratio")],
        ["ms per request", f"{document['ms_per_user']['p50']:.0f}"],
    ]
    for title, part in (("all answers", "usage"), ("asked now", "asked_now")):
        usage = document[part]
        tokens = f"{usage['prompt_tokens']:,} tokens read, {usage['completion_tokens']:,} written"
        table.append([title, f"{usage['answers']:,}: {tokens}"])
        if "cost" in document:
            table.append([f"cost of {title}", f"{document['cost']['all_answers' if part == 'usage' else part]:.4f}"])
    print_table(
        f"{document['model']} on {document['dataset']}, {document['split']}, {document['n']} users, "
        f"{document['redraws']} redraws",
        ["", ""],
        table,
    )
    usage = document["usage"]
    if usage["cut_off"]:
        note(
            f"{usage['cut_off']} answers ran into the bound on their length; raise it with --parameter max_tokens=..."
        )
    if usage["uncounted"]:
        note(f"The server did not count the tokens of {usage['uncounted']} answers; they are missing from the sums.")
