"""Walk every file below a folder and say which hold given bytes, raw or decoded."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow.parquet as pq


def files_that_hold(folder: Path, text: str) -> list[str]:
    """Names of the files (below folder) that hold the text: in their bytes, in their name, or in a Parquet file's values."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and _holds(p, text))


def _holds(path: Path, text: str) -> bool:
    raw, wanted = path.read_bytes(), text.encode()
    if wanted in raw or text in path.name:
        return True
    if raw[:2] == b"\x1f\x8b":
        return wanted in gzip.decompress(raw)
    if path.suffix == ".parquet" and raw[:4] == b"PAR1":
        # values are compressed and may be kept in dictionaries: read them as everybody would
        return any(
            _in_value(value, text, wanted)
            for row in pq.read_table(path, partitioning=None).to_pylist()
            for value in row.values()
        )
    return False


def _in_value(value: object, text: str, wanted: bytes) -> bool:
    if isinstance(value, dict):
        return any(_in_value(entry, text, wanted) for pair in value.items() for entry in pair)
    if isinstance(value, (list, tuple)):
        return any(_in_value(entry, text, wanted) for entry in value)
    return wanted in value if isinstance(value, bytes) else isinstance(value, str) and text in value
