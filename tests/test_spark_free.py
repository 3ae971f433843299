"""What runs in a worker, in a service or before set-up is complete imports without Spark, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "columns", "errors", "config", "config_file", "log", "cli", "demo_data", "doctor",
    "data.normal_form", "evaluation.metrics", "evaluation.run_results", "evaluation.report", "evaluation.summary",
    "evaluation.significance", "evaluation.blocks",
    "models.top_k", "models.item_encoder", "models.encoder_files", "models.token_batches",
    "models.neighbours", "models.ease", "models.version", "infra.jvm", "infra.spark_conf",
    "search_space", "evaluation.windows",
    "data.checks", "infra.prometheus", "infra.ingest_gauges",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_without_spark_delta_and_mlflow(module):
    heavy = ["pyspark", "delta", "mlflow", "torch"]
    code = f"import sys, recsys_spark.{module}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (found.stdout.strip(), found.stderr) == ("[]", "")
