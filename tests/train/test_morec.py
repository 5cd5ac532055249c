"""MoRec: items from their titles, and a plain SASRec in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import AutoModel, BertConfig, BertModel, T5Config, T5Model

from llara_app.encoders import SASRecConfig
from llara_app.encoders.sasrec import SASRec
from llara_app.errors import LlaraError, UsageError
from llara_app.models.llm import LLM, load_llm
from tests.small_world import NUM_ITEMS, World, make_world
from tests.tiny_llm import make_llm, make_tokenizer
from train import morec
from train.encoders import EncoderTraining
from train.morec import MoRec, TitleReader, TitleTable, TitleTraining, train_morec

QUICK = EncoderTraining(hidden_size=16, max_epochs=2, thinning=0.0, learning_rate=1e-2, dropout=0.0)

TITLES = [
    "Heat (1995)",
    "A",
    "GoldenEye (1995) " * 6,
    "",
    "Le Fabuleux destin d'Amélie Poulain (2001)",
    "Heat </s> (1995)",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text encoder that wants a special token on either side."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = make_tokenizer(bos=False)
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ends
    )
    shapes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **shapes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "gpt2", "bert"])
def text_encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bert: Path) -> LLM:
    folder = bert if request.param == "bert" else make_llm(tmp_path_factory.mktemp("llm"), request.param)
    return load_llm(str(folder), dtype=torch.float32, auto_class=AutoModel)


def test_a_title_is_the_mean_of_its_own_tokens_states(text_encoder: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read alone and without padding, each gives the same; special tokens at its ends are not counted."""
    monkeypatch.setattr(morec, "TITLES_AT_ONCE", 4)
    with torch.no_grad():
        read = TitleReader(text_encoder, TITLES)()
    assert read.shape == (len(TITLES), 32)
    tokenizer = text_encoder.tokenizer
    for place, title in enumerate(TITLES):
        own = tokenizer(title.strip() or "Untitled", add_special_tokens=False, split_special_tokens=True).input_ids
        whole = tokenizer(title.strip() or "Untitled", split_special_tokens=True).input_ids
        first = whole.index(own[0], 1) if len(whole) > len(own) else 0
        assert whole[first : first + len(own)] == own
        with torch.no_grad():
            states = text_encoder.model(input_ids=torch.tensor([whole])).last_hidden_state[0]
        torch.testing.assert_close(read[place], states[first : first + len(own)].mean(dim=0), atol=1e-5, rtol=1e-4)
    assert (read.std(dim=0) > 1e-3).all(), "titles that read alike would prove nothing"


def test_what_looks_like_a_special_token_is_read_as_text(text_encoder: LLM) -> None:
    with torch.no_grad():
        read = TitleReader(text_encoder, ["Heat </s>", "Heat"])()
    assert not torch.allclose(read[0], read[1])
    marked = text_encoder.tokenizer("Heat </s>", split_special_tokens=True).input_ids
    assert marked.count(text_encoder.tokenizer.eos_token_id) <= 1, "none but the tokenizer's own at the end"


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    shapes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    tokenizer = make_tokenizer(bos=False)
    T5Model(T5Config(vocab_size=len(tokenizer), **shapes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text_encoder = load_llm(str(tmp_path), auto_class=AutoModel)
    with pytest.raises(UsageError, match="cannot read titles"):
        TitleReader(text_encoder, ["Heat"])


def histories() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[1, 2, 3], [4, -1, -1]]), torch.tensor([3, 1])


def test_the_plain_sasrec_gives_the_same_scores() -> None:
    torch.manual_seed(0)
    table = TitleTable(torch.randn(12, 32) * 3 + 5, 8)
    assert table.weight.std().item() == pytest.approx(morec.ITEM_SPREAD)
    made = MoRec(SASRecConfig(num_items=12, hidden_size=8), table)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    made.eval()
    plain = made.as_sasrec()
    assert type(plain) is SASRec
    torch.testing.assert_close(plain(*histories()), made(*histories()))
    torch.testing.assert_close(plain.item_embeddings(), made.item_embeddings())
    assert not plain.training
    assert not any(parameter.requires_grad for parameter in plain.parameters())


def test_titles_are_projected_anew_after_every_step() -> None:
    made = MoRec(SASRecConfig(num_items=12, hidden_size=8, dropout=0.0), TitleTable(torch.randn(12, 32), 8)).train()
    optimizer = torch.optim.SGD([each for each in made.parameters() if each.requires_grad], lr=0.1)
    seen = []
    for _ in range(2):
        logits, _ = made.training_logits(*histories(), torch.tensor([[2, 3, 4], [5, -1, -1]]))
        seen.append(made.item_table.weight.detach().clone())
        optimizer.zero_grad()
        logits.square().sum().backward()
        optimizer.step()
    assert not torch.equal(seen[0], seen[1])
    with torch.inference_mode():
        made.eval()
        scored = made.item_table.weight
    assert not torch.equal(scored, seen[1]), "not what the last step began with"
    assert made.train().item_table.weight.requires_grad


def run(world: World, titles: TitleTraining) -> tuple[SASRec, float, dict[str, object]]:
    store = world.store
    train, valid = (store.split("small", "leave-one-out", part) for part in ("train", "valid"))
    losses: list[float] = []
    encoder, _, made_from = train_morec(
        store.catalogue("small"),
        store.sequences("small"),
        train,
        valid,
        titles,
        QUICK,
        lambda epoch: losses.append(epoch.loss),
    )
    assert losses[-1] < losses[0]
    return encoder, losses[-1], made_from


def test_a_frozen_text_encoder(world: World) -> None:
    titles = TitleTraining(str(world.llm))
    encoder, loss, made_from = run(world, titles)
    assert type(encoder) is SASRec
    assert encoder.num_items == NUM_ITEMS
    assert not encoder.output_bias.any(), "nothing belongs to one item"
    assert made_from["text_encoder"] == str(world.llm)
    assert made_from["text_size"] == 32
    # A seed repeats it.
    again, same_loss, _ = run(world, titles)
    assert loss == same_loss
    assert torch.equal(encoder.item_embeddings(), again.item_embeddings())


def test_training_end_to_end_moves_the_text_encoder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[LLM] = []
    optimizers: list[torch.optim.Optimizer] = []

    def load(*arguments: object, **options: object) -> LLM:
        loaded.append(load_llm(*arguments, **options))  # type: ignore[arg-type]
        return loaded[-1]

    class Remembered(torch.optim.AdamW):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            optimizers.append(self)

    monkeypatch.setattr(morec, "load_llm", load)
    monkeypatch.setattr(torch.optim, "AdamW", Remembered)
    before = load_llm(str(world.llm), dtype=torch.float32, auto_class=AutoModel).model.state_dict()
    run(world, TitleTraining(str(world.llm)))
    for name, tensor in loaded[-1].model.state_dict().items():
        assert torch.equal(tensor, before[name]), "frozen"
    run(world, TitleTraining(str(world.llm), end_to_end=True, text_learning_rate=1e-3))
    moved = [name for name, tensor in loaded[-1].model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert {"layers.0.mlp.down_proj.weight", "norm.weight"} <= set(moved)
    rates = [(group["lr"], len(group["params"])) for group in optimizers[-1].param_groups]
    assert [rate for rate, _ in rates] == [QUICK.learning_rate, 1e-3]
    assert rates[1][1] == len(list(loaded[-1].model.parameters()))


def test_a_text_encoder_that_is_not_there(world: World) -> None:
    with pytest.raises(LlaraError, match="No text encoder folder"):
        run(world, TitleTraining("./absent"))
