"""A head start in copying: the first two layers begin as an induction circuit instead of as noise.

To copy a title out of a list a model must find where the last few tokens stood before, and say what came next.
From random weights that comes late, after thousands of steps. The circuit is known, so it is written into the
weights, and training starts from there:

* layer 0, heads 0 to 2: look exactly one, two and three tokens back, and note down a sketch of what stands there;
* layer 1, half of the heads: look where the three noted tokens are the current one and the two before it, and add
  what stands there to the prediction: this continues a title;
* layer 1, the other half: the same for the last token alone. After a line break they look at where titles begin: this
  begins an answer.

Only rotary position can tell "one back", and it needs a constant part in queries and keys: all word vectors start
with a common direction for it. Everything else starts as usual, and nothing is frozen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

LOOK_BACK = 3
"""Tokens that must agree. One or two are not enough: " (" stands before the year of every film."""

SKETCH_SIZE = 42
"""Dimensions of a token's sketch: three of them fit side by side into 128."""

POSITION_FREQUENCIES = (1.0, 0.45, 0.2, 0.09)
"""Radians a token: together they have a single sharp peak. These are the nearest that rotary position offers."""

STILL_FREQUENCY = 0.01
"""Dimensions that rotate slower than this, in radians a token, can compare contents over the length of a list."""

SHARPNESS = 12.0
NOTE_STRENGTH = 3.0
MATCH_STRENGTH = {LOOK_BACK: 3.0, 1: 1.5}
"""By the number of tokens that must agree."""

COPY_STRENGTH = 8.0


@torch.no_grad()
def prepare_to_copy(model: LlamaForCausalLM, seed: int = 0) -> None:
    """Write the induction circuit into an untrained model's first two layers, in place."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    size, heads, head_size = config.hidden_size, config.num_attention_heads, config.head_dim
    half = head_size // 2
    scale = config.initializer_range
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)

    def directions() -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=generator))[0].T

    basis = directions()
    common, sketch = basis[0], basis[1 : 1 + SKETCH_SIZE]
    words = model.get_input_embeddings().weight
    words += (scale * size**0.5 - words @ common)[:, None] * common

    # Half of a normalised word vector is now the common direction.
    common_part = (size / 2) ** 0.5
    noting, finding = (model.model.layers[layer].self_attn for layer in (0, 1))
    notes = directions()[: LOOK_BACK * SKETCH_SIZE].reshape(LOOK_BACK, SKETCH_SIZE, size)
    fast = [int((frequencies - wanted).abs().argmin()) for wanted in POSITION_FREQUENCIES]
    strength = (SHARPNESS * head_size**0.5) ** 0.5 / common_part
    for back in range(LOOK_BACK):
        rows = slice(back * head_size, (back + 1) * head_size)
        written = slice(back * head_size, back * head_size + SKETCH_SIZE)
        here, there = torch.zeros(2, head_size)
        here[fast] = 1.0
        there[fast] = torch.cos((back + 1) * frequencies[fast])
        there[[half + place for place in fast]] = torch.sin((back + 1) * frequencies[fast])
        noting.q_proj.weight[rows] = strength * here[:, None] * common
        noting.k_proj.weight[rows] = strength * there[:, None] * common
        noting.v_proj.weight[rows] *= 0.1
        noting.v_proj.weight[written] = sketch
        noting.o_proj.weight[:, written] = notes[back].T * NOTE_STRENGTH * scale

    slow = (frequencies < STILL_FREQUENCY).nonzero()[:, 0]
    still = torch.cat([slow, half + slow])
    note_part = NOTE_STRENGTH / 2**0.5
    content = size**0.5 / (2 + LOOK_BACK * note_part**2 * SKETCH_SIZE / size) ** 0.5
    copied = directions()
    copied -= (copied @ common)[:, None] * common
    for head in range(heads):
        start = head * head_size
        agreeing = LOOK_BACK if head < heads // 2 else 1
        agreement = agreeing * len(still) / size
        strength = 3 * (MATCH_STRENGTH[agreeing] / agreement * head_size**0.5) ** 0.5 / content
        mixed = torch.randn(LOOK_BACK, len(still), SKETCH_SIZE, generator=generator) / SKETCH_SIZE**0.5
        mixed[agreeing:] = 0
        noted = mixed @ notes / note_part
        finding.q_proj.weight[start : start + head_size] *= 0.1
        finding.k_proj.weight[start : start + head_size] *= 0.1
        current = mixed[0] @ sketch
        before = sum(mixed[back] @ notes[back - 1] / note_part for back in range(1, LOOK_BACK))
        finding.q_proj.weight[start + still] = strength * (current + before)
        finding.k_proj.weight[start + still] = strength * noted.sum(dim=0)
        # The heads of each half share the dimensions among them.
        first = (head % (heads // 2)) * 2 * size // heads
        share = copied[[(first + place) % size for place in range(min(head_size, size))]]
        finding.v_proj.weight[start : start + len(share)] = share
        finding.o_proj.weight[:, start : start + len(share)] = share.T * COPY_STRENGTH * scale
