"""Column, table, bucket and reason names of the data contract, as plain strings (no Spark, so that workers may import them)."""

# ids: raw ids end in _id and are strings; dense integers end in _idx
USER_ID = "user_id"
ITEM_ID = "item_id"
USER_IDX = "user_idx"
ITEM_IDX = "item_idx"

# events
EVENT_ID = "event_id"
EVENT_TYPE = "event_type"
TIMESTAMP = "timestamp"
SESSION_ID = "session_id"
QUERY = "query"
VALUE = "value"
ATTRIBUTES = "attributes"
EVENT_DATE = "event_date"
SOURCE = "source"
INGEST_RUN = "ingest_run"

# raw lines on their way through ingest
RAW_LINE = "raw_line"
SOURCE_FILE = "source_file"
DELIVERY_DATE = "delivery_date"
LINE_HASH = "line_hash"
OCCURRENCE = "occurrence"
HEADER = "header"
FIELDS = "fields"
BUCKET = "bucket"
REASON = "reason"
DETAIL = "detail"
PAYLOAD_HASH = "payload_hash"

# ingest runs and their profile
FEED = "feed"
STATUS = "status"
IS_WRITTEN = "is_written"
STARTED_AT = "started_at"
FINISHED_AT = "finished_at"
SECONDS = "seconds"
COUNTS = "counts"
CHECKS = "checks"
FIELD = "field"
LINES = "lines"
NEWEST_TIMESTAMP = "newest_timestamp"

# items
TITLE = "title"
TEXT = "text"
CATEGORY = "category"
BRAND = "brand"
PRICE = "price"
UPDATED_AT = "updated_at"
TEXT_HASH = "text_hash"

# interactions and models
WEIGHT = "weight"
COUNT = "count"
FIRST_TIMESTAMP = "first_timestamp"
LAST_TIMESTAMP = "last_timestamp"
CUTOFF = "cutoff"
VECTOR = "vector"
NEIGHBOUR_ID = "neighbour_id"
NEIGHBOUR_USER_ID = "neighbour_user_id"
SIMILARITY = "similarity"
SCORE = "score"
RANK = "rank"
MODEL = "model"
MODEL_VERSION = "model_version"
RUN_DATE = "run_date"
TASK = "task"
IS_FALLBACK = "is_fallback"

# metrics
RUN_ID = "run_id"
PROTOCOL = "protocol"
SLICE = "slice"
METRIC = "metric"
K = "k"
NUM_USERS = "num_users"
CI_LOW = "ci_low"
CI_HIGH = "ci_high"

# upkeep of tables, and erased users
TABLE_NAME = "table_name"
DELTA_VERSION = "delta_version"
NUM_FILES = "num_files"
SIZE_BYTES = "size_bytes"
NUM_ROWS = "num_rows"
KIND = "kind"
KEY_HASH = "key_hash"
ERASED_AT = "erased_at"


class Bucket:
    """Where a physical line of a delivery ends: exactly one of these, and their sum is the number of lines read."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    LATE = "late"
    FILTERED = "filtered"
    QUARANTINED = "quarantined"
    UPDATED = "updated"  # items only: a newer row of an item that was there


READ = "read"
"""The physical lines of a delivery, in counts beside those of the buckets."""


class Reason:
    """Why a line was quarantined; docs/guide/ingest.md explains each."""

    MALFORMED = "malformed"
    INVALID_ENCODING = "invalid_encoding"
    NUL_BYTE = "nul_byte"
    TOO_LONG = "too_long"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NESTED_VALUE = "nested_value"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    BAD_TIMESTAMP = "bad_timestamp"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    DAMAGED_FILE = "damaged_file"  # one row for the file; the lines before the damage are read


class Task:
    """What is recommended: the next items with repeats allowed, or items that the user never had."""

    NEXT = "next"
    DISCOVERY = "discovery"


class Protocol:
    """How events were cut into what is learned and what is truth; stored with every number, never mixed in one comparison."""

    GLOBAL_TIME_SPLIT = "global_time_split"
    ROLLING_WINDOWS = "rolling_windows"
    LEAVE_LAST = "leave_last"  # stored with its k, as leave_last_1
    BY_USER = "by_user"
    BY_ITEM = "by_item"
