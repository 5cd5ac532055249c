"""Prompt templates, one TOML file each: packaged ones by domain, and the user's own.

A template file holds::

    description = "Movies: one title a line"
    separator = "\\n"
    prompt = '''
    ... {history} ... {num_candidates} ... {candidates} ...
    '''

and, if it should, ``candidate_token = "before"`` and ``{user}`` somewhere in the prompt. Any template also comes in
a form that has both: ``movie-keyed`` is ``movie`` with each candidate's behaviour token before its title, and the
user's token where the answer begins; and in one without the user's token: ``movie-keyed-no-user``.
"""

from __future__ import annotations

import string
import tomllib
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from llara_app import locations
from llara_app.errors import NotFoundError, UsageError

FIELDS = ("history", "candidates", "num_candidates", "user")
FALLBACK = "item"
"""The template for a domain that has none of its own."""

KEYED = "-keyed"
"""At the end of a template's name: its keyed form (:meth:`PromptTemplate.keyed`)."""

NO_USER = "-no-user"
"""At the end of a template's name: its form without the user's token (:meth:`PromptTemplate.without_user`)."""


class PromptTemplate(BaseModel):
    """The words around the items.

    Attributes:
        name: the file's name without its ending, and the domain it is for.
        separator: what stands between two items.
        prompt: the whole prompt; ``{history}`` and ``{candidates}`` are filled with items, ``{num_candidates}`` with
            their number. The LLM's answer follows it directly. Where ``{user}`` stands, hybrid and behaviour prompts
            show the user's token: the encoder's representation of the whole history, projected.
        candidate_token: where the behaviour token of a candidate stands: ``after`` its title, as in the paper, or
            ``before`` it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    separator: str = "\n"
    prompt: str
    candidate_token: Literal["after", "before"] = "after"

    @field_validator("prompt")
    @classmethod
    def _check_fields(cls, prompt: str) -> str:
        fields = [field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None]
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"unknown field {{{unknown[0]}}}; known: {', '.join(FIELDS)}")
        for required in ("history", "candidates"):
            if fields.count(required) != 1:
                raise ValueError(f"{{{required}}} must stand in the prompt exactly once")
        if fields.count("user") > 1:
            raise ValueError("{user} can stand in the prompt only once")
        return prompt

    @property
    def has_user(self) -> bool:
        """Whether prompts show the user's token."""
        return any(field == "user" for _, field in self.parts)

    def keyed(self) -> PromptTemplate:
        """This template as a table to look up: behaviour tokens are keys, titles are what they stand for.

        A candidate reads ``[behaviour token] title``, and the prompt ends with the user's token, the key of the item
        to come as far as the encoder knows it. To answer is then to find the key that is most like the last token
        and to read on behind it: what attention learns first ("induction heads", Olsson et al., 2022), so that even
        a very small LLM can choose by behaviour.
        """
        prompt = self.prompt if self.has_user else self.prompt + "{user}"
        return self._form(name=self.name + KEYED, prompt=prompt, candidate_token="before")

    def without_user(self) -> PromptTemplate:
        """The same words without the user's token: the LLM knows the encoder by its items alone, as in the paper."""
        kept = (
            literal.replace("{", "{{").replace("}", "}}") + (f"{{{field}}}" if field not in (None, "user") else "")
            for literal, field in self.parts
        )
        return self._form(name=self.name + NO_USER, prompt="".join(kept))

    def _form(self, **changed: str) -> PromptTemplate:
        # Not model_copy: it would keep the parts of the other prompt.
        return PromptTemplate.model_validate({**self.model_dump(), **changed})

    @cached_property
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """``(literal text, field that follows it)`` in reading order."""
        return tuple((literal, field) for literal, field, _, _ in string.Formatter().parse(self.prompt))


def _packaged() -> Traversable:
    return resources.files("llara_app.prompts") / "templates"


def list_templates() -> list[PromptTemplate]:
    """All templates, the user's own in place of packaged ones of the same name."""
    return [_load(name, file) for name, file in sorted(_files().items())]


def _files() -> dict[str, Traversable | Path]:
    """Where templates lie, by name; one that is broken is in the way of nobody who asks for another."""
    files: dict[str, Traversable | Path] = {
        Path(file.name).stem: file for file in _packaged().iterdir() if file.name.endswith(".toml")
    }
    own = locations.templates()
    if own.is_dir():
        files.update({file.stem: file for file in sorted(own.glob("*.toml"))})
    return files


def find_template(name: str, *, fallback: bool = False) -> PromptTemplate:
    """The template called `name`.

    Args:
        name: a template's name or the path of a TOML file, with ``-keyed`` behind it for its keyed form and
            ``-no-user`` for the one without the user's token.
        fallback: give the ``item`` template where there is none of that name.

    Raises:
        NotFoundError: there is no such template.
        UsageError: the template's file is not a template.
    """
    files = _files()
    if name in files:
        return _load(name, files[name])
    if name.endswith(NO_USER):
        return find_template(name.removesuffix(NO_USER), fallback=fallback).without_user()
    if name.endswith(KEYED):
        return find_template(name.removesuffix(KEYED), fallback=fallback).keyed()
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise NotFoundError(f"No template file {name!r}", "", "Give a template's name or a TOML file.")
        return _load(path.stem, path)
    if fallback:
        return _load(FALLBACK, files[FALLBACK])
    raise NotFoundError.of("prompt template", name, sorted(files))


def plain_form(name: str) -> str:
    """The name of the template that `name` is the keyed form of, with or without the user's token.

    It is `name` itself where that is the form of no other: a user's own file may be called ``mine-keyed``.
    """
    plain = name.removesuffix(NO_USER).removesuffix(KEYED)
    known = plain.endswith(".toml") or plain in _files()
    return plain if known else name


def _load(name: str, file: Traversable | Path) -> PromptTemplate:
    hint = f"See {_packaged()} for the form: description, separator, prompt."
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        if "name" in document:
            raise UsageError("This prompt template is wrong", f"{file}: name: a template is called as its file", hint)
        return PromptTemplate.model_validate({"name": name, **document})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("This prompt template is not valid TOML", f"{file}: {error}", hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError("This prompt template is wrong", f"{file}: {where}: {first['msg']}", hint) from error
