"""The text of the files that set-up puts into Spark's configuration folder, for one machine. Free of Spark.

They suit a laptop or a single server. A cluster brings its own SPARK_CONF_DIR, and none of this then applies.
"""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

MIB = 1024**2
GIB = 1024**3
_GENERATED = "# Written by `make setup` (recsys_spark/infra/spark_conf.py), which overwrites it: use --conf.\n"


def total_memory_bytes() -> int:
    """The memory this process may use: the machine's, or its container's limit where that is lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdigit():  # "max" means no limit
            limits.append(int(text))
    return min(limits)


def driver_memory(total_bytes: int) -> str:
    """The JVM's share: 30 % of the memory, at least 2 GiB and at most 4 GiB.

    Python workers, torch and the file cache need the rest, and the demo as a whole has to fit into 8 GB.
    """
    share = int(total_bytes * 0.3) // MIB
    return f"{max(2048, min(4096, share))}m"


def conf_files(jars: Iterable[Path], total_bytes: int, python: str) -> dict[str, str]:
    """Name and text of every file of the configuration folder."""
    return {
        "spark-defaults.conf": spark_defaults(jars, total_bytes, python),
        "spark-env.sh": spark_env(python),
        "log4j2.properties": _GENERATED + _LOG4J2,
    }


def spark_defaults(jars: Iterable[Path], total_bytes: int, python: str) -> str:
    """The text of spark-defaults.conf: what every session on this machine starts with."""
    return _GENERATED + _SPARK_DEFAULTS.format(
        jars=",".join(str(jar) for jar in jars), driver_memory=driver_memory(total_bytes), python=python
    )


def spark_env(python: str) -> str:
    """The text of spark-env.sh: what spark-submit needs in its environment when it is started by hand or by Airflow."""
    return _GENERATED + _SPARK_ENV.format(python=shlex.quote(python))


_SPARK_DEFAULTS = """\
# Delta Lake. As files, not as coordinates: no session touches the network, and spark-submit finds them too.
spark.jars {jars}
spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension
spark.sql.catalog.spark_catalog org.apache.spark.sql.delta.catalog.DeltaCatalog

# All cores of this machine, unless --master or the session says otherwise.
spark.master local[*]
# Fixed when the JVM starts, so it cannot be set later by a session: 30 % of the memory found, between 2 and 4 GiB.
spark.driver.memory {driver_memory}

# One time zone for SQL, for Java's own date code and for every machine. And methods above 8,000 bytecodes are compiled, too:
# what Spark generates for the many checks of a line is one such method (28 CPU seconds and not 40 per 1.5 million lines, once warm).
spark.sql.session.timeZone UTC
spark.driver.extraJavaOptions -Duser.timezone=UTC -XX:-DontCompileHugeMethods
spark.executor.extraJavaOptions -Duser.timezone=UTC -XX:-DontCompileHugeMethods

# Workers run the interpreter that has this package's dependencies.
spark.pyspark.python {python}
spark.pyspark.driver.python {python}

# The default of 200 shuffle tasks costs more than the work on one machine. A fixed number, not the number of cores:
# floating-point sums, and with them ALS factors, depend on it, and results should not change with the machine.
spark.sql.shuffle.partitions 8
# Delta replays a table's log with 50 tasks by default; local tables need 2, and every read and write gets faster.
spark.databricks.delta.snapshotPartitions 2
# Columns travel between the JVM and pandas as Arrow batches, not as pickled rows.
spark.sql.execution.arrow.pyspark.enabled true

# Progress bars overwrite log lines; jobs log their steps.
spark.ui.showConsoleProgress false
"""

_SPARK_ENV = """\
# On one machine nothing has to be reachable from outside; it also keeps Spark from guessing an address (VPN).
if [ -z "${{SPARK_LOCAL_IP:-}}" ]; then export SPARK_LOCAL_IP=127.0.0.1; fi
if [ -z "${{PYSPARK_PYTHON:-}}" ]; then export PYSPARK_PYTHON={python}; fi
if [ -z "${{PYSPARK_DRIVER_PYTHON:-}}" ]; then export PYSPARK_DRIVER_PYTHON={python}; fi
"""

_LOG4J2 = """\
# Warnings and errors only, so that a job's own log lines can be read.
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = console

appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss}{UTC} %p spark.%c{1} %m%n%ex

# Known and harmless on one machine. "No Partition Defined for Window operation" is neither, and stays visible.
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.plan.name = org.apache.spark.sql.catalyst.util.SparkStringUtils
logger.plan.level = error
logger.plan2.name = org.apache.spark.util.SparkStringUtils
logger.plan2.level = error
logger.dag.name = org.apache.spark.scheduler.DAGScheduler
logger.dag.level = error
logger.rdd.name = org.apache.spark.rdd.MapPartitionsRDD
logger.rdd.level = error
"""
