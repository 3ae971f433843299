"""Texts -> vectors by a Hugging Face encoder. Free of Spark: it runs in a worker, in a service, or on a machine without Java.

Three things make it faster than a plain loop over batches: each distinct text is encoded once, texts are sorted by their number
of tokens so that little padding goes through the model, and the arithmetic may be bf16 or int8. The first two change no vector
beyond rounding. Torch and transformers are imported where a model is loaded, so that importing this module costs nothing.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.config_encoder import EncoderConfig
from recsys_spark.errors import ConfigError
from recsys_spark.models.encoder_files import encoder_folder, pooling_of
from recsys_spark.models.token_batches import token_batches

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

CPU = "cpu"
OUT_OF_MEMORY = "out_of_memory"
NOT_FINITE = "vector_not_finite"
MODEL_ERROR = "model_error"
TOKENIZER_ERROR = "tokenizer_error"
_TOKENS = {"cpu": 4096, "cuda": 131_072}  # at once, where the config names no number
_LENGTH_MULTIPLE = {
    "cpu": 1,
    "cuda": 8,
}  # matrix units of GPUs work in tiles of 8; what it brings has not been measured apart
_POSITIONS_AFTER_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")


@dataclass(frozen=True)
class Encoder:
    """A loaded model, on one device."""

    config: EncoderConfig
    device: str
    pooling: str
    tokenizer: Any
    model: Any

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.split(":")[0]

    @property
    def dimensions(self) -> int:
        """Numbers per vector."""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        """Token ids that the model knows."""
        return int(self.model.config.vocab_size)

    @property
    def max_length(self) -> int:
        """Tokens of a text: what the config says, at most what the model has positions for."""
        # models of RoBERTa's kind begin to count positions behind the padding's id
        positions = int(getattr(self.model.config, "max_position_embeddings", self.config.max_length))
        offset = self.pad_id + 1 if self.model.config.model_type in _POSITIONS_AFTER_PAD else 0
        return min(self.config.max_length, positions - offset)

    @property
    def pad_id(self) -> int:
        """Token that fills up short texts."""
        return int(self.tokenizer.pad_token_id or 0)


@dataclass
class EncodeStats:
    """What encoding took; adds up over calls."""

    texts: int = 0
    distinct_texts: int = 0
    useful_tokens: int = 0
    processed_tokens: int = 0
    """With padding, and with what had to be repeated."""
    tokenize_seconds: float = 0.0
    device_seconds: float = 0.0
    memory_retries: int = 0

    def add(self, other: EncodeStats) -> None:
        """Add the figures of another call."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Encoded:
    """The vectors of some texts, in their order."""

    vectors: NDArray[np.float32]
    """(texts, dimensions); zeros where a fault is named."""
    faults: dict[int, str] = field(default_factory=dict)
    """Place of a text -> why it has no vector: one of this module's reasons, with a detail behind a colon."""
    stats: EncodeStats = field(default_factory=EncodeStats)


class _Tokenized(NamedTuple):
    ids: NDArray[np.int64]  # of all texts, one behind the other
    offsets: NDArray[np.int64]  # (texts + 1,): where each begins; a text with a fault has none
    faults: dict[int, str]
    stats: EncodeStats


@lru_cache(maxsize=2)
def load_encoder(config: EncoderConfig, device: str = CPU) -> Encoder:
    """Load tokenizer and model, once per process and device; nothing is downloaded and no pickle is read.

    device is "cpu" or "cuda:N". Raises ConfigError when packages or files are missing or damaged, or the precision is not
    available on the device.
    """
    folder = encoder_folder(config)
    pooling = pooling_of(config, folder)
    if config.precision == "int8" and device != CPU:
        raise ConfigError(
            f"encoder {config.name!r}: precision int8 is for CPUs, found device {device}; take bf16 there"
        )
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            "encoding needs torch and transformers, which are not installed here; install the extra [text] on the driver and on "
            "every worker"
        ) from error
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except Exception as error:  # whatever a damaged file makes these libraries raise
        raise ConfigError(
            f"encoder {config.name!r}: the model in {folder} cannot be loaded ({type(error).__name__}: {_first_line(error)}); a file "
            "is damaged or of another kind of model: copy or save the model again"
        ) from error
    model = model.eval().to(device)
    if config.precision == "int8":
        model = _quantized(model)
    if config.compile and device != CPU:
        model = torch.compile(model, dynamic=True)
    encoder = Encoder(config, device, pooling, tokenizer, model)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.enable_truncation(encoder.max_length)
    return encoder


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode texts, each distinct one once; give float32 vectors in the order of the texts.

    A text of nothing but white space is encoded as any other: callers leave such texts out. A text that the tokenizer or the
    model fails on costs only itself: its batch is halved until it is alone, and its place is named in faults. When memory runs
    out, batches are halved for the rest of the texts that are sorted together. Raises RuntimeError when the device itself no
    longer answers.
    """
    distinct, inverse = _distinct(texts)
    stats = EncodeStats(texts=len(texts), distinct_texts=len(distinct))
    vectors = np.zeros((len(distinct), encoder.dimensions), np.float32)
    faults: dict[int, str] = {}
    starts = range(0, len(distinct), encoder.config.texts_per_batch)
    parts = [slice(start, start + encoder.config.texts_per_batch) for start in starts]
    with ThreadPoolExecutor(1) as ahead:  # the next texts are tokenised while the device works on these
        waiting = [ahead.submit(_tokenized, encoder, distinct[part]) for part in parts[:1]]
        for part, following in zip_longest(parts, parts[1:]):
            tokenized = waiting.pop().result()
            if following is not None:
                waiting.append(ahead.submit(_tokenized, encoder, distinct[following]))
            stats.add(tokenized.stats)
            found = tokenized.faults | _encode_part(encoder, tokenized, vectors[part], stats)
            faults |= {part.start + place: reason for place, reason in found.items()}
    of_texts = {place: faults[row] for place, row in enumerate(inverse.tolist()) if row in faults} if faults else {}
    return Encoded(vectors[inverse], of_texts, stats)


def _distinct(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    places: dict[str, int] = {}
    inverse = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
    return list(places), inverse


def _tokenized(encoder: Encoder, texts: list[str]) -> _Tokenized:
    """Give the tokens of every text that fits the model, and the faults of the others, by place."""
    start = time.perf_counter()
    tokens: list[list[int]] = [[]] * len(texts)
    faults: dict[int, str] = {}
    waiting = [range(len(texts))] if texts else []
    while waiting:
        places = waiting.pop()
        try:
            found = _token_ids(encoder, [encoder.config.prefix + texts[place] for place in places])
        except Exception as error:  # kept in faults, once the text is alone
            if len(places) == 1:
                faults[places[0]] = f"{TOKENIZER_ERROR}: {_first_line(error)}"
            else:
                half = len(places) // 2
                waiting += [places[half:], places[:half]]
            continue
        tokens[places.start : places.stop] = found
    ids, offsets = _flat(tokens)
    # a GPU that meets an unknown id is lost to the whole process, so it must not get that far
    unknown = np.searchsorted(offsets, np.flatnonzero(ids >= encoder.vocabulary_size), side="right") - 1
    empty = [place for place in np.flatnonzero(np.diff(offsets) == 0).tolist() if place not in faults]
    for place in {*unknown.tolist(), *empty}:
        faults[place] = (
            f"{TOKENIZER_ERROR}: no tokens, or tokens beyond the model's vocabulary of {encoder.vocabulary_size}"
        )
        tokens[place] = []
    if len(unknown):
        ids, offsets = _flat(tokens)
    return _Tokenized(
        ids, offsets, faults, EncodeStats(useful_tokens=len(ids), tokenize_seconds=time.perf_counter() - start)
    )


def _flat(tokens: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets = np.cumsum([0, *map(len, tokens)])
    return np.fromiter(chain.from_iterable(tokens), np.int64, int(offsets[-1])), offsets


def _token_ids(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    if encoder.tokenizer.is_fast:  # what the call below does, without places in the text, which it would throw away
        return [encoding.ids for encoding in encoder.tokenizer.backend_tokenizer.encode_batch_fast(texts)]
    ids: list[list[int]] = encoder.tokenizer(
        texts, truncation=True, max_length=encoder.max_length, padding=False, return_attention_mask=False
    )["input_ids"]
    return ids


def _encode_part(
    encoder: Encoder, tokenized: _Tokenized, vectors: NDArray[np.float32], stats: EncodeStats
) -> dict[int, str]:
    """Fill the vectors of texts that are sorted together; give the faults by place."""
    start = time.perf_counter()
    lengths = np.diff(tokenized.offsets)
    places = np.flatnonzero(lengths)
    max_tokens = encoder.config.tokens_per_batch or _TOKENS[encoder.kind]
    faults: dict[int, str] = {}
    waiting = deque(places[batch] for batch in token_batches(lengths[places], max_tokens))
    while waiting:
        rows = waiting.popleft()
        found, failure = _try_forward(encoder, tokenized, rows, stats)
        if found is not None:
            is_finite = np.isfinite(found).all(axis=1)
            vectors[rows[is_finite]] = found[is_finite]
            faults |= dict.fromkeys(rows[~is_finite].tolist(), f"{NOT_FINITE}: the model's answer is no number")
        elif len(rows) == 1:
            faults[int(rows[0])] = failure
        elif failure.startswith(OUT_OF_MEMORY):
            stats.memory_retries += 1
            max_tokens = max(1, min(max_tokens, int(lengths[rows].max()) * len(rows)) // 2)
            left = np.concatenate([rows, *waiting])
            waiting = deque(left[batch] for batch in token_batches(lengths[left], max_tokens))
            _log.warning(
                "encoder_out_of_memory device=%s tokens_per_batch=%d texts_left=%d",
                encoder.device,
                max_tokens,
                len(left),
            )
        else:
            half = len(rows) // 2
            waiting.extendleft([rows[half:], rows[:half]])
    stats.device_seconds += time.perf_counter() - start
    return faults


def _try_forward(
    encoder: Encoder, tokenized: _Tokenized, rows: NDArray[np.int64], stats: EncodeStats
) -> tuple[NDArray[np.float32] | None, str]:
    """Give the vectors (rows, dimensions), or null and why there are none."""
    try:
        return _forward(encoder, tokenized, rows, stats), ""
    except Exception as error:  # kept in the faults, once the text is alone
        reason = OUT_OF_MEMORY if _is_out_of_memory(error) else MODEL_ERROR
        failure = f"{reason}: {type(error).__name__}: {_first_line(error)}"
    # behind the except clause, whose traceback would keep the batch's tensors alive
    if encoder.kind == "cuda":
        _recover_device(encoder.device, failure)
    return None, failure


def _forward(
    encoder: Encoder, tokenized: _Tokenized, rows: NDArray[np.int64], stats: EncodeStats
) -> NDArray[np.float32]:
    import torch

    starts, lengths = tokenized.offsets[rows], np.diff(tokenized.offsets)[rows]
    multiple = _LENGTH_MULTIPLE[encoder.kind]
    columns = np.arange(min(-(-int(lengths.max()) // multiple) * multiple, encoder.max_length))
    mask = columns < lengths[:, None]  # (texts, tokens)
    ids = np.full(mask.shape, encoder.pad_id, np.int64)
    ids[mask] = tokenized.ids[(starts[:, None] + columns)[mask]]
    stats.processed_tokens += ids.size
    with torch.inference_mode():
        attention = torch.from_numpy(mask.astype(np.int64)).to(encoder.device)
        hidden = encoder.model(
            input_ids=torch.from_numpy(ids).to(encoder.device), attention_mask=attention
        ).last_hidden_state  # (texts, tokens, dimensions)
        vectors = pooled(hidden, attention, encoder.pooling)
        if encoder.config.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return np.asarray(vectors.cpu().numpy(), np.float32)


def pooled(hidden: torch.Tensor, attention: torch.Tensor, pooling: str) -> torch.Tensor:
    """(texts, tokens, dimensions) of any precision -> float32 (texts, dimensions); padding does not count."""
    import torch

    if pooling == "cls":
        return hidden[:, 0].float()
    weights = attention.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1, dtype=torch.float32) / weights.sum(1, dtype=torch.float32)


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return (
        isinstance(error, RuntimeError)
        and re.search(r"(?i)out of memory|can't allocate memory|ALLOC_FAILED", str(error)) is not None
    )


def _recover_device(device: str, failure: str) -> None:
    """Give back what a failed batch held, and make sure that the device still works: an error can end its whole context."""
    import torch

    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        raise RuntimeError(
            f"{device} no longer answers after an error ({failure}); the process has to end before it can be used again, and the "
            "task is tried again in a new one"
        ) from error


def _quantized(model: Any) -> Any:
    """Weights of the linear layers as int8, activations scaled per batch (torch's dynamic quantisation)."""
    import torch

    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
