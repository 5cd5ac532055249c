"""What a fine-tuning run is made of: the model, its optimizer and its examples; and how its bundle describes it."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llara_app.catalogue import Catalogue
from llara_app.encoders import EncoderManifest, load_encoder
from llara_app.errors import DataError
from llara_app.models.bundle import describe_llm, package_versions
from llara_app.models.item_vocabulary import ProjectedItems, Projector
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import LLM, quiet_transformers
from llara_app.models.manifest import DatasetPart, Manifest
from llara_app.models.users import ProjectedUsers
from llara_app.prompts import PromptMode, PromptTemplate, PromptTokenizer, find_template
from llara_app.sequences import MAX_HISTORY
from llara_app.store import Store
from train.alignment import AlignmentLists
from train.batches import PromptDataset, steps_per_epoch
from train.config import FinetuneConfig, RunSpec
from train.curriculum import Curriculum
from train.teacher import Teacher


def build_model(spec: RunSpec, llm: LLM, catalogue: Catalogue) -> LlaraModel:
    """The LLM with fresh LoRA weights, and a fresh projector over the encoder's frozen items.

    Raises:
        BundleError: the encoder knows another catalogue, or learned from other interactions.
    """
    config = spec.config
    encoder, encoder_manifest = load_encoder(Path(spec.encoder))
    encoder_manifest.require_data(spec.dataset, catalogue.hash, spec.dataset_hash)
    torch.manual_seed(config.seed)
    words = llm.model.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    projector = Projector(encoder.hidden_size, words.embedding_dim)
    items = ProjectedItems(encoder.item_embeddings(), projector)
    items.match_words(words)
    users = ProjectedUsers.beside(items, encoder) if find_template(spec.template).has_user else None
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with quiet_transformers():
        peft_model = get_peft_model(llm.model, lora)
    # What the adapter belongs to is the bundle manifest's to say, not a path of the machine it was trained on.
    peft_model.peft_config["default"].base_model_name_or_path = llm.name
    if config.gradient_checkpointing:
        llm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return LlaraModel(peft_model, items, users).to(llm.model.device)


def learned_from(llm: LLM, template: PromptTemplate) -> dict[str, object]:
    """What the names in a run's spec stand for, JSON-serialisable: files may be replaced while it waits."""
    return {"llm": llm.revision or llm.fingerprint, "template": template.model_dump(mode="json")}


def make_optimizer(model: LlaraModel, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW over the LoRA weights and the projectors; only the projectors decay."""
    items = model.item_vocabulary.items
    assert isinstance(items, ProjectedItems)
    projectors = [*items.projector.parameters(), *(model.users.projector.parameters() if model.users else ())]
    lora = [parameter for parameter in model.llm.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": lora, "peak": config.learning_rate, "weight_decay": 0.0},
            {
                "params": projectors,
                "peak": config.projector_learning_rate or config.learning_rate,
                "weight_decay": config.weight_decay,
            },
        ],
        lr=config.learning_rate,
    )


def make_dataset(store: Store, spec: RunSpec, catalogue: Catalogue, llm: LLM, model: LlaraModel) -> PromptDataset:
    """The training examples, along a curriculum of as many steps as the run has.

    Raises:
        DataError: there is nothing to train on, there are too few items to draw candidates from, or the dataset has
            changed since the run began.
    """
    config = spec.config
    info = store.dataset(spec.dataset)
    if info.hash != spec.dataset_hash:
        raise DataError(
            f"The dataset {spec.dataset!r} is not the one that this run began with",
            f"hash {info.hash[:12]}, the run has {spec.dataset_hash[:12]}",
            "Import the original data again, or start a new run.",
        )
    rows = store.split(spec.dataset, spec.protocol, "train").expanded(spec.min_history)
    if len(rows) == 0:
        raise DataError(
            f"The dataset {spec.dataset!r} has nothing to train on",
            f"no history of protocol {spec.protocol!r} has more than {spec.min_history} items",
            "Import more interactions, or choose another --protocol.",
        )
    total_steps = max(1, round(config.epochs * steps_per_epoch(len(rows), config.batch_size)))
    if config.max_steps is not None:
        total_steps = min(total_steps, config.max_steps)
    limits = [limit for limit in (config.max_length, model.context_length) if limit is not None]
    return PromptDataset(
        catalogue,
        store.sequences(spec.dataset),
        rows,
        Curriculum(config.curriculum, total_steps, config.seed, config.easy_mode, config.hard_mode),
        find_template(spec.template),
        PromptTokenizer(llm.tokenizer, model.vocabulary_size, len(catalogue)),
        num_candidates=config.num_candidates,
        thinning=config.thinning,
        thinning_steps=config.thinning_steps,
        max_length=min(limits, default=None),
        encoder_history=MAX_HISTORY if model.users is None else model.users.encoder.max_history,
    )


def make_teacher(dataset: PromptDataset, config: FinetuneConfig, model: LlaraModel) -> Teacher | None:
    """The encoder as a teacher; None where no prompt has a user token, or nothing is to be taught."""
    shows_users = dataset.curriculum.modes & {PromptMode.BEHAVIOUR, PromptMode.HYBRID}
    if model.users is None or not shows_users or not (config.alignment_steps or config.distillation):
        return None
    # Wherever a user is shown, answers are titles.
    answers = [dataset.prompt_tokenizer.encode_answer(item, PromptMode.HYBRID) for item in dataset.catalogue]
    beginnings = torch.tensor([answer[0] for answer in answers])
    user_id = dataset.prompt_tokenizer.user_id
    return Teacher(model.users.encoder, beginnings, user_id, config.distillation, config.distillation_steps)


def make_alignment(dataset: PromptDataset, config: FinetuneConfig, teacher: Teacher | None) -> AlignmentLists | None:
    """The steps before the curriculum; None where nobody teaches, or none are asked for."""
    if teacher is None or not config.alignment_steps:
        return None
    return AlignmentLists(dataset, teacher, min(config.alignment_steps, dataset.curriculum.total_steps))


def describe_run(
    store: Store, spec: RunSpec, llm: LLM, model: LlaraModel, template: PromptTemplate, total_steps: int
) -> Manifest:
    """The manifest of the bundle that a run leaves."""
    info = store.dataset(spec.dataset)
    items = model.item_vocabulary.items
    assert isinstance(items, ProjectedItems)
    return Manifest(
        created="",
        dataset=DatasetPart(
            name=info.name,
            domain=info.domain,
            hash=info.hash,
            catalogue_hash=store.catalogue(spec.dataset).hash,
            protocol=spec.protocol,
            num_users=info.num_users,
            num_items=info.num_items,
            num_interactions=info.num_interactions,
        ),
        encoder=EncoderManifest.read(Path(spec.encoder)).config.architecture,
        item_size=items.projector.item_size,
        llm=describe_llm(llm),
        template=template,
        curriculum=spec.config.curriculum,
        modes=(spec.config.easy_mode, spec.config.hard_mode),
        num_candidates=spec.config.num_candidates,
        max_history=spec.max_history,
        seed=spec.config.seed,
        training={**spec.config.model_dump(mode="json"), "total_steps": total_steps},
        versions=package_versions(),
    )
