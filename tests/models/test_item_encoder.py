"""Vectors are those of a plain loop over single texts, whatever is encoded beside them, and a fault costs one text."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is in the extra [text]")

from tiny_encoder import DIMENSIONS, write_tiny_encoder  # noqa: E402

from recsys_spark.config_encoder import EncoderConfig  # noqa: E402
from recsys_spark.errors import ConfigError  # noqa: E402
from recsys_spark.models.item_encoder import encode_texts, load_encoder  # noqa: E402

TEXTS = [
    "red shoe", "a cup of warm tea", "the the the " * 40, "红色的鞋子", "אבגד", "😀", "red shoe", "b", "cold 123 !?", "green shirt & <cup>",
]  # fmt: skip
DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def make_encoder(folder, device="cpu", **settings):
    return load_encoder(EncoderConfig(model=str(folder), **settings), device)


def one_by_one(folder, texts, pooling="mean", prefix="", normalize=True, max_length=64):
    """The plain way: transformers, one text at a time, no padding, float32."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        with torch.inference_mode():
            inputs = tokenizer([prefix + text], truncation=True, max_length=max_length, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state[0]
        vector = hidden[0] if pooling == "cls" else hidden.mean(0)
        vectors.append((vector / vector.norm() if normalize else vector).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"pooling": "cls"}, {"prefix": "tea "}, {"normalize": False}, {"max_length": 8}],
    ids=lambda settings: next(iter(settings), "default"),
)
def test_vectors_equal_those_of_a_plain_loop_over_single_texts(folder, device, settings):
    found = encode_texts(make_encoder(folder, device, **{"max_length": 64, **settings}), TEXTS)
    tolerance = 1e-5 if device == "cpu" else 2e-3  # a GPU sums float32 in another order, and may do so in TF32
    np.testing.assert_allclose(found.vectors, one_by_one(folder, TEXTS, **settings), atol=tolerance)
    assert found.vectors.dtype == np.float32
    assert found.faults == {}


@pytest.mark.parametrize("tokens_per_batch", [1, 70, 100_000])
@pytest.mark.parametrize("texts_per_batch", [1, 3, 1000])
def test_neither_the_order_nor_the_neighbours_of_a_text_change_its_vector(folder, tokens_per_batch, texts_per_batch):
    whole = encode_texts(make_encoder(folder), TEXTS).vectors
    order = np.random.default_rng(0).permutation(len(TEXTS))
    encoder = make_encoder(folder, tokens_per_batch=tokens_per_batch, texts_per_batch=texts_per_batch)
    shuffled = encode_texts(encoder, [TEXTS[place] for place in order]).vectors
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-6)


def test_equal_texts_go_through_the_model_once_and_get_the_same_bits(folder):
    found = encode_texts(make_encoder(folder), ["red shoe", "b", "red shoe", "red shoe"])
    assert (found.stats.texts, found.stats.distinct_texts) == (4, 2)
    assert found.stats.useful_tokens == 4 + 3
    np.testing.assert_array_equal(found.vectors[[0, 0]], found.vectors[[2, 3]])


def test_texts_of_one_length_go_together_without_padding(folder):
    texts = [*"abcdefgh"] + ["red shoe " * 10 + letter for letter in "abcdefgh"]
    stats = encode_texts(make_encoder(folder, tokens_per_batch=8 * 23), texts).stats
    assert stats.processed_tokens == stats.useful_tokens == 8 * 3 + 8 * 23


def test_no_texts_give_no_vectors(folder):
    assert encode_texts(make_encoder(folder), []).vectors.shape == (0, DIMENSIONS)


def test_the_folder_says_how_token_vectors_become_one(tmp_path):
    own = write_tiny_encoder(tmp_path / "cls", pooling="cls_token")
    np.testing.assert_allclose(
        encode_texts(make_encoder(own), TEXTS).vectors, one_by_one(own, TEXTS, pooling="cls"), atol=1e-5
    )


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_faster_arithmetic_stays_near_float32(folder, precision):
    exact, fast = (encode_texts(make_encoder(folder, precision=name), TEXTS).vectors for name in ("fp32", precision))
    assert (exact * fast).sum(1).min() > 0.99
    assert not np.array_equal(exact, fast)


def failing(encoder, fails):
    """An encoder whose model raises what `fails` gives for a batch of token ids."""

    class Model(torch.nn.Module):
        config = encoder.model.config

        def forward(self, input_ids, attention_mask):
            error = fails(input_ids)
            if error is not None:
                raise error
            return encoder.model(input_ids=input_ids, attention_mask=attention_mask)

    return dataclasses.replace(encoder, model=Model())


def test_memory_that_runs_out_halves_the_batches_and_loses_no_text(folder):
    sizes = []

    def limited(ids):
        sizes.append(ids.numel())
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate") if ids.numel() > 150 else None

    whole = encode_texts(make_encoder(folder), TEXTS).vectors
    found = encode_texts(failing(make_encoder(folder), limited), TEXTS)
    np.testing.assert_allclose(found.vectors, whole, atol=1e-6)
    assert found.faults == {}
    assert found.stats.memory_retries == sum(size > 150 for size in sizes) > 0
    too_large = [place for place, size in enumerate(sizes) if size > 150]
    assert too_large == list(range(len(too_large))), "once there is room, no batch is larger than that"


def test_a_text_too_long_for_the_memory_is_named_and_the_others_are_encoded(folder):
    found = encode_texts(
        failing(make_encoder(folder), lambda ids: RuntimeError("CUDA out of memory") if ids.shape[1] > 30 else None),
        TEXTS,
    )
    assert list(found.faults) == [2]
    assert found.faults[2].startswith("out_of_memory: RuntimeError: CUDA out of memory")
    assert not found.vectors[2].any()
    assert (np.linalg.norm(np.delete(found.vectors, 2, 0), axis=1) > 0.99).all()


def test_a_text_that_the_model_fails_on_is_found_by_halving_and_costs_only_itself(folder):
    encoder = make_encoder(folder)
    poison = encoder.tokenizer.convert_tokens_to_ids("poison")
    calls = []

    def fails(ids):
        calls.append(len(ids))
        return IndexError("index out of range in self") if (ids == poison).any() else None

    texts = [*[f"red {letter}" for letter in "abcdefghijklmnop"], "poison a", "poison a"]
    found = encode_texts(failing(encoder, fails), texts)
    assert found.faults == dict.fromkeys((16, 17), "model_error: IndexError: index out of range in self")
    np.testing.assert_allclose(found.vectors[:16], encode_texts(encoder, texts[:16]).vectors, atol=1e-6)
    assert len(calls) <= 2 * 5 + 1, "halving finds one among 17 in log2 steps"


def test_a_text_that_the_tokenizer_refuses_costs_only_itself(folder):
    found = encode_texts(make_encoder(folder), ["red", "half \ud800", "blue"])
    assert list(found.faults) == [1]
    assert found.faults[1].startswith("tokenizer_error: ")


def test_numbers_that_are_none_are_a_fault_and_no_vector(folder):
    encoder = make_encoder(folder)

    class Model(torch.nn.Module):
        config = encoder.model.config

        def forward(self, input_ids, attention_mask):
            found = encoder.model(input_ids=input_ids, attention_mask=attention_mask)
            found.last_hidden_state[(input_ids == encoder.tokenizer.convert_tokens_to_ids("cold")).any(1)] = torch.nan
            return found

    found = encode_texts(dataclasses.replace(encoder, model=Model()), ["red", "cold", "blue"])
    assert list(found.faults) == [1]
    assert found.faults[1].startswith("vector_not_finite")
    assert not found.vectors[1].any()


def test_texts_end_where_the_model_has_no_more_positions(tmp_path):
    own = write_tiny_encoder(tmp_path / "short", max_positions=16)
    found = encode_texts(make_encoder(own, max_length=512), ["the " * 100])
    assert found.faults == {}
    assert found.stats.useful_tokens == 16


def test_a_model_is_loaded_once_per_process(folder):
    assert make_encoder(folder) is make_encoder(folder)


def test_int8_on_a_gpu_is_refused_before_anything_is_loaded(folder):
    with pytest.raises(ConfigError, match=r"int8 is for CPUs, found device cuda:0; take bf16"):
        make_encoder(folder, "cuda:0", precision="int8")


def test_encoding_needs_neither_java_nor_spark(folder):
    code = (
        "import sys\nfrom recsys_spark.config_encoder import EncoderConfig\n"
        "from recsys_spark.models.item_encoder import encode_texts, load_encoder\n"
        f"found = encode_texts(load_encoder(EncoderConfig(model={str(folder)!r})), ['red shoe'])\n"
        "print(found.vectors.shape, sorted({'pyspark', 'py4j', 'delta', 'mlflow'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env={"PATH": ""}
    )
    assert found.stdout.strip() == f"(1, {DIMENSIONS}) []"


@pytest.mark.gpu
def test_a_gpu_that_runs_out_of_memory_encodes_everything_in_smaller_batches(tmp_path):
    """A real one: the batch would need more than the card has."""
    own = write_tiny_encoder(tmp_path / "long", max_positions=2048)
    texts = [f"{first} {'the tea ' * 1000}{last}" for first in "abcdefghijklmnop" for last in ("", *"qrstuvwxyz")]
    encoder = make_encoder(own, "cuda:0", max_length=2048, tokens_per_batch=2048 * len(texts))
    torch.cuda.empty_cache()
    half_a_gb = 2**29 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(half_a_gb, 0)
    try:
        found = encode_texts(encoder, texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert found.faults == {}
    assert found.stats.memory_retries > 0
    alone = encode_texts(make_encoder(own, max_length=2048), texts[:3]).vectors
    np.testing.assert_allclose(found.vectors[:3], alone, atol=2e-3)
