"""The item table, and items that came after training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llara_app.errors import BundleError, DataError, NotFoundError
from llara_app.models.bundle import load_encoder_of, load_projected_items
from llara_app.models.manifest import Manifest
from llara_app.ranking.carried_items import read_carried_items
from tests.export.conftest import MakeBundle
from train.export.items import read_new_items, write_items


@pytest.fixture
def bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(make_bundle("llama"), copy)
    return copy


def new_items(folder: Path, *documents: dict[str, object]) -> Path:
    path = folder / "new.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def test_the_table_is_written_anew_from_encoder_and_projector(bundle: Path) -> None:
    assert write_items(bundle, bundle) == (40, 40)
    written = load_file(bundle / "gguf" / "items.safetensors")["items"]
    torch.testing.assert_close(written, load_file(bundle / "items.safetensors")["items"])
    Manifest.read(bundle).verify(bundle)


def test_without_an_export_the_bundles_own_table_is_read(bundle: Path) -> None:
    carried = read_carried_items(bundle, Manifest.read(bundle))
    np.testing.assert_array_equal(carried.table, load_file(bundle / "items.safetensors")["items"].numpy())
    assert len(carried.catalogue) == 40


def test_new_items_stand_behind_the_others(bundle: Path, tmp_path: Path) -> None:
    path = new_items(
        tmp_path,
        {"item_id": "cold", "title": "Unknown (2026)"},
        {"item_id": "warm", "title": "Known (2026)", "like": ["i3", "i4"], "metadata": {"year": 2026}},
    )
    assert write_items(bundle, bundle, read_new_items(path)) == (42, 41)
    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    carried = read_carried_items(bundle, manifest)
    assert [item.item_id for item in carried.catalogue][40:] == ["warm", "cold"], "those with behaviour come first"
    assert [item.index for item in carried.catalogue] == list(range(42))
    assert carried.catalogue[40].metadata == {"year": 2026}
    projected = load_projected_items(bundle, load_encoder_of(bundle, manifest), manifest)
    mean = load_encoder_of(bundle, manifest).item_embeddings()[[3, 4]].mean(dim=0, keepdim=True)
    np.testing.assert_allclose(carried.table[40], projected.project(mean)[0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(carried.table[:40], projected.table().numpy())


def test_an_item_can_bring_its_own_embedding(bundle: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(bundle)
    own = load_encoder_of(bundle, manifest).item_embeddings()[7].tolist()
    path = new_items(tmp_path, {"item_id": "twin", "title": "Twin", "embedding": own})
    write_items(bundle, bundle, read_new_items(path))
    carried = read_carried_items(bundle, manifest)
    np.testing.assert_allclose(carried.table[40], carried.table[7], atol=1e-5)


def test_earlier_additions_stay_and_can_be_replaced(bundle: Path, tmp_path: Path) -> None:
    write_items(bundle, bundle, read_new_items(new_items(tmp_path, {"item_id": "a", "title": "A"})))
    write_items(bundle, bundle, read_new_items(new_items(tmp_path, {"item_id": "b", "title": "B"})))
    assert write_items(bundle, bundle) == (42, 40)
    replaced = {"item_id": "a", "title": "A", "like": ["i1"]}
    assert write_items(bundle, bundle, read_new_items(new_items(tmp_path, replaced))) == (42, 41)
    carried = read_carried_items(bundle, Manifest.read(bundle))
    assert [item.item_id for item in carried.catalogue][40:] == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"item_id": "i3", "title": "Another"}, "has the id of another"),
        ({"item_id": "n", "title": "Film 3 (1963)"}, "has the title of another"),
        ({"item_id": "n"}, "no 'title'"),
        ({"item_id": "n", "title": " "}, "empty id or title"),
        ({"item_id": "n", "title": "N", "liek": ["i1"]}, "unknown key 'liek'"),
        ({"item_id": "n", "title": "N", "embedding": [1.0]}, "another width"),
        ({"item_id": "n", "title": "N", "embedding": ["x"]}, "not as it should be"),
        ({"item_id": "n", "title": "N", "like": ["i1"], "embedding": [1.0]}, "both 'like' and 'embedding'"),
    ],
)
def test_wrong_items_are_refused_and_nothing_changes(
    bundle: Path, tmp_path: Path, document: dict[str, object], message: str
) -> None:
    write_items(bundle, bundle)
    before = {path: path.read_bytes() for path in (bundle / "gguf").iterdir()}
    with pytest.raises(DataError, match=message):
        write_items(bundle, bundle, read_new_items(new_items(tmp_path, document)))
    assert {path: path.read_bytes() for path in (bundle / "gguf").iterdir()} == before


def test_an_unknown_neighbour_is_named_with_the_nearest(bundle: Path, tmp_path: Path) -> None:
    path = new_items(tmp_path, {"item_id": "n", "title": "N", "like": ["i399"]})
    with pytest.raises(NotFoundError) as error:
        write_items(bundle, bundle, read_new_items(path))
    assert "'i39'" in error.value.hint


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"item_id": "a", "title": "A"}\nnot json\n')
    with pytest.raises(DataError, match=r"new\.jsonl:2"):
        read_new_items(path)


def test_a_table_of_another_bundle_is_refused(bundle: Path, make_bundle: MakeBundle) -> None:
    write_items(make_bundle("qwen2"), bundle)
    with pytest.raises(BundleError, match="another bundle"):
        read_carried_items(bundle, Manifest.read(bundle))


def test_additions_that_are_not_the_tables_are_refused(bundle: Path, tmp_path: Path) -> None:
    write_items(bundle, bundle, read_new_items(new_items(tmp_path, {"item_id": "a", "title": "A"})))
    path = bundle / "gguf" / "added-items.jsonl"
    path.write_text(path.read_text().replace('"A"', '"B"'))
    with pytest.raises(BundleError, match="not the ones of the item table"):
        read_carried_items(bundle, Manifest.read(bundle))


def test_a_truncated_table_is_refused(bundle: Path) -> None:
    write_items(bundle, bundle)
    path = bundle / "gguf" / "items.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match="cannot be read"):
        read_carried_items(bundle, Manifest.read(bundle))
