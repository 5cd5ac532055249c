"""How much memory merging takes, on made-up models with layers of the shape of a 7B Llama.

    python -m benchmarks.merge_memory
    python -m benchmarks.merge_memory --layers 2 4 32

Prints one JSON document. A model of 32 layers is a whole 7B; that memory does not grow from two layers to four says
what it will take. Every merge has a process of its own. `peak_anonymous_mib` is what it asked for itself, sampled
every few milliseconds; `peak_mib` also counts pages of files that the system may drop at any time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from llara_app.models.manifest import ADAPTER_FOLDER, MANIFEST_FILE, TOKENIZER_FOLDER, DatasetPart, LLMPart, Manifest
from llara_app.prompts import PromptMode, PromptTemplate
from train.export.checkpoint import TensorSpec, write_checkpoint
from train.export.merge import merge

HIDDEN, INNER, WORDS, RANK = 4096, 11008, 32000, 8
PROJECTIONS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


def make_bundle(folder: Path, layers: int) -> Path:
    """As much of a bundle as merging reads, with its LLM beside it."""
    llm, bundle = folder / "llm", folder / "bundle"
    for made in (llm, bundle / ADAPTER_FOLDER, bundle / TOKENIZER_FOLDER):
        made.mkdir(parents=True)
    shapes = {"model.embed_tokens.weight": (WORDS, HIDDEN), "lm_head.weight": (WORDS, HIDDEN)}
    adapter = {}
    for layer in range(layers):
        for name, (rows, columns) in PROJECTIONS.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = (rows, columns)
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            adapter[f"{prefix}.lora_A.weight"] = TensorSpec((RANK, columns), torch.float32)
            adapter[f"{prefix}.lora_B.weight"] = TensorSpec((rows, RANK), torch.float32)
    specs = {name: TensorSpec(shape, torch.float16) for name, shape in shapes.items()}
    write_checkpoint(llm, specs, lambda name: torch.full(specs[name].shape, 0.01, dtype=torch.float16), what="")
    (llm / "config.json").write_text(json.dumps({"model_type": "llama"}))
    write_checkpoint(
        bundle / ADAPTER_FOLDER,
        adapter,
        lambda name: torch.full(adapter[name].shape, 0.01),
        what="",
        shard_bytes=1 << 40,
    )
    (bundle / ADAPTER_FOLDER / "model.safetensors").rename(bundle / ADAPTER_FOLDER / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32}
    (bundle / ADAPTER_FOLDER / "adapter_config.json").write_text(json.dumps(config))
    manifest = Manifest(
        created="",
        dataset=DatasetPart(
            name="made-up",
            domain="item",
            hash="",
            catalogue_hash="",
            protocol="paper",
            num_users=0,
            num_items=0,
            num_interactions=0,
        ),
        encoder="sasrec",
        item_size=64,
        llm=LLMPart(name=str(llm), architecture="llama", vocabulary_size=WORDS, hidden_size=HIDDEN),
        template=PromptTemplate(name="item", prompt="{history}{candidates}"),
        curriculum="linear",
        modes=(PromptMode.TEXT, PromptMode.HYBRID),
        num_candidates=20,
        max_history=10,
        seed=0,
    )
    (bundle / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return bundle


def merge_once(bundle: Path, output: Path) -> dict[str, float]:
    """Merge in this process, and what it took."""
    output.mkdir()
    before = _anonymous_mib()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, _anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    merge(bundle, output)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {
        "seconds": seconds,
        "before_mib": before,
        "peak_anonymous_mib": peak,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "merged_mib": sum(path.stat().st_size for path in output.glob("*.safetensors")) / 2**20,
    }


def _anonymous_mib() -> float:
    """Memory of this process that no file backs; Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--once", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(merge_once(*options.once)))
        return
    results = {}
    for layers in options.layers:
        with tempfile.TemporaryDirectory() as name:
            bundle = make_bundle(Path(name), layers)
            command = [sys.executable, "-m", "benchmarks.merge_memory", "--once", str(bundle), f"{name}/merged"]
            done = subprocess.run(command, check=True, capture_output=True)
            results[f"{layers} layers"] = json.loads(done.stdout)
    print(json.dumps({"benchmark": "merge_memory", **results}, indent=2))


if __name__ == "__main__":
    main()
