"""The paper's three questions as designs.

RQ1: how does LLaRA do beside sequential recommenders and LLMs? RQ2: what does each part of the hybrid prompt give?
RQ3: what does the curriculum give? (Paper, sections 4.2 to 4.4.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llara_app.encoders import ARCHITECTURES, find_encoder, load_encoder
from llara_app.encoders.configs import MOREC
from llara_app.errors import UsageError
from llara_app.models.llm import NANO, fingerprint, nano_folder
from llara_app.prompts import PromptMode, PromptTemplate, find_template
from llara_app.prompts.templates import NO_USER, plain_form
from llara_app.store import Store
from train.config import FinetuneConfig, RunSpec
from train.encoders import TUNED, EncoderTraining
from train.experiments.chat import ChatModel
from train.experiments.parts import (
    EncoderPart,
    Finetuning,
    GivenEncoder,
    LLMChoice,
    RandomEncoder,
    TrainedEncoder,
    TrainedMoRec,
    architecture_label,
)
from train.experiments.plan import Answers, Comparison, Data, Design, Question, Reads, System
from train.experiments.subjects import AskedChat, BareLLM, EncoderAlone, FinetunedLLM

ZERO_SHOT = "bare LLM, zero-shot"
TALLREC = "TALLRec"
PAPERS_CHAT = "GPT-4"
"""The chat model of the paper."""

HYBRID = "hybrid"
WITHOUT_USER = "hybrid without the user token"
UNALIGNED = "hybrid without alignment"
UNTAUGHT = "hybrid without distillation"
ALIGNED_LONGER = (
    "Alignment comes before the curriculum and adds to its steps: systems without a user token, the one without "
    "alignment and the one with random embeddings were trained for fewer."
)
PAPERS_PROMPT = "hybrid, the paper's prompt"
CURRICULUM = "curriculum, linear"
SCHEDULED = ("root", "cosine", "step")
"""Curricula beyond the paper's linear one."""

READS: dict[PromptMode, Reads] = {
    PromptMode.INDEX: "text",
    PromptMode.TEXT: "text",
    PromptMode.BEHAVIOUR: "behaviour",
    PromptMode.HYBRID: "hybrid",
}


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder by its label, with one part for each training seed."""

    label: str
    parts: tuple[EncoderPart, ...]


@dataclass(frozen=True)
class Study:
    """What all systems of an experiment share.

    Attributes:
        template_name: a template's name, or its file.
        config: of fine-tuning, its seed aside.
        seeds: of training; each trains its own encoder, projector and LoRA weights.
        greedy: also ask LLMs for one greedy answer, as the paper does.
    """

    data: Data
    asked: Question
    llm: LLMChoice
    template_name: str
    template: PromptTemplate
    encoders: tuple[EncoderChoice, ...]
    config: FinetuneConfig
    seeds: tuple[int, ...]
    greedy: bool

    @property
    def answers(self) -> tuple[Answers, ...]:
        """How LLMs are asked."""
        return ("rank", "generate") if self.greedy else ("rank",)

    def settings(self) -> dict[str, object]:
        """Everything that was asked for, JSON-serialisable; places on this machine are not told."""
        return {
            **asdict(self.data),
            **asdict(self.asked),
            "llm": _shown(self.llm.name),
            "llm_content": dict(self.llm.content),
            "template_name": _shown(self.template_name),
            "template": self.template.model_dump(mode="json"),
            "encoders": {choice.label: [part.name for part in choice.parts] for choice in self.encoders},
            "config": self.config.model_dump(mode="json"),
            "training_seeds": list(self.seeds),
            "greedy": self.greedy,
        }


def _shown(name: str) -> str:
    """A name as it is; of a place on this machine the last part, which tells others as much."""
    return Path(name).name if Path(name).is_absolute() else name


def llm_choice(name: str, revision: str | None, precision: str) -> LLMChoice:
    """An LLM by name, with the fingerprint of its files where it lies in a folder."""
    folder = nano_folder() if name == NANO else Path(name)
    if name != NANO and folder.is_dir():
        name = str(folder.resolve())
    known = fingerprint(folder) if (folder / "config.json").is_file() else ""
    return LLMChoice(name, revision, known, precision)


def encoder_choice(
    store: Store, data: Data, name: str, seeds: Sequence[int], max_epochs: int | None = None
) -> EncoderChoice:
    """An encoder that a person names: an architecture, trained anew for each seed, or one that is there.

    Raises:
        NotFoundError: there is no such encoder.
        BundleError: it was trained on another catalogue or other interactions, or is damaged.
        UsageError: it learned from another split, whose training rows hold this one's test items.
    """
    if name in ARCHITECTURES:
        parts = tuple(TrainedEncoder(data, name, training) for training in _trainings(name, seeds, max_epochs))
        return EncoderChoice(architecture_label(name), parts)
    folder = find_encoder(name, data.dataset)
    _, manifest = load_encoder(folder)
    manifest.require_data(data.dataset, store.catalogue(data.dataset).hash, data.hash)
    protocol = manifest.training.get("protocol", data.protocol)
    if protocol != data.protocol:
        raise UsageError(
            "The encoder was trained on another split",
            f"{folder.name} learned from the {protocol!r} split, which holds test items of {data.protocol!r}",
            f"Pass --protocol {protocol}, or name an architecture.",
        )
    given = GivenEncoder(folder.resolve(), manifest.weights_sha256, manifest.config.hidden_size)
    label = f"{architecture_label(manifest.trained_as)} {folder.name}"
    return EncoderChoice(label, (given,) * len(seeds))


def morec_choice(
    data: Data,
    text_encoder: LLMChoice,
    seeds: Sequence[int],
    max_epochs: int | None = None,
    *,
    end_to_end: bool = False,
) -> EncoderChoice:
    """MoRec, trained anew for each seed."""
    trainings = _trainings(MOREC, seeds, max_epochs)
    parts = tuple(TrainedMoRec(data, MOREC, training, text_encoder, end_to_end) for training in trainings)
    return EncoderChoice(architecture_label(MOREC), parts)


def rq1(study: Study, morec: EncoderChoice | None = None, chat: ChatModel | None = None) -> Design:
    """All systems of the paper's Table 1: LLaRA on each encoder, the encoders alone, and readers of titles alone.

    Args:
        morec: by default MoRec over the hidden states of the study's own LLM.
        chat: in the place of the paper's GPT-4; without one the report says that nobody was asked.
    """
    alone = [_alone(choice, "behaviour") for choice in study.encoders]
    morec = morec or morec_choice(study.data, study.llm, study.seeds)
    bare = System(ZERO_SHOT, "text", (BareLLM(study.llm, study.template),), study.answers, "Llama-2, zero-shot")
    chats = (
        [System(f"chat model {chat.name}", "text", (AskedChat(chat, study.template),), ("generate",), PAPERS_CHAT)]
        if chat is not None
        else []
    )
    first = study.encoders[0]
    tallrec = finetuned(study, first, TALLREC, "text", PromptMode.TEXT)
    llara = [
        finetuned(study, choice, f"LLaRA ({choice.label})", study.config.curriculum) for choice in study.encoders
    ]
    baselines = [bare, *chats, _alone(morec, "text"), tallrec]
    return _design(
        study,
        "rq1",
        "LLaRA beside sequential recommenders and LLMs",
        "Does an LLM that reads titles and behaviour recommend better than an encoder, or an LLM, alone?",
        "Paper: LLaRA on each encoder > TALLRec > encoders alone > zero-shot LLM, on all three datasets; MoRec and "
        "GPT-4 lie below TALLRec.",
        [*alone, *baselines, *llara],
        [
            Comparison(ours.name, other.name)
            for ours, own in zip(llara, alone, strict=True)
            for other in (own, *baselines)
        ],
        baselines={
            "morec": [part.name for part in morec.parts],
            "chat": dict(chat.content) if chat is not None else None,
        },
        not_asked=() if chat is not None else (PAPERS_CHAT,),
    )


def rq2(study: Study) -> Design:
    """What each part of the hybrid prompt gives; random item embeddings tell meaning from mere extra tokens.

    Where the template shows the user's token, hybrid prompts without it are one more system, those of the paper where
    the template is another form of them, those whose projectors were not aligned first, and those of which the
    encoder taught no answer. An encoder that knows nothing teaches nothing.
    """
    (choice,) = study.encoders
    noise = EncoderChoice(
        "random",
        tuple(
            RandomEncoder(study.data, part.item_size, seed)
            for part, seed in zip(choice.parts, study.seeds, strict=True)
        ),
    )
    random = "hybrid with random embeddings"
    single = [
        finetuned(study, choice, mode.value, "text" if mode is PromptMode.TEXT else "direct", mode)
        for mode in (PromptMode.INDEX, PromptMode.TEXT, PromptMode.BEHAVIOUR)
    ]
    untaught = study.config.model_copy(update={"alignment_steps": 0, "distillation": 0.0})
    controls = [finetuned(replace(study, config=untaught), noise, random, study.config.curriculum)]
    forms = {WITHOUT_USER: study.template_name + NO_USER} if study.template.has_user else {}
    plain = plain_form(study.template_name)
    if plain != study.template_name:
        forms[PAPERS_PROMPT] = plain
    for name, template in forms.items():
        other = replace(study, template_name=template, template=find_template(template))
        controls.append(finetuned(other, choice, name, study.config.curriculum))
    note = ""
    if study.template.has_user and study.config.alignment_steps:
        other = replace(study, config=study.config.model_copy(update={"alignment_steps": 0}))
        controls.append(finetuned(other, choice, UNALIGNED, study.config.curriculum))
        note = f" {ALIGNED_LONGER}"
    if study.template.has_user and study.config.distillation:
        other = replace(study, config=study.config.model_copy(update={"distillation": 0.0}))
        controls.append(finetuned(other, choice, UNTAUGHT, study.config.curriculum))
    hybrid = finetuned(study, choice, HYBRID, study.config.curriculum)
    return _design(
        study,
        "rq2",
        "What each part of the hybrid prompt gives",
        "How well does the LLM rank when items are shown by index, title, behaviour token, or title and token?",
        "Paper (figure only): hybrid > behaviour token alone, text alone, index, on all three datasets." + note,
        [*single, *controls, hybrid],
        [
            *(Comparison(HYBRID, other.name) for other in single),
            *(Comparison(HYBRID, other.name, in_paper=False) for other in controls),
        ],
    )


def rq3(study: Study) -> Design:
    """What the curriculum gives, against other ways to train on the same hybrid prompts."""
    (choice,) = study.encoders
    ways = {
        "direct": ("direct", "direct"),
        "two-stage": ("two-stage", "two-stage"),
        "multi-task": ("multi-task", None),
        CURRICULUM: ("linear", "curriculum"),
        **{f"curriculum, {name}": (name, None) for name in SCHEDULED},
    }
    systems = [
        replace(finetuned(study, choice, name, schedule), paper=paper) for name, (schedule, paper) in ways.items()
    ]
    return _design(
        study,
        "rq3",
        "What the curriculum gives",
        "Does moving from text to hybrid prompts during training beat other ways to train on both?",
        "Paper: curriculum >= direct, two-stage.",
        systems,
        [
            *(Comparison(CURRICULUM, other) for other in ("direct", "two-stage")),
            Comparison(CURRICULUM, "multi-task", in_paper=False),
            *(Comparison(f"curriculum, {name}", "direct", in_paper=False) for name in SCHEDULED),
        ],
    )


def finetuned(
    study: Study, choice: EncoderChoice, name: str, schedule: str, mode: PromptMode | None = None
) -> System:
    """The LLM fine-tuned on one encoder, for each training seed.

    Args:
        schedule: of p(tau), between text and hybrid prompts.
        mode: train on prompts of this mode alone instead.
    """
    modes = {} if mode is None else {"easy_mode": mode, "hard_mode": mode}
    subjects = []
    for encoder, seed in zip(choice.parts, study.seeds, strict=True):
        config = study.config.model_copy(update={**modes, "curriculum": schedule, "seed": seed})
        spec = RunSpec(
            dataset=study.data.dataset,
            dataset_hash=study.data.hash,
            protocol=study.data.protocol,
            llm=study.llm.name,
            revision=study.llm.revision,
            encoder=encoder.name,
            template=study.template_name,
            config=config,
        )
        subjects.append(FinetunedLLM(Finetuning(spec, encoder, study.llm, study.template)))
    reads = READS[mode or PromptMode.HYBRID]
    return System(name, reads, tuple(subjects), study.answers, name)


def _trainings(name: str, seeds: Sequence[int], max_epochs: int | None) -> list[EncoderTraining]:
    """The tuned settings of an encoder for each seed."""
    tuned = TUNED[name]
    if max_epochs is not None:
        tuned = replace(tuned, max_epochs=max_epochs)
    return [replace(tuned, seed=seed) for seed in seeds]


def _alone(choice: EncoderChoice, reads: Reads) -> System:
    """An encoder without any LLM."""
    return System(choice.label, reads, _once([EncoderAlone(part) for part in choice.parts]), ("rank",), choice.label)


def _once(subjects: Sequence[EncoderAlone]) -> tuple[EncoderAlone, ...]:
    """The same encoder for every seed is one measurement, not several."""
    return tuple(dict.fromkeys(subjects))


def _design(
    study: Study,
    name: str,
    title: str,
    question: str,
    expected: str,
    systems: Sequence[System],
    comparisons: Sequence[Comparison],
    *,
    baselines: Mapping[str, object] | None = None,
    not_asked: tuple[str, ...] = (),
) -> Design:
    settings = {"experiment": name, "systems": [system.name for system in systems], **study.settings()}
    return Design(
        name,
        title,
        question,
        expected,
        study.data,
        study.asked,
        tuple(systems),
        tuple(comparisons),
        {**settings, "baselines": dict(baselines)} if baselines is not None else settings,
        not_asked,
    )
