"""The folder of an encoder: what is missing is named before anything is loaded, and its hash follows what changes a vector."""

from __future__ import annotations

import json

import pytest

from recsys_spark.config_encoder import EncoderConfig
from recsys_spark.errors import ConfigError
from recsys_spark.models.encoder_files import encoder_folder, encoder_hash, pooling_of


@pytest.fixture
def folder(tmp_path):
    """Files of the right names; nothing here reads weights."""
    for name, content in {
        "config.json": "{}",
        "model.safetensors": "weights",
        "vocab.txt": "[PAD]",
        "README.md": "x",
    }.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "1_Pooling").mkdir()
    set_pooling(tmp_path, pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    return tmp_path


def set_pooling(folder, **modes):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **modes}))


def config_of(folder, **settings):
    return EncoderConfig(model=str(folder), **settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("vocab.txt", "no tokenizer")],
)
def test_a_missing_part_of_a_model_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"expected a complete Hugging Face model .* {message}.*give encoder.model"):
        encoder_folder(config_of(folder))


def test_pickled_weights_are_not_taken(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pickles, which are not loaded"):
        encoder_folder(config_of(folder))


@pytest.mark.parametrize("model", ["/no/such/folder", "nobody/no-such-model"])
def test_a_model_that_is_nowhere_is_a_clear_error(model):
    with pytest.raises(ConfigError, match=r"encoder\.model.*folder"):
        encoder_folder(EncoderConfig(model=model))


def test_the_folder_says_how_vectors_are_pooled_unless_the_config_does(folder):
    assert pooling_of(config_of(folder), folder) == "mean"
    set_pooling(folder, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert pooling_of(config_of(folder), folder) == "cls"
    assert pooling_of(config_of(folder, pooling="mean"), folder) == "mean"


def test_a_pooling_that_is_neither_or_missing_says_what_to_set(folder):
    set_pooling(folder, pooling_mode_max_tokens=True)
    with pytest.raises(ConfigError, match=r"found \['pooling_mode_max_tokens'\]; set encoder.pooling"):
        pooling_of(config_of(folder), folder)
    (folder / "1_Pooling" / "config.json").write_text("torn {")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        pooling_of(config_of(folder), folder)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"does not say how .* set encoder.pooling"):
        pooling_of(config_of(folder), folder)


def test_the_hash_follows_what_changes_a_vector_and_nothing_else(folder):
    before = encoder_hash(config_of(folder))
    assert len(before) == 16
    same = {"name": "other", "tokens_per_batch": 7, "texts_per_batch": 7, "compile": True, "pooling": "mean"}
    assert encoder_hash(config_of(folder, **same)) == before
    changed = [
        {"prefix": "query: "},
        {"normalize": False},
        {"max_length": 64},
        {"precision": "bf16"},
        {"pooling": "cls"},
    ]
    assert len({before, *(encoder_hash(config_of(folder, **settings)) for settings in changed)}) == 1 + len(changed)
    (folder / "README.md").write_text("another")
    assert encoder_hash(config_of(folder)) == before
    (folder / "model.safetensors").write_text("other weights")
    assert encoder_hash(config_of(folder)) != before
