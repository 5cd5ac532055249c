"""The README of an export: what lies there, how good it is, and the exact commands to serve it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from llara_app.catalogue import Catalogue
from llara_app.files import write_whole
from llara_app.models.manifest import Manifest
from llara_app.prompts import build_prompt
from llara_app.prompts.served_text import served_text
from train.export.record import ExportRecord

CARD_FILE = "README.md"
EXAMPLE_HISTORY, EXAMPLE_CANDIDATES = 3, 4


def write_card(
    folder: Path,
    manifest: Manifest,
    catalogue: Catalogue,
    record: ExportRecord,
    files: Mapping[str, Path],
    special_tokens: Sequence[str] = (),
) -> None:
    """Write the README of the export in `folder`.

    Args:
        files: the GGUF files, by what they are called.
        special_tokens: the texts of the LLM's own special tokens.
    """
    has_baked = "baked" in record.artifacts
    parts = [
        _heading(manifest),
        _contents(record, files),
        _figures(record),
        _ours(files),
        _baked(manifest, catalogue, files, special_tokens) if has_baked else _not_baked(manifest),
        _new_items(),
        _rights(manifest),
    ]
    write_whole(folder / CARD_FILE, "\n\n".join(part.strip() for part in parts if part) + "\n")


def _heading(manifest: Manifest) -> str:
    dataset, llm = manifest.dataset, manifest.llm
    return f"""
# LLaRA on {dataset.name}

Recommends the next item with an LLM that reads titles and behaviour tokens ({manifest.mode} prompts).

| | |
|---|---|
| dataset | {dataset.name}: {dataset.num_users:,} users, {dataset.num_items:,} items |
| LLM | {Path(llm.name).name} ({llm.architecture}, {llm.vocabulary_size:,} words) |
| encoder | {manifest.encoder} |
| curriculum | {manifest.curriculum} |
| candidates in a prompt | {manifest.num_candidates} |
| catalogue hash | `{dataset.catalogue_hash[:16]}` |
"""


def _contents(record: ExportRecord, files: Mapping[str, Path]) -> str:
    lines = ["## What lies here", "", "| path | what |", "|---|---|"]
    lines.append("| `manifest.json` and the files it lists | the bundle |")
    if "merged" in record.artifacts:
        lines.append("| `merged/` | the LLM with the adapter merged in, for transformers and vLLM |")
    if "baked" in record.artifacts:
        lines.append("| `baked/` | the same with the item tokens in its vocabulary |")
    for name, path in files.items():
        notes = record.artifacts[path.name].notes
        lines.append(f"| `gguf/{path.name}` | {name}{f' ({notes})' if notes else ''} |")
    lines.append("| `gguf/items.safetensors` | the item table for hybrid prompts |")
    lines.append("| `export.json` | hashes of all of this, and what was checked |")
    return "\n".join(lines)


def _figures(record: ExportRecord) -> str:
    lines = ["## What was checked", ""]
    names = {
        "merged": "merged LLM against the adapter model",
        "gguf": "GGUF in single precision against transformers",
        "baked": "baked LLM against the merged one",
        "baked gguf": "baked GGUF in single precision against the merged LLM",
    }
    for key, name in names.items():
        if "logit_difference" in record.checks.get(key, {}):
            lines.append(f"* {name}: logits differ by at most {record.checks[key]['logit_difference']:.1e}")
    ranking = record.checks.get("ranking")
    if ranking:
        lines += [
            "",
            f"{ranking['prompts']} {ranking['source']}, ranked with llama.cpp; agreement is with f16:",
            "",
            "| file | MB | ms per user | HR@1 | same first | pairs in the same order |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for row in ranking["rows"]:
            hit = f"{row['hit_ratio_at_1']:.3f}" if "hit_ratio_at_1" in row else "-"
            lines.append(
                f"| {row['quantization']} | {row['megabytes']:.1f} | {row['ms_per_user']:.1f} | {hit} "
                f"| {row['same_first']:.3f} | {row['same_order']:.3f} |"
            )
    return "\n".join(lines) if len(lines) > 2 else "Nothing was checked: it was exported with `--no-verify`."


def _ours(files: Mapping[str, Path]) -> str:
    engine = "llama.cpp" if files else "torch"
    return f"""
## Serve it with llara-app

```sh
llara-app recommend --bundle . --user USER --engine {engine}
llara-app evaluate . --engine {engine}
```

The llama.cpp engine needs nothing but this folder: not the LLM that it was trained from.
"""


def _baked(manifest: Manifest, catalogue: Catalogue, files: Mapping[str, Path], special_tokens: Sequence[str]) -> str:
    half = len(catalogue) // 2
    candidates = [catalogue[half + place] for place in range(min(EXAMPLE_CANDIDATES, len(catalogue) - half))]
    history = list(catalogue)[: min(EXAMPLE_HISTORY, half)]
    prompt = served_text(build_prompt(manifest.template, history, candidates), manifest.mode, special_tokens)
    # Titles are copied from the prompt: a penalty on what has been said before would spoil them.
    request = {"prompt": prompt, "temperature": 0, "max_tokens": 32, "repeat_penalty": 1.0}
    gguf = next((path for name, path in files.items() if name.endswith("baked")), None)
    llama_cpp = ""
    if gguf is not None:
        llama_cpp = f"""
With llama.cpp:

```sh
python -m llama_cpp.server --model gguf/{gguf.name} --n_ctx 4096     # pip install 'llama-cpp-python[server]'
llama-server -m gguf/{gguf.name} -c 4096 --port 8000                 # or llama.cpp's own
```
"""
    return f"""
## Serve hybrid prompts as text

In the baked files item *i* of the catalogue is the token `<|item_i|>`, so any server takes a hybrid prompt as text.
{llama_cpp}
With vLLM:

```sh
vllm serve baked --served-model-name baked --port 8000
```

Then ask any of them (`repeat_penalty` is llama.cpp's; its Python server would otherwise penalise titles, which are
copied from the prompt):

```sh
curl -s http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
  -d {shlex.quote(json.dumps({"model": "baked", **request}, ensure_ascii=False))}
```

With transformers:

```python
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained("baked")
model = AutoModelForCausalLM.from_pretrained("baked")
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, do_sample=False, max_new_tokens=32)[0, inputs.input_ids.shape[1]:]))
```

Titles that look like special tokens must be broken up before they are sent: `llara_app.prompts.served_text` does it.
Text prompts (titles alone) can also be served from the merged checkpoint: `vllm serve merged`.
"""


def _not_baked(manifest: Manifest) -> str:
    hybrid = "To serve hybrid prompts as text, export with `--bake`."
    if manifest.template.has_user:
        hybrid = "Hybrid prompts hold the user's token, another vector for each history: llara-app serves them."
    return f"""
## Serve text prompts

Prompts with titles alone can be served by anything that loads the checkpoint, such as `vllm serve merged`, or
`python -m llama_cpp.server --model gguf/FILE --n_ctx 4096`. {hybrid}
"""


def _new_items() -> str:
    return """
## New items

A new item needs no new export. Write one JSON object a line, such as
`{"item_id": "n1", "title": "A New Title (2026)", "like": ["ID", "ID"]}`, and run

```sh
llara-app export . --items-only --add new-items.jsonl
```

`like` names items whose behaviour stands for its own; without it the item is shown by title alone. Baked files know
only the items they were baked with.
"""


def _rights(manifest: Manifest) -> str:
    return f"""
The weights derive from {Path(manifest.llm.name).name}, and the titles from the dataset {manifest.dataset.name}: the
licences of both apply.
"""
