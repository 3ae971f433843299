"""The typed configuration: every knob with its default, its range and a sentence. conf/base.yaml lists the same values.

A file holds only what differs from the defaults. `load_config` applies: defaults <- file <- `--set dotted.key=value`.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.config_base import BaseConfig, WeightScale
from recsys_spark.config_checks import ChecksConfig
from recsys_spark.config_cleaning import CleaningConfig, NumberName
from recsys_spark.config_evaluation import EvaluationConfig
from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.config_neighbours import EaseConfig, NeighboursConfig, UserNeighboursConfig
from recsys_spark.config_sources import SourcesConfig
from recsys_spark.config_split import WindowsConfig
from recsys_spark.config_tune import TuneConfig
from recsys_spark.config_upkeep import EraseConfig, MaintainConfig

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class SparkConfig(BaseConfig):
    """The Spark session; what is not named here comes from spark-submit and spark-defaults.conf."""

    app_name: str = "recsys_spark"
    """Name shown in the Spark UI."""
    master: str | None = None
    """Spark master, for example local[2]; null leaves it to spark-submit (plain Python: local[*])."""
    shuffle_partitions: int | None = Field(None, ge=1)
    """spark.sql.shuffle.partitions; null keeps Spark's own default."""
    conf: dict[str, str] = {}
    """Any other Spark setting, by its own name."""
    check_workers: bool = True
    """On a cluster, compare the packages of the workers with the driver's before the first step, and stop when they differ."""
    check_workers_seconds: float = Field(600, gt=0)
    """How long that check waits for the first executor before it gives up with exit code 75."""


class TablesConfig(BaseConfig):
    """Where tables live: below one folder, or in a catalog."""

    catalog: str | None = None
    """`catalog.schema` or `schema` to address tables by name; null keeps them as folders below data_root/tables."""
    merge_attempts: int = Field(5, ge=1, le=100)
    """How often a write is tried when another writer was faster; each try starts from a fresh snapshot."""
    merge_backoff_seconds: float = Field(1.0, ge=0, le=600)
    """Pause before the second try; it doubles with each further one."""


class IngestConfig(BaseConfig):
    """Rules of ingest that hold for every source."""

    horizon_days: int = Field(30, ge=0, le=3650)
    """Dedupe horizon: an event older than this at its delivery is late, and duplicates are looked up this far around a batch."""
    near_duplicate_seconds: float = Field(0.0, ge=0, le=86_400)
    """Drop an event when the same user did the same to the same item within this time of it; 0 switches it off."""
    max_quarantined_share: float = Field(0.05, ge=0, le=1)
    """Above this share of quarantined lines nothing is written but the quarantine, and the job ends with exit code 3."""
    trim_ids: bool = False
    """Cut white space off both ends of user, item, event and session ids; an id of nothing else counts as missing."""
    unicode_form: Literal["NFC", "NFKC"] | None = None
    """Unicode normal form of these ids, so that one id written in two ways is one; null leaves ids as they came."""


class MonitoringConfig(BaseConfig):
    """Where figures of a run go besides the log and the table ingest_runs."""

    prometheus_dir: str | None = None
    """Existing local folder of a textfile collector; null writes no file."""


class SplitConfig(BaseConfig):
    """Global time split: train before validation_start, validation before test_start, test from there on. Midnight UTC."""

    validation_start: date | None = None
    """First day of validation; null leaves about validation_share of the events to it."""
    test_start: date | None = None
    """First day of test; null leaves about test_share of the events to it."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Used when validation_start is null."""
    test_share: float = Field(0.1, gt=0, lt=0.5)
    """Used when test_start is null."""
    windows: WindowsConfig = WindowsConfig()
    """Rolling windows of a backtest."""
    leave_last: int = Field(1, ge=1)
    """Protocols leave_last and by_user: so many last events of a user are truth."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Protocols by_user and by_item: share of the users or items that no model learns from."""
    seed: int = 42
    """Protocols by_user and by_item: another seed holds out others."""

    @model_validator(mode="after")
    def _in_order(self) -> SplitConfig:
        if self.validation_start and self.test_start and self.validation_start >= self.test_start:
            raise ValueError(f"validation_start {self.validation_start} must be before test_start {self.test_start}")
        return self


class InteractionsConfig(BaseConfig):
    """How events become one weighted row per user and item."""

    event_weights: dict[str, NonNegativeFloat] = {}
    """Weight of one event by its type; types not named weigh default_weight, 0 leaves a type out."""
    default_weight: float = Field(1.0, ge=0)
    """Weight of event types that event_weights does not name."""
    weight_column: NumberName | None = None
    """`value` or an attribute: the event's weight is multiplied by it. Missing counts as 1; events of 0 or less are left out."""
    half_life_days: float | None = Field(None, gt=0)
    """An event this old at the cutoff weighs half; null: no decay."""
    min_item_events: int = Field(1, ge=1)
    """Items with fewer events before the cutoff are left out of every model's catalogue."""
    min_user_events: int = Field(1, ge=1)
    """Users with fewer events before the cutoff are treated as unknown."""


class PopularConfig(BaseConfig):
    """Popularity: distinct users per item."""

    recent_days: int = Field(28, ge=1)
    """Window of the model popular_recent, counted back from the cutoff."""


class AgainConfig(BaseConfig):
    """What the user had before, by decayed count."""

    half_life_days: float = Field(60.0, gt=0)
    """Age at which a past event counts half."""


class AlsConfig(BaseConfig):
    """Implicit ALS (Hu, Koren, Volinsky 2008)."""

    engine: Literal["spark", "implicit"] = "spark"
    """spark: MLlib, over the cluster. implicit: the package of that name, in the driver's memory; the same objective."""
    rank: int = Field(64, ge=1, le=1024)
    """Number of latent factors."""
    max_iter: int = Field(12, ge=1, le=1000)
    """Alternations."""
    reg_param: float = Field(0.1, ge=0)
    """Regularisation in Spark's meaning: scaled by the number of ratings of the user or item."""
    alpha: float = Field(1.0, ge=0)
    """Confidence is 1 + alpha * weight; wants to grow with sparsity."""
    weight_scale: WeightScale = "log"
    """Weight given to ALS: as it is, log(1 + weight), or 1 for every pair."""
    num_blocks: int = Field(4, ge=1)
    """spark: blocks of users and of items; part of the result's identity, since floating point sums depend on it."""
    cg_steps: int = Field(3, ge=0, le=1000)
    """implicit: steps of conjugate gradients per row and alternation; 0 solves each row exactly, as Spark does, and is slower."""
    num_threads: int = Field(0, ge=0)
    """implicit: threads; 0 takes every core. Does not change the result."""
    max_driver_bytes: int = Field(4 * 2**30, gt=0)
    """implicit: what training may take of the driver's memory; more stops the job before anything is collected."""
    seed: int = Field(42, ge=0)
    """Start values of the factors."""


class RecommendConfig(BaseConfig):
    """Top-K lists."""

    k: int = Field(20, ge=1, le=1000)
    """Length of the stored lists."""
    models: tuple[Literal[
        "popular", "popular_recent", "again", "neighbours", "user_neighbours", "ease", "als", "feature_factors",
    ], ...] = Field((
        "popular", "popular_recent", "again", "neighbours", "als",
    ), min_length=1)  # fmt: skip
    """Models in the order of the tables that people read."""
    tasks: tuple[Literal["next", "discovery"], ...] = Field(("next", "discovery"), min_length=1)
    """next: repeats allowed; discovery: items that the user had are masked."""
    fallback: Literal["popular", "popular_recent"] = "popular_recent"
    """What users get that a model does not know."""
    max_per_category: int | None = Field(None, ge=1)
    """At most so many items of one category (of the items table) in a list; null: no limit. Items without one are not limited."""
    index: Literal["exact", "approximate"] = "exact"
    """How models with vectors of users and items find their lists: from all dot products, or through an approximate index."""
    max_block_bytes: int = Field(256 * 2**20, ge=2**20)
    """Limit of one block of scores in a worker (users x items x 4 bytes)."""
    max_broadcast_bytes: int = Field(512 * 2**20, ge=0)
    """Similarities (for user_neighbours: interactions), at 12 bytes each, above this are joined in Spark, not sent to every worker."""

    @field_validator("models", "tasks")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each name once, found {', '.join(twice)} more often")
        return names


class TrackingConfig(BaseConfig):
    """MLflow."""

    uri: str | None = None
    """Tracking server; null keeps a SQLite store below data_root/mlflow."""
    experiment: str = "recsys_spark"
    """Experiment name."""
    log_ingest: bool = False
    """Make each ingest run an MLflow run, too."""


class Config(BaseConfig):
    """Everything a job needs to know."""

    data_root: str = "data/default"
    """Folder or Hadoop URI below which tables, reports and the MLflow store live."""
    spark: SparkConfig = SparkConfig()
    """The Spark session."""
    tables: TablesConfig = TablesConfig()
    """Table addresses and retries."""
    sources: SourcesConfig = SourcesConfig()
    """What is ingested."""
    ingest: IngestConfig = IngestConfig()
    """Rules of ingest."""
    checks: ChecksConfig = ChecksConfig()
    """What an ingest run must look like."""
    monitoring: MonitoringConfig = MonitoringConfig()
    """Where figures of a run go."""
    split: SplitConfig = SplitConfig()
    """Train, validation and test."""
    cleaning: CleaningConfig = CleaningConfig()
    """Events that models learn from."""
    interactions: InteractionsConfig = InteractionsConfig()
    """Events to interactions."""
    popular: PopularConfig = PopularConfig()
    """Popularity models."""
    again: AgainConfig = AgainConfig()
    """Repeat model."""
    neighbours: NeighboursConfig = NeighboursConfig()
    """Item-item model."""
    user_neighbours: UserNeighboursConfig = UserNeighboursConfig()
    """User-user model."""
    ease: EaseConfig = EaseConfig()
    """Linear model of all pairs of items."""
    als: AlsConfig = AlsConfig()
    """ALS."""
    feature_factors: FeatureFactorsConfig = FeatureFactorsConfig()
    """Factorisation of features."""
    recommend: RecommendConfig = RecommendConfig()
    """Top-K lists."""
    approximate: ApproximateConfig = ApproximateConfig()
    """The approximate index."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Offline metrics."""
    tune: TuneConfig = TuneConfig()
    """Search for settings."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    maintain: MaintainConfig = MaintainConfig()
    """Upkeep of the tables' files."""
    erase: EraseConfig = EraseConfig()
    """Erasure of users."""

    @property
    def is_local(self) -> bool:
        """Say whether data_root is a folder of this machine and not a URI (s3a://..., hdfs:/...)."""
        return _URI.match(self.data_root) is None

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if max(self.evaluation.k) > self.recommend.k:
            raise ValueError(
                f"evaluation.k asks for {max(self.evaluation.k)} items but lists hold recommend.k = {self.recommend.k}"
            )
        unused = sorted(self.cleaning.changed_numbers() - {self.interactions.weight_column})
        if unused:
            raise ValueError(
                f"cleaning changes {unused}, which no model reads: interactions.weight_column is "
                f"{self.interactions.weight_column or 'null'}; expected it to name the one that is cleaned"
            )
        if not self.is_local and self.tracking.uri is None:
            raise ValueError(
                f"data_root {self.data_root} is no local folder, so the MLflow store cannot live below it; set tracking.uri"
            )
        return self
