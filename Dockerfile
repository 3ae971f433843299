# One image for the driver and the executors on Kubernetes, and for single containers:
#   docker build -t recsys-spark:0.1.0 .          docker run --rm recsys-spark:0.1.0 recsys doctor
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")" /opt/java
ENV JAVA_HOME=/opt/java

FROM base AS build
WORKDIR /build
COPY requirements/tools.txt requirements/default.txt requirements/
RUN python -m venv /opt/recsys/venv \
    && /opt/recsys/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/tools.txt \
    && /opt/recsys/venv/bin/uv pip install --no-cache --python /opt/recsys/venv/bin/python --require-hashes -r requirements/default.txt
COPY setup.py pyproject.toml README.md LICENSE ./
COPY conf conf
COPY recsys_spark recsys_spark
# Delta's jars go where every Spark of this image looks first: no session has to name them.
RUN /opt/recsys/venv/bin/uv build --python /opt/recsys/venv/bin/python --wheel --no-build-isolation --out-dir dist \
    && /opt/recsys/venv/bin/pip install --no-cache-dir --no-deps dist/*.whl \
    && /opt/recsys/venv/bin/python -m recsys_spark.infra.jvm \
    && ln -s "$(/opt/recsys/venv/bin/python -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')" /opt/recsys/spark \
    && ln -s /opt/recsys/venv/spark/jars/*.jar /opt/recsys/spark/jars/

FROM base
COPY --from=build /opt/recsys /opt/recsys
COPY bin/container bin/gpu-addresses /opt/recsys/bin/
COPY jobs /opt/recsys/jobs
COPY conf /opt/recsys/conf
ENV SPARK_HOME=/opt/recsys/spark \
    PYSPARK_PYTHON=/opt/recsys/venv/bin/python \
    PYSPARK_DRIVER_PYTHON=/opt/recsys/venv/bin/python \
    PATH=/opt/recsys/venv/bin:$PATH
# A number, so that Kubernetes can see that it is not root; the pod templates of conf/spark name the same one.
RUN useradd --uid 10001 --user-group --create-home recsys && install -d -o recsys -g recsys /work
USER 10001
WORKDIR /work
ENTRYPOINT ["/opt/recsys/bin/container"]
CMD ["recsys", "--help"]
