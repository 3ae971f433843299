"""Every error that the package raises on purpose.

RecsysError
├── ConfigError         exit code 2
├── DataError           exit code 3
│   ├── SchemaError     exit code 3
│   └── DamagedFileError
├── RetryableError      exit code 75
├── ModelError          exit code 1
└── TrainingError       exit code 1

A message says what was expected, what was found and what to do. Errors of Spark, Delta and MLflow are passed on as they are.
"""


class RecsysError(Exception):
    """Base of the package's errors; its text is meant for the person who runs the job."""

    exit_code = 1


class ConfigError(RecsysError):
    """The configuration, the command line or the machine's set-up is wrong; nothing was started."""

    exit_code = 2


class DataError(RecsysError):
    """The input data is missing, unreadable or breaks a rule that stops the job."""

    exit_code = 3


class SchemaError(DataError):
    """A table or a file misses columns or has them in another type."""


class DamagedFileError(DataError):
    """A file of a delivery ends in the middle (a truncated archive) or cannot be opened; what is before the damage can be read."""


class RetryableError(RecsysError):
    """Something outside was busy or changed meanwhile; the same command may succeed later (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75


class ModelError(RecsysError):
    """A model is missing, was never trained for the date asked, or gives numbers that cannot be used."""


class TrainingError(RecsysError):
    """A training run failed or gave factors that are not finite."""
