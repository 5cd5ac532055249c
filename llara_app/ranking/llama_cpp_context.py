"""llama.cpp behind a few calls: a model, one key-value cache shared by many sequences, logits as arrays.

llama.cpp ends the whole process where a batch is larger than its context allows, and reports most other failures as
a number; here every batch is checked before it is handed over, and every failure is an error that says what to do.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from llara_app.closing import Closing
from llara_app.errors import BundleError, LlaraError

MAX_SEQUENCES = 256
"""Sequences that a llama.cpp cache can tell apart; number 0 is the prompt."""

MAX_BRANCHES = MAX_SEQUENCES - 1

CELL_STEP = 512
"""Caches are made in multiples of so many positions, so that they are seldom made anew."""

MICRO_BATCH = 512
"""Tokens that are computed at once; larger ones cost memory and gain nothing."""

SMALL_MODEL_BYTES = 32 << 20

FLOAT32 = 0
FLASH_ATTENTION_OFF = 0

GGML_WARNING, GGML_ERROR = 3, 4

Logits = npt.NDArray[np.float32]

KEPT_MESSAGES = 64

_messages: deque[str] = deque(maxlen=KEPT_MESSAGES)


@llama_cpp.llama_log_callback
def _keep_message(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    # llama.cpp writes pages to stderr; what is kept are the warnings and errors, for our own messages.
    if level in (GGML_WARNING, GGML_ERROR):
        _messages.append(text.decode(errors="replace").strip())


def silence() -> None:
    """Keep llama.cpp's messages off the screen; see :func:`last_message`."""
    llama_cpp.llama_log_set(_keep_message, ctypes.c_void_p(0))


def last_message() -> str:
    """What llama.cpp complained of last."""
    return _messages[-1] if _messages else "llama.cpp gave no reason"


@contextmanager
def messages() -> Iterator[deque[str]]:
    """The warnings and errors of llama.cpp since the block began."""
    silence()
    _messages.clear()
    yield _messages


def default_threads(path: Path) -> int:
    """As many threads as this process may use cores; one for a small model, whose threads would mostly wait."""
    if path.stat().st_size < SMALL_MODEL_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LlamaCppContext(Closing):
    """A GGUF model with a cache in which a prompt is computed once and continued in many branches.

    Args:
        path: the GGUF file.
        threads: that compute; by default :func:`default_threads`.
        gpu_layers: how many of the last layers a GPU computes, where llama.cpp was built for one; -1 for all.
        float32_cache: keep keys and values in single precision and compute attention plainly, which is slower and
            as exact as transformers.

    Raises:
        BundleError: llama.cpp cannot load the file.
    """

    def __init__(
        self, path: Path, *, threads: int | None = None, gpu_layers: int = 0, float32_cache: bool = False
    ) -> None:
        silence()
        llama_cpp.llama_backend_init()
        self._context: Any = None
        self._cells = 0
        self._float32_cache = float32_cache
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 2**31 - 1 if gpu_layers < 0 else gpu_layers
        self._threads = threads or default_threads(path)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise BundleError(
                "llama.cpp cannot load this file", f"{path}: {last_message()}", "Export the bundle again."
            )
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self.hidden_size: int = llama_cpp.llama_model_n_embd(self._model)

    def close(self) -> None:
        """Give the memory back; the context cannot be used afterwards."""
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context, self._cells = None, 0
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The ids that llama.cpp's own tokenizer gives a text, without a beginning of sequence.

        Args:
            special: match special tokens, as a server does with its prompts.
        """
        content = text.encode()
        room = len(content) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, content, len(content), ids, room, False, special)
        if count < 0:
            raise LlaraError("llama.cpp cannot tokenize a text", repr(text[:80]), "Please report this text.")
        return list(ids[:count])

    def begin(self, num_cells: int) -> None:
        """Empty the cache and make room for at least `num_cells` positions in all branches together.

        Raises:
            LlaraError: there is not enough memory.
        """
        if num_cells > self._cells:
            self._make_context(-(-num_cells // CELL_STEP) * CELL_STEP)
        else:
            llama_cpp.llama_memory_clear(self._memory, False)

    def read_vectors(self, vectors: npt.NDArray[np.float32], *, all_logits: bool = False) -> Logits:
        """Compute input vectors ``[n, hidden_size]`` as the beginning of the prompt, in one batch.

        Returns:
            Logits after the last position, ``[1, vocabulary_size]``, or after every one, ``[n, vocabulary_size]``.
            The array is valid until the next call.
        """
        count = len(vectors)
        wanted = np.full(count, all_logits, dtype=np.int8)
        wanted[-1] = True
        return self._decode(
            np.ascontiguousarray(vectors, dtype=np.float32), np.arange(count), np.zeros(count), wanted
        )

    def read_tokens(self, ids: Sequence[int], *, start: int, all_logits: bool = False) -> Logits:
        """Compute tokens that follow the first `start` positions of the prompt; logits as in :meth:`read_vectors`."""
        count = len(ids)
        wanted = np.full(count, all_logits, dtype=np.int8)
        wanted[-1] = True
        return self._decode(np.asarray(ids, dtype=np.int32), start + np.arange(count), np.zeros(count), wanted)

    def read_branches(self, branches: Sequence[Sequence[int]], *, start: int) -> Logits:
        """Compute up to :data:`MAX_BRANCHES` continuations of the prompt's first `start` positions in one batch.

        The branches share the prompt's cache and do not see one another; they are forgotten afterwards.

        Returns:
            Logits after each token of each branch, ``[sum of lengths, vocabulary_size]``, valid until the next call.
        """
        if len(branches) > MAX_BRANCHES:
            raise ValueError(f"{len(branches)} branches; at most {MAX_BRANCHES} fit")
        lengths = np.array([len(branch) for branch in branches])
        sequences = np.repeat(np.arange(1, len(branches) + 1), lengths)
        positions = np.concatenate([start + np.arange(length) for length in lengths])
        ids = np.concatenate([np.asarray(branch, dtype=np.int32) for branch in branches])
        for sequence in range(1, len(branches) + 1):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, start)
        logits = self._decode(ids, positions, sequences, np.ones(len(ids), dtype=np.int8))
        for sequence in range(1, len(branches) + 1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return logits

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self._context)

    def _make_context(self, cells: int) -> None:
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context, self._cells = None, 0
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = cells
        parameters.n_ubatch = MICRO_BATCH
        parameters.n_seq_max = MAX_SEQUENCES
        parameters.kv_unified = True  # else every sequence would get its share of the cells
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.no_perf = True
        if self._float32_cache:
            parameters.type_k = parameters.type_v = FLOAT32
            parameters.flash_attn_type = FLASH_ATTENTION_OFF
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            raise LlaraError(
                "llama.cpp cannot make a context",
                f"{cells} positions: {last_message()}",
                "Use fewer candidates, a shorter history, or a machine with more memory.",
            )
        self._context, self._cells = context, cells

    def _decode(
        self,
        tokens_or_vectors: npt.NDArray[Any],
        positions: npt.NDArray[Any],
        sequences: npt.NDArray[Any],
        wanted: npt.NDArray[np.int8],
    ) -> Logits:
        count = len(tokens_or_vectors)
        if count > llama_cpp.llama_n_batch(self._context):
            raise LlaraError(
                "This batch is larger than llama.cpp's context",
                f"{count} tokens, room for {self._cells}",
                "Use fewer candidates or a shorter history.",
            )
        # The arrays must live until llama_decode returns; the struct below only points into them.
        position_array = np.ascontiguousarray(positions, dtype=np.int32)
        sequence_array = np.ascontiguousarray(sequences, dtype=np.int32)
        one_each = np.ones(count, dtype=np.int32)
        first = sequence_array.ctypes.data
        addresses = np.arange(first, first + 4 * count, 4, dtype=np.uintp)
        batch = llama_cpp.llama_batch()
        batch.n_tokens = count
        if tokens_or_vectors.ndim == 2:
            batch.embd = tokens_or_vectors.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        else:
            batch.token = tokens_or_vectors.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        batch.pos = position_array.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos))
        batch.n_seq_id = one_each.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = addresses.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id)))
        batch.logits = wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise LlaraError(
                "llama.cpp could not compute a prompt",
                f"status {status}: {last_message()}",
                "Use fewer candidates or a shorter history; if that does not help, export the bundle again.",
            )
        num_outputs = int(np.count_nonzero(wanted))
        logits: Logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self._context), shape=(num_outputs, self.vocabulary_size)
        )
        return logits
