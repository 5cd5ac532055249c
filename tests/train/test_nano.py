"""The nano LLM: what it reads, how it is trained, and the folder that ships."""

from __future__ import annotations

import json
import random
from ast import literal_eval
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import load_llm, nano_folder
from llara_app.prompts import PromptMode, PromptTokenizer, build_prompt, find_template, prompt_title
from tests.train.processes import run_in_processes
from train import nano
from train.nano_batches import collate
from train.nano_documents import (
    choice_document,
    keyed_document,
    most_alike,
    prompt_ids,
    repeated_document,
    rounds_document,
    watching_document,
)
from train.nano_evaluation import evaluate_nano
from train.nano_text import DOMAINS, LATENT_SIZE, Choice, TextSource, World
from train.nano_titles import TitleGenerator

WORLDS: tuple[World, ...] = ("random", "sequels", "vectors", "films", "film-vectors")
TINY = {"num_hidden_layers": 2, "intermediate_size": 32}


@cache
def shipped_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(nano_folder())


@cache
def some_choices(seed: int = 7) -> tuple[list[Choice], np.ndarray]:
    worlds = list(WORLDS) * 8
    return TextSource(seed).choices(worlds, [0, 1, 5, 10] * 10, [2, 5, 12, 20, 3, 5, 20, 4] * 5)


def prompt_tokenizer() -> PromptTokenizer:
    tokenizer = shipped_tokenizer()
    return PromptTokenizer(tokenizer, len(tokenizer), num_items=100_000)


@pytest.mark.parametrize("domain", DOMAINS)
def test_titles_are_distinct_and_stand_in_prompts_as_they_are(domain: str) -> None:
    titles = TitleGenerator(random.Random(3)).titles(domain, 500)
    assert len(set(titles)) == 500
    assert [prompt_title(title) for title in titles] == titles


def test_some_titles_of_a_list_begin_alike() -> None:
    generator = TitleGenerator(random.Random(0))
    lists = [generator.titles("movie", 20) for _ in range(40)]
    alike = [any(a != b and b.startswith(a.split(" (")[0]) for a in titles for b in titles) for titles in lists]
    assert sum(alike) >= 10


def test_equal_seeds_give_equal_texts() -> None:
    first, again, other = (TextSource(seed) for seed in (5, 5, 6))
    worlds, sizes = list(WORLDS), [4] * len(WORLDS)
    choices, vectors = first.choices(worlds, sizes, sizes)
    choices_again, vectors_again = again.choices(worlds, sizes, sizes)
    assert choices == choices_again
    assert np.array_equal(vectors, vectors_again)
    assert first.film_sentences(5) == again.film_sentences(5)
    assert choices != other.choices(worlds, sizes, sizes)[0]


def test_choices_are_over_candidates_that_the_user_has_not_had() -> None:
    choices, vectors = some_choices()
    numbers = [
        number
        for choice in choices
        for number in (
            *(item.index for item in (*choice.prompt.history, *choice.prompt.candidates)),
            choice.user,
        )
    ]
    assert numbers == list(range(len(vectors)))
    assert vectors.shape[1] == LATENT_SIZE
    assert np.isfinite(vectors).all()
    for choice in choices:
        candidates = [item.title for item in choice.prompt.candidates]
        assert len(choice.probabilities) == len(candidates) == len(set(candidates))
        assert sum(choice.probabilities) == pytest.approx(1)
        assert not set(candidates) & {item.title for item in choice.prompt.history}
        assert choice.mode in (PromptMode.TEXT, PromptMode.HYBRID)


def test_films_are_chosen_by_what_is_known_of_them() -> None:
    source = TextSource(11)
    choices, _ = source.choices(["films"] * 200, [5] * 200, [20] * 200)
    best = [max(choice.probabilities) for choice in choices]
    assert np.mean(best) > 3 / 20


def test_targets_are_what_a_perfect_model_of_the_choice_would_say() -> None:
    tokenizer = prompt_tokenizer()
    for choice in some_choices()[0]:
        places = range(len(choice.probabilities))
        document = choice_document(choice, tokenizer, branched=list(places))
        at: dict[int, dict[int, float]] = {}
        for position, token, weight in document.targets:
            at.setdefault(position, {})[token] = weight
        # Walking down the branch of a candidate, the targets' chances multiply to the candidate's own.
        end = len(document.ids)
        for place in places:
            answer = tokenizer.encode_answer(choice.prompt.candidates[place], choice.mode)
            positions = [len(document.ids) - 1, *range(end, end + len(answer) - 1)]
            end += len(answer) - 1
            chance = 1.0
            for position, token in zip(positions, answer, strict=True):
                chance *= at[position][token] / sum(at[position].values())
            assert chance == pytest.approx(choice.probabilities[place], abs=1e-4)


def test_answers_that_begin_like_another_title_are_the_hardest_to_copy() -> None:
    titles = ["Alone (1990)", "Iron Coast 2 (2001)", "Salt", "Iron Coast 3 (2004)", "Night Train, The (1950)"]
    history, candidates = (
        [Item(number, str(number), title) for number, title in enumerate(some, start)]
        for start, some in ((10, ["Night Train, The (1974)"]), (0, titles))
    )
    prompt = build_prompt(find_template("movie-keyed"), history, candidates)
    choice = Choice(prompt, (0.2,) * 5, PromptMode.TEXT, user=20, free=True)
    assert set(most_alike(choice, prompt_tokenizer(), 3)) == {1, 3, 4}
    assert len(most_alike(choice, prompt_tokenizer(), 9)) == 5


def test_a_list_read_twice_is_foretold_only_the_second_time() -> None:
    document = repeated_document([10, 11, 12], eos_id=0)
    assert document.ids == [10, 11, 12, 0, 10, 11, 12]
    assert document.targets == [(3, 10, 1.0), (4, 11, 1.0), (5, 12, 1.0)]


def test_a_keyed_list_is_read_again_in_another_order_behind_likenesses_of_its_keys() -> None:
    tokenizer = prompt_tokenizer()
    titles, vectors = TextSource(3).keyed_list(4)
    order = [2, 0, 3, 1]
    document = keyed_document(titles, 10, order, tokenizer)
    first_item = tokenizer.vocabulary_size
    assert [token - first_item for token in document.ids if token >= first_item] == [
        *(10, 11, 12, 13),
        *(14 + place for place in order),
    ]
    foretold: dict[int, int] = {position: token for position, token, _ in document.targets}
    assert [document.ids[position + 1] for position in foretold] == list(foretold.values())
    assert sorted(document.choosing) == [p for p, token in enumerate(document.ids) if token >= first_item + 14]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert ((unit[4:] * unit[:4]).sum(axis=1) > 0.3).all()
    assert len(vectors) == 8


def test_rounds_ask_about_one_history_many_times() -> None:
    tokenizer = prompt_tokenizer()
    source = TextSource(4)
    for _ in range(10):
        choices = source.rounds(3, [2, 5, 4])
        assert [len(choice.probabilities) for choice in choices] == [2, 5, 4]
        assert len({choice.prompt.history for choice in choices}) == 1
        document = rounds_document(choices, tokenizer)
        text = shipped_tokenizer().decode(document.ids)
        assert text.count(choices[0].prompt.history[0].title) >= 1
        assert text.count("Answer:\n") == 3
        for choice, position in zip(choices, sorted(document.choosing), strict=True):
            # What is to be learned is every candidate's chance, what is read on is the likeliest.
            wanted = {token: weight for place, token, weight in document.targets if place == position}
            likeliest = choice.prompt.candidates[int(np.argmax(choice.probabilities))]
            answer = tokenizer.encode_answer(likeliest, PromptMode.TEXT)
            assert document.ids[position + 1 : position + 1 + len(answer)] == answer
            firsts = {tokenizer.encode_answer(item, PromptMode.TEXT)[0] for item in choice.prompt.candidates}
            assert set(wanted) == firsts
            assert sum(choice.probabilities) == pytest.approx(1)


def test_what_a_viewer_watches_is_foretold_by_what_is_related() -> None:
    source = TextSource(8)
    tokenizer = prompt_tokenizer()
    titles = [tokenizer.encode_text(film.title + "\n") for film in source.films]
    watched, chances = source.film_watching(6)
    assert len(set(watched)) == 6
    assert chances.sum(axis=1) == pytest.approx(np.ones(6))
    assert all(chances[turn, film] == 0 for turn in range(6) for film in watched[:turn])
    document = watching_document(watched, chances, titles, [5, 6])
    assert document.ids == [5, 6, *(token for film in watched for token in titles[film])]
    # The first film cannot be foretold; of each other one the targets' chances multiply to its own.
    at: dict[int, dict[int, float]] = {}
    for position, token, weight in document.targets:
        at.setdefault(position, {})[token] = weight
    start = 2 + len(titles[watched[0]])
    assert min(at) == start - 1
    for turn, film in list(enumerate(watched))[1:]:
        chance = 1.0
        for depth, token in enumerate(titles[film]):
            weights = at[start - 1 + depth]
            chance *= weights[token] / sum(weights.values())
        assert chance == pytest.approx(chances[turn, film])
        start += len(titles[film])


def test_attention_begins_by_looking_for_what_is_alike() -> None:
    model = nano.build_model(shipped_tokenizer())
    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        assert torch.equal(attention.o_proj.weight, attention.v_proj.weight.T)
        assert torch.equal(attention.q_proj.weight, attention.k_proj.weight) == (number > 0)


def test_the_user_of_a_choice_is_near_what_is_likely() -> None:
    choices, vectors = TextSource(5).choices(["vectors"] * 50, [4] * 50, [20] * 50)
    tokenizer = prompt_tokenizer()
    nearest = 0
    for choice in choices:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit[[item.index for item in choice.prompt.candidates]] @ unit[choice.user]
        nearest += int(cosines.argmax() == np.argmax(choice.probabilities))
        assert prompt_ids(choice, tokenizer)[-1] == tokenizer.item_id(choice.user)
    assert nearest > 35, "the vectors are mixed latents, so most orders survive and not all"


def test_branches_see_their_prompt_and_themselves() -> None:
    """A document of several branches gives each answer the logits it has alone after the prompt."""
    torch.manual_seed(0)
    tokenizer = prompt_tokenizer()
    model = nano.build_model(shipped_tokenizer(), **TINY).eval()
    choices, vectors = some_choices()
    choice = next(c for c in choices if c.mode is PromptMode.HYBRID and len(c.probabilities) == 5)
    llara = LlaraModel(model, FixedItems(torch.randn(len(vectors), model.config.hidden_size) * 0.02))
    document = choice_document(choice, tokenizer, branched=[0, 3])
    batch = collate([document, repeated_document([5, 6], 0)], pad_id=1)
    with torch.no_grad():
        together = llara(batch.input_ids, batch.attention_mask, batch.position_ids)[0]
        start = len(document.ids)
        for branch in document.branches:
            ids = torch.tensor([document.ids + branch])
            alone = llara(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None])[0, len(document.ids) :]
            torch.testing.assert_close(together[start : start + len(branch)], alone, atol=1e-4, rtol=1e-4)
            start += len(branch)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = shipped_tokenizer()
    assert tokenizer.decode(prompt_tokenizer().encode_text(text)) == text


def test_titles_are_short_in_tokens() -> None:
    generator = TitleGenerator(random.Random(99))
    encode = prompt_tokenizer().encode_text
    titles = [title for domain in DOMAINS for title in generator.titles(domain, 250)]
    assert np.mean([len(encode(title)) for title in titles]) < 8


@pytest.mark.slow
def test_a_short_training_run_learns_and_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    output = tmp_path / "nano"
    log = nano.train_nano(output, max_steps=60, seed=1, tokenizer=shipped_tokenizer(), **TINY)
    assert log[1]["loss"] < log[0]["loss"] - 0.2  # means of steps 1 to 50 and 51 to 60
    written = [json.loads(line) for line in (output / nano.LOG_FILE).read_text().splitlines()]
    assert written == log
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]
    assert load_llm(str(output)).model.config.num_hidden_layers == TINY["num_hidden_layers"]


@pytest.mark.slow
def test_training_goes_on_from_a_folder_and_repeats_exactly(tmp_path: Path) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    began = nano.train_nano(first, max_steps=4, seed=1, tokenizer=shipped_tokenizer(), **TINY)
    went_on = nano.train_nano(second, max_steps=4, seed=2, start_from=first)
    assert went_on[0] == began[0]
    assert [record["step"] for record in went_on] == [4, 8]
    repeated = nano.train_nano(other, max_steps=4, seed=2, start_from=first)
    assert [record["loss"] for record in repeated] == [record["loss"] for record in went_on]
    assert (other / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_muon_steps_the_layers_matrices_and_adamw_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nano.build_model(shipped_tokenizer(), **TINY)
    everything = dict(model.named_parameters())
    (alone,) = nano._optimizers(model, 0.001, muon=False)
    assert len(alone.param_groups[0]["params"]) == len(everything)
    adamw, muon = nano._optimizers(model, 0.001, muon=True)
    stepped = {
        optimizer: {name for name, weights in everything.items() if any(weights is one for one in taken)}
        for optimizer in (adamw, muon)
        for taken in [optimizer.param_groups[0]["params"]]
    }
    assert stepped[muon] == {name for name in everything if name.endswith("_proj.weight")}
    assert stepped[adamw] == set(everything) - stepped[muon]
    # Orthogonal: a step goes about as far in every direction, whatever the gradient.
    queries = model.model.layers[0].self_attn.q_proj.weight
    before = queries.detach().clone()
    queries.grad = torch.randn(queries.shape) * torch.logspace(-1, 1, queries.shape[1])
    muon.step()
    went, asked = torch.linalg.svdvals(queries.detach() - before), torch.linalg.svdvals(queries.grad)
    assert asked.median() < 0.2 * asked.max()
    assert went.median() > 0.5 * went.max()
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match="no Muon"):
        nano._optimizers(model, 0.001, muon=True)


@pytest.mark.slow
def test_the_training_script_takes_muon(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    nano.train_nano(begun, max_steps=1, seed=1, tokenizer=shipped_tokenizer(), **TINY)
    shared = ["train", "--start-from", str(begun), "--max-steps", "2", "--learning-rate", "0.1", "--seed", "2"]
    weights = {}
    for name, options in (("plain", []), ("muon", ["--muon"])):
        result = CliRunner().invoke(nano.main, [*shared, "--output", str(tmp_path / name), *options])
        assert result.exit_code == 0, result.output
        weights[name] = load_llm(str(tmp_path / name)).model.state_dict()
    differ = {name for name in weights["plain"] if not torch.equal(weights["plain"][name], weights["muon"][name])}
    assert any("_proj" in name for name in differ)


def test_a_deeper_model_says_the_same_until_it_is_trained() -> None:
    tokenizer = shipped_tokenizer()
    torch.manual_seed(1)
    model = nano.build_model(tokenizer, **TINY)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.normal_(std=0.1)  # each layer makes a difference
    deeper = nano.deepen(model, TINY["num_hidden_layers"] + 2)
    ids = torch.randint(len(tokenizer), (2, 12))
    assert deeper.config.num_hidden_layers == TINY["num_hidden_layers"] + 2
    assert torch.equal(deeper(ids).logits, model(ids).logits)
    assert deeper.lm_head.weight is deeper.model.embed_tokens.weight
    deeper(ids, labels=ids).loss.backward()
    assert deeper.model.layers[-2].self_attn.o_proj.weight.grad.abs().sum() > 0, "the new layers can learn"
    assert deeper.model.layers[-2].mlp.down_proj.weight.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="more than 1"):
        nano.deepen(deeper, 1)


def test_wrong_input_of_the_training_script_gets_one_message(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    nano.save_nano(bare, nano.build_model(shipped_tokenizer(), **TINY), shipped_tokenizer(), [])
    output = tmp_path / "out"
    for options, exit_code, message in (
        (["--start-from", str(nano_folder()), "--layers", "1"], 2, "The model has 5 layers, more than 1"),
        (["--start-from", str(tmp_path)], 1, str(tmp_path)),
        (["--start-from", str(bare)], 1, f"{bare / nano.LOG_FILE}"),
    ):
        result = CliRunner().invoke(nano.main, ["train", "--output", str(output), *options])
        assert result.exit_code == exit_code, result.output
        assert message in result.stderr
    assert not output.exists()


@pytest.mark.slow
def test_a_training_may_begin_or_go_on_with_other_layers(tmp_path: Path) -> None:
    begun, deeper = tmp_path / "begun", tmp_path / "deeper"
    nano.train_nano(begun, max_steps=1, seed=1, layers=1, tokenizer=shipped_tokenizer(), intermediate_size=32)
    nano.train_nano(deeper, max_steps=1, seed=2, layers=3, start_from=begun)
    assert [load_llm(str(folder)).model.config.num_hidden_layers for folder in (begun, deeper)] == [1, 3]


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Each reads texts of its own; the weights stay equal because the gradients are averaged."""
    begun = tmp_path / "begun"
    nano.train_nano(begun, max_steps=1, seed=1, tokenizer=shipped_tokenizer(), **TINY)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from torch.nn.utils import parameters_to_vector\n"
        "from train import nano\n"
        "folder, norms, average = Path(sys.argv[1]), [], nano._average\n"
        "def watched(model, progress):\n"
        "    before = parameters_to_vector(p.grad for p in model.parameters())\n"
        "    average(model, progress)\n"
        "    after = parameters_to_vector(p.grad for p in model.parameters())\n"
        "    weights = parameters_to_vector(model.parameters())\n"
        "    norms.append((float(before.norm()), float(after.norm()), float(weights.norm())))\n"
        "    return progress\n"
        "nano._average = watched\n"
        "log = nano.train_nano(folder / 'nano', max_steps=3, seed=2, start_from=folder / 'begun')\n"
        "rank = os.environ['RANK']\n"
        "(folder / f'{rank}.txt').write_text(repr((norms, len(log))))\n"
    )
    run_in_processes(2, program, tmp_path, str(tmp_path))
    (first, logged), (second, unlogged) = (literal_eval((tmp_path / f"{rank}.txt").read_text()) for rank in "01")
    assert len(first) == len(second) == 3
    for (one, averaged, weights), (other, same, equal) in zip(first, second, strict=True):
        assert one != other
        assert (averaged, weights) == (same, equal)
    assert (logged, unlogged) == (2, 1), "the first process writes the log: one record more than there was"
    written = [json.loads(line)["step"] for line in (tmp_path / "nano" / nano.LOG_FILE).read_text().splitlines()]
    assert written == [1, 4]


def test_the_shipped_folder_is_whole_and_small() -> None:
    folder = nano_folder()
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert {"tokenizer_config.json", "README.md", "training_log.jsonl"} <= set(files)
    assert sum(files.values()) <= 8 * 2**20
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "train.nano" in card
    assert "license: mit" in card


def test_the_shipped_model_loads_and_reads_every_packaged_template() -> None:
    llm = load_llm("nano")
    assert 1_000_000 <= sum(parameter.numel() for parameter in llm.model.parameters()) <= 4_000_000
    assert llm.model.config.max_position_embeddings >= 1024
    assert llm.tokenizer.eos_token_id is not None
    tokenizer = prompt_tokenizer()
    assert tokenizer.prefix_ids == []
    for domain in DOMAINS:
        assert len(tokenizer.encode_text(find_template(domain).prompt)) < 60


@pytest.mark.slow
def test_the_shipped_model_answers_with_candidates_and_chooses_by_vectors() -> None:
    result = evaluate_nano(nano_folder(), rows=200)
    assert result["valid_ratio"] >= 0.96
    # What keyed prompts rest on: to find a title by a vector that is like its key.
    vectors = result["choosing"]["vectors"]
    assert vectors["chosen"] > 6 * vectors["chance"]
    for world in ("sequels", "films", "film-vectors"):
        assert result["choosing"][world]["chosen"] > 4 * vectors["chance"], world
