"""Logging of the whole package: one handler, key=value messages, JSON lines on request, a progress line on a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_ROOT = "recsys_spark"
_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the record as one line of JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _TerminalHandler(logging.StreamHandler):
    """Writes above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def configure_logging(verbose: bool = False, json_lines: bool = False, quiet: bool = False) -> None:
    """Send the package's log lines to stderr; called once by the command line, never by the library.

    verbose adds debug lines, json_lines gives one JSON object a line, quiet keeps warnings only (used beside a progress
    bar). Calling it again replaces the handler, so that tests and notebooks do not print twice.
    """
    logger = logging.getLogger(_ROOT)
    handler: logging.Handler = _TerminalHandler() if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if json_lines else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


@contextmanager
def log_step(step: str, **facts: object) -> Iterator[dict[str, object]]:
    """Log the start and the end of a step with its seconds; facts put into the yielded dict appear in the end line."""
    _log.debug("%s started %s", step, key_values(facts))
    results: dict[str, object] = {}
    start = time.perf_counter()
    yield results
    _log.info("%s seconds=%.1f %s", step, time.perf_counter() - start, key_values({**facts, **results}))


def key_values(facts: dict[str, object]) -> str:
    """Give a dict as `a=1 b=2`; whole floats lose their point."""
    return " ".join(f"{key}={int(v) if isinstance(v, float) and v.is_integer() else v}" for key, v in facts.items())


@contextmanager
def progress_bar(total: int, unit: str = "step") -> Iterator[tqdm]:
    """A progress line on the driver's terminal; silent where stderr is not a terminal (log lines say the same there)."""
    with tqdm(total=total, unit=unit, file=sys.stderr, disable=None, leave=False, dynamic_ncols=True) as bar:
        yield bar
