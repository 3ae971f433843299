"""A BERT of two layers with drawn weights and a small vocabulary, as a Hugging Face folder. No Java, no network."""

from __future__ import annotations

import json
from pathlib import Path

_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = ["red", "green", "blue", "shoe", "shirt", "cup", "of", "tea", "warm", "cold", "the", "poison"]
_SIGNS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?&<>", *"红色的鞋子茶杯", *"אבגד", "😀"]
VOCABULARY = [*_MARKS, *_WORDS, *_SIGNS, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789")]
DIMENSIONS = 32


def write_tiny_encoder(
    folder: Path, pooling: str | None = "mean_tokens", seed: int = 0, max_positions: int = 64
) -> Path:
    """Write a model folder; pooling is what 1_Pooling/config.json says, null: there is no such file."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=max_positions)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=DIMENSIONS, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=max_positions, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling is not None:
        modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "max_tokens")}
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIMENSIONS, **modes}))
    return folder
