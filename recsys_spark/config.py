"""The typed configuration: every knob with its default, its range and a sentence. conf/base.yaml lists the same values.

A file holds only what differs from the defaults. `load_config` applies: defaults <- file <- `--set dotted.key=value`.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.config_base import BaseConfig
from recsys_spark.config_checks import ChecksConfig
from recsys_spark.config_cleaning import CleaningConfig, NumberName
from recsys_spark.config_upkeep import EraseConfig, MaintainConfig


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


class TablesConfig(BaseConfig):
    """Where tables live: below one folder, or in a catalog."""

    catalog: str | None = None
    """`catalog.schema` or `schema` to address tables by name; null keeps them as folders below data_root/tables."""
    merge_attempts: int = Field(5, ge=1, le=100)
    """How often a write is tried when another writer was faster; each try starts from a fresh snapshot."""
    merge_backoff_seconds: float = Field(1.0, ge=0, le=600)
    """Pause before the second try; it doubles with each further one."""


class ColumnConfig(BaseConfig):
    """Where one of our columns comes from. A plain string in the YAML is short for `column: that string`."""

    column: str | None = None
    """Field of the source."""
    expression: str | None = None
    """Spark SQL over the source's fields (all of them strings), for example `concat('m', movieId)`."""
    value: str | None = None
    """A constant."""
    type: Literal["string", "integer", "double"] | None = None
    """What the field must hold; null takes our column's own type. `integer` makes the ids 17850, "17850.0" and "017850" one."""
    timestamp_format: str | None = None
    """Spark datetime pattern, `epoch_seconds` or `epoch_millis`; null reads ISO 8601, without an offset as UTC."""

    @model_validator(mode="after")
    def _one_origin(self) -> ColumnConfig:
        origins = [name for name in ("column", "expression", "value") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"expected exactly one of column, expression, value; found {origins or 'none'}")
        return self


class EventIdConfig(BaseConfig):
    """How event_id is made when the source has none: a stable hash of named fields."""

    hash_of: tuple[str, ...] = Field(min_length=1)
    """Fields of the source whose values together name an event."""
    numbered: bool = False
    """Add the occurrence number inside the file, where equal lines in one delivery are real repeats and not double deliveries."""


class SourceConfig(BaseConfig):
    """One feed of files and how its fields become our columns."""

    name: str = Field("default", pattern=r"^[A-Za-z0-9_.-]+$")
    """Kept with every row; choose one per feed."""
    path: str | None = None
    """File, folder or glob, local or any Hadoop URI; `{date}` stands for the run date, or for any when there is none."""
    format: Literal["json", "csv", "parquet"] = "json"
    """json is one object a line."""
    delimiter: str = Field(",", min_length=1, max_length=8)
    """csv: what separates fields; several characters are allowed."""
    header: bool | tuple[str, ...] = True
    """csv: true reads the names from each file's first line; a list names the fields of files without such a line."""
    quote: str = Field('"', max_length=1)
    """csv: quote character; empty switches quoting off."""
    encoding: str = "UTF-8"
    """Character set of text files."""
    max_line_bytes: int = Field(1_000_000, ge=100)
    """Longer lines are quarantined."""
    date_pattern: str | None = None
    """Regular expression with one group that finds the delivery date (YYYY-MM-DD) in a file's path.

    With it `--date` reads that day's files only."""
    columns: dict[str, ColumnConfig] = {}
    """Our column -> where it comes from. Fields that no column uses are kept in attributes."""
    filters: dict[str, str] = {}
    """Rule name -> Spark SQL over the source's fields; lines where it holds are dropped and counted under that name."""

    @field_validator("encoding")
    @classmethod
    def _splits_at_newlines(cls, encoding: str) -> str:
        if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32")):
            raise ValueError(
                "lines are split at the byte of a newline, which this encoding does not have; convert the files to UTF-8"
            )
        return encoding

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {name: {"column": origin} if isinstance(origin, str) else origin for name, origin in columns.items()}


class EventSourceConfig(SourceConfig):
    """The behaviour log."""

    columns: dict[str, ColumnConfig] = {
        name: ColumnConfig(column=name) for name in ("event_id", "user_id", "item_id", "event_type", "timestamp")
    }
    """Our column -> where it comes from. Required are user_id, item_id, event_type, timestamp, and event_id unless it is made below."""
    event_id: EventIdConfig | None = None
    """How event_id is made when the source has none."""
    event_types: tuple[str, ...] | None = None
    """Accepted event types; null accepts any."""
    item_optional_for: tuple[str, ...] = ("search",)
    """Event types that may come without an item."""
    timestamp_min: date = date(1990, 1, 1)
    """Earlier events are quarantined."""
    timestamp_max: date = date(2100, 1, 1)
    """Later events are quarantined."""
    max_days_ahead: int = Field(2, ge=0)
    """Events more than this many days after their delivery date are quarantined (a collector's clock is wrong)."""

    @model_validator(mode="after")
    def _required_columns(self) -> EventSourceConfig:
        known = {"event_id", "user_id", "item_id", "event_type", "timestamp", "session_id", "query", "value"}
        required = {"user_id", "item_id", "event_type", "timestamp"} | (set() if self.event_id else {"event_id"})
        return _check_columns(self, known, required)


class ItemSourceConfig(SourceConfig):
    """The item feed; without a path the line runs without item texts."""

    columns: dict[str, ColumnConfig] = {name: ColumnConfig(column=name) for name in ("item_id", "title")}
    """Our column -> where it comes from. item_id is required."""

    @model_validator(mode="after")
    def _required_columns(self) -> ItemSourceConfig:
        known = {"item_id", "title", "text", "category", "brand", "price", "updated_at"}
        return _check_columns(self, known, {"item_id"})


def _check_columns(source: Any, known: set[str], required: set[str]) -> Any:
    unknown, missing = sorted(set(source.columns) - known), sorted(required - set(source.columns))
    if unknown:
        raise ValueError(f"columns {unknown} are not ours; ours are {sorted(known)} (other fields land in attributes)")
    if missing:
        raise ValueError(f"columns {missing} are required; say where each comes from")
    return source


class SourcesConfig(BaseConfig):
    """What is ingested."""

    events: EventSourceConfig = EventSourceConfig()
    """The behaviour log."""
    items: ItemSourceConfig = ItemSourceConfig()
    """The item feed."""


class IngestConfig(BaseConfig):
    """Rules of ingest that hold for every source."""

    horizon_days: int = Field(30, ge=0, le=3650)
    """Dedupe horizon: an event older than this at its delivery is late, and duplicates are looked up this far around a batch."""
    near_duplicate_seconds: float = Field(0.0, ge=0, le=86_400)
    """Drop an event when the same user did the same to the same item at most this long before, in the same batch; 0 switches it off."""
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


class NeighboursConfig(BaseConfig):
    """Item-item neighbours by shrunk cosine."""

    num_neighbours: int = Field(100, ge=1, le=10_000)
    """Neighbours kept per item."""
    shrink: float = Field(10.0, ge=0)
    """Added to the denominator, so that pairs seen together by few users count less."""


class AlsConfig(BaseConfig):
    """Implicit ALS of Spark MLlib (Hu, Koren, Volinsky 2008)."""

    rank: int = Field(64, ge=1, le=1024)
    """Number of latent factors."""
    max_iter: int = Field(12, ge=1, le=1000)
    """Alternations."""
    reg_param: float = Field(0.1, ge=0)
    """Regularisation in Spark's meaning: scaled by the number of ratings of the user or item."""
    alpha: float = Field(1.0, ge=0)
    """Confidence is 1 + alpha * weight; wants to grow with sparsity."""
    weight_scale: Literal["linear", "log", "one"] = "log"
    """Weight given to ALS: as it is, log(1 + weight), or 1 for every pair."""
    num_blocks: int = Field(4, ge=1)
    """Blocks of users and of items; part of the result's identity, since floating point sums depend on it."""
    seed: int = 42
    """Start values of the factors."""


class RecommendConfig(BaseConfig):
    """Top-K lists."""

    k: int = Field(20, ge=1, le=1000)
    """Length of the stored lists."""
    models: tuple[Literal["popular", "popular_recent", "again", "neighbours", "als"], ...] = (
        "popular", "popular_recent", "again", "neighbours", "als",
    )  # fmt: skip
    """Models in the order of the tables that people read."""
    tasks: tuple[Literal["next", "discovery"], ...] = ("next", "discovery")
    """next: repeats allowed; discovery: items that the user had are masked."""
    fallback: Literal["popular", "popular_recent"] = "popular_recent"
    """What users get that a model does not know."""
    max_per_category: int | None = Field(None, ge=1)
    """At most so many items of one category (of the items table) in a list; null: no limit. Items without one are not limited."""
    index: Literal["exact", "approximate"] = "exact"
    """How models with vectors of users and items find their lists: from all dot products, or through an approximate index."""
    max_block_bytes: int = Field(256 * 2**20, ge=2**20)
    """Limit of one block of scores in a worker (users x items x 4 bytes)."""


class EvaluationConfig(BaseConfig):
    """Offline metrics."""

    k: tuple[int, ...] = Field((10, 20), min_length=1)
    """Cut-offs."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals over users."""
    example_user: str | None = None
    """User whose history and lists the report shows by id, or `median` for the one of median activity; null shows nobody's."""


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
    als: AlsConfig = AlsConfig()
    """ALS."""
    recommend: RecommendConfig = RecommendConfig()
    """Top-K lists."""
    approximate: ApproximateConfig = ApproximateConfig()
    """The approximate index."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Offline metrics."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    maintain: MaintainConfig = MaintainConfig()
    """Upkeep of the tables' files."""
    erase: EraseConfig = EraseConfig()
    """Erasure of users."""

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
        if "://" in self.data_root and self.tracking.uri is None:
            raise ValueError(
                f"data_root {self.data_root} is no local folder, so the MLflow store cannot live below it; set tracking.uri"
            )
        return self
