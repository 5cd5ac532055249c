"""Published checkpoints are read exactly, and what a hostile one asks for is never run."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from llara_app.encoders import load_encoder, save_encoder
from llara_app.encoders.inert_pickle import read_module
from llara_app.encoders.published import import_published
from llara_app.errors import DataError, LlaraError, UnsafePickleError
from tests.encoders import stand_ins

NUM_ITEMS = 30


def saved(module: object, path: Path) -> Path:
    torch.save(module, path)
    return path


def published_batch(num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories of lengths 1 to 10 as the public code pads them: on the right, with the id `num_items`."""
    lengths = torch.arange(1, 11)
    states = torch.randint(num_items, (10, 10), generator=torch.Generator().manual_seed(0))
    return states.where(torch.arange(10) < lengths[:, None], num_items), lengths


@pytest.mark.parametrize("kind", [stand_ins.SASRec, stand_ins.GRU, stand_ins.Caser])
def test_look_alikes_give_their_own_logits(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = kind(NUM_ITEMS).eval()
    encoder = import_published(saved(module, tmp_path / "model.pt"))
    states, lengths = published_batch(NUM_ITEMS)
    ours = encoder(states.where(states != NUM_ITEMS, -1), lengths)
    torch.testing.assert_close(ours, module(states, lengths), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.item_embeddings(), module.item_embeddings.weight[:NUM_ITEMS])
    assert not encoder.training

    save_encoder(encoder, tmp_path / "kept", dataset="films", catalogue_hash="abc", source="model.pt")
    reloaded, manifest = load_encoder(tmp_path / "kept")
    assert manifest.config == encoder.config
    torch.testing.assert_close(
        reloaded(states[:, :1].clone(), lengths.clamp(max=1)), encoder(states, lengths.clamp(max=1))
    )


def test_shapes_come_from_the_weights(tmp_path: Path) -> None:
    encoder = import_published(saved(stand_ins.Caser(NUM_ITEMS, hidden_size=24, state_size=6), tmp_path / "m.pt"))
    assert (encoder.num_items, encoder.hidden_size, encoder.max_history) == (NUM_ITEMS, 24, 6)
    assert encoder.config.dropout == 0.1


@pytest.mark.real_data
def test_the_published_sasrec_for_steam(shared_data: Path, shared_golden: Path) -> None:
    encoder = import_published(shared_data / "official-encoders" / "steam.pt")
    rows = json.loads((shared_golden / "official-sasrec-steam-logits.json").read_text())
    states = torch.tensor([row["seq"] for row in rows])
    lengths = torch.tensor([row["len_seq"] for row in rows])
    logits = encoder(states.where(states != encoder.num_items, -1), lengths)
    assert len(rows) == 50
    for row, found in zip(rows, logits, strict=True):
        assert found.topk(10).indices.tolist() == row["top10"]
        torch.testing.assert_close(found[row["top10"]], torch.tensor(row["top10_logits"]), atol=1e-4, rtol=0)
        torch.testing.assert_close(found[:8], torch.tensor(row["logits_first8"]), atol=1e-4, rtol=0)


# What a pickle can ask for. Each callable leaves a mark if it is run.


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def leave_mark(path: str) -> None:
    Path(path).touch()


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda mark: Call(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w').close()"),
    "builtins.exec": lambda mark: Call(exec, f"open({str(mark)!r}, 'w').close()"),
    "builtins.getattr": lambda mark: Call(getattr, Call(__import__, "os"), "system"),
    "a function of any module": lambda mark: Call(leave_mark, str(mark)),
    "torch.load": lambda mark: Call(torch.load, str(mark)),
    "torch.hub.load": lambda mark: Call(torch.hub.load, str(mark.parent), "model"),
    "shutil.copy": lambda mark: Call(shutil.copy, __file__, str(mark)),
    "numpy.load": lambda mark: Call(np.load, str(mark)),
    "pickle.loads": lambda mark: Call(pickle.loads, pickle.dumps(Call(leave_mark, str(mark)))),
    "builtins.open": lambda mark: Call(builtins.open, str(mark), "w"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_that_a_pickle_names_is_run(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    module = stand_ins.GRU(NUM_ITEMS)
    module.payload = ATTACKS[name](mark)
    path = saved(module, tmp_path / "model.pt")
    with pytest.raises(UnsafePickleError):
        import_published(path)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """The same file does run when it is unpickled the usual way, so the tests above can fail."""
    mark = tmp_path / "mark"
    path = saved(ATTACKS["builtins.eval"](mark), tmp_path / "model.pt")
    torch.load(path, weights_only=False)
    assert mark.exists()


def with_pickle(content: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/version", "3\n")
    return path


HAND_WRITTEN = {
    "a call of os.system": b"cos\nsystem\n(S'touch MARK'\ntR.",
    "an old-style instance": b"(S'touch MARK'\nios\nsystem\n.",
    "an attribute of a module class": b"\x80\x04\x8c\x17torch.nn.modules.linear\x8c\x0fLinear.__init__\x93.",
    "a dotted way out of collections": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "an import through torch.nn.modules": b"ctorch.nn.modules.module\n__builtins__.eval\n.",
    "a module class called with arguments": b"ctorch.nn.modules.linear\nLinear\n(I1\ntR.",
    "a change of an admitted function": b"ctorch._utils\n_rebuild_parameter\n}S'a'\nI1\nsb.",
    "a change of a module class": b"ctorch.nn.modules.linear\nLinear\n}S'a'\nI1\nsb.",
    "a state that is no dictionary": b"ctorch.nn.modules.linear\nLinear\n)\x81I1\nb.",
    "a persistent id that is no storage": b"S'/etc/passwd'\nQ.",
    "another encoding": b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
    "an extension code": b"\x82\x01.",
    "a memo of thirty gigabytes": b"]r\xff\xff\xff\x7f.",
    "a number of objects": b"cnumpy\ndtype\n(S'O8'\ntR.",
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_pickles_are_refused(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = HAND_WRITTEN[name].replace(b"MARK", str(mark).encode())
    with pytest.raises(UnsafePickleError):
        read_module(with_pickle(content, tmp_path / "model.pt"))
    assert not mark.exists()


def test_a_module_that_contains_itself_is_refused(tmp_path: Path) -> None:
    content = b"ctorch.nn.modules.container\nSequential\n)\x81q\x00}S'_modules'\n}S'0'\nh\x00ssb."
    with pytest.raises(DataError, match="twice"):
        import_published(with_pickle(content, tmp_path / "model.pt"))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(stand_ins.GRU(NUM_ITEMS), tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="truncated"):
        import_published(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = saved(stand_ins.GRU(NUM_ITEMS), tmp_path / "model.pt")
    weights = next(iter(torch.load(path, weights_only=False).parameters())).detach().numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights) + 5] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        import_published(path)


@cache
def small_checkpoint() -> dict[str, bytes]:
    """The entries of a small GRU's archive."""
    buffer = io.BytesIO()
    torch.save(stand_ins.GRU(5, hidden_size=4), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archived(entries: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    return path


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_an_error_with_a_message_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of the pickle itself are changed: it loads, or it is refused with a message; nothing else escapes."""
    content = bytearray(small_checkpoint()["data.pkl"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = archived(small_checkpoint() | {"data.pkl": bytes(content)}, tmp_path / "model.pt")
    try:
        import_published(path)
    except LlaraError as error:
        assert error.title


def test_the_legacy_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(stand_ins.GRU(NUM_ITEMS), path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match="legacy format"):
        import_published(path)


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        import_published(tmp_path / "absent.pt")
    text = tmp_path / "notes.pt"
    text.write_text("not a checkpoint")
    with pytest.raises(DataError, match="Not a torch checkpoint"):
        import_published(text)
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as archive:
        archive.writestr("cat.jpg", b"cat")
    with pytest.raises(DataError, match=r"0 files named data\.pkl"):
        import_published(tmp_path / "photos.pt")
    state = saved(dict(stand_ins.GRU(NUM_ITEMS).state_dict()), tmp_path / "state.pt")
    with pytest.raises(DataError, match=r"does not hold a whole module.*holds a dict"):
        import_published(state)
    with pytest.raises(DataError, match="none of the published encoders"):
        import_published(saved(nn.Linear(3, 4), tmp_path / "linear.pt"))


def test_a_look_alike_of_other_shapes_is_refused(tmp_path: Path) -> None:
    module = stand_ins.GRU(NUM_ITEMS)
    module.s_fc = nn.Linear(module.hidden_size, NUM_ITEMS + 5)
    with pytest.raises(DataError, match="other shapes"):
        import_published(saved(module, tmp_path / "model.pt"))


def test_a_tensor_may_not_reach_beyond_its_numbers(tmp_path: Path) -> None:
    # The embedding's shape (6, 4) as two BININT1 and a TUPLE2.
    content = small_checkpoint()["data.pkl"]
    assert b"K\x06K\x04\x86" in content
    longer = content.replace(b"K\x06K\x04\x86", b"K\xffK\x04\x86")
    archived(small_checkpoint() | {"data.pkl": longer}, tmp_path / "model.pt")
    with pytest.raises(DataError, match="beyond its numbers"):
        import_published(tmp_path / "model.pt")
