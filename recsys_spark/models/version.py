"""The name of a trained model: the same data, cutoff and settings give the same version."""

from __future__ import annotations

import hashlib
import json
from datetime import date

from pydantic import BaseModel


def model_version(model: str, cutoff: date, data_version: int | tuple[int, ...], *settings: BaseModel) -> str:
    """Give `model-cutoff-hash`, where the hash covers the settings and the Delta version of the events table.

    A model that learns from several tables gives the versions of all of them.
    """
    content = json.dumps([data_version, *[part.model_dump(mode="json") for part in settings]], sort_keys=True)
    return f"{model}-{cutoff}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
