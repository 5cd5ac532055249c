"""A user token from an encoder of random weights."""

from __future__ import annotations

import torch

from llara_app.encoders import SASRecConfig, build_encoder
from llara_app.models.item_vocabulary import ProjectedItems, Projector
from llara_app.models.users import ProjectedUsers


def make_users(num_items: int, llm_size: int) -> ProjectedUsers:
    torch.manual_seed(2)
    encoder = build_encoder(SASRecConfig(num_items=num_items, hidden_size=16))
    users = ProjectedUsers.beside(ProjectedItems(encoder.item_embeddings(), Projector(16, llm_size)), encoder)
    with torch.no_grad():
        # Far apart, so that the LLM cannot overlook the difference.
        users.projector.output.weight.mul_(20)
    return users.eval()
