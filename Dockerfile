# The `sensorium` command, and the flows as Prefect's workers run them. docs/containers-and-clusters.md says how.
#
#   docker build --tag sensorium-pipeline:0.1.0-cpu .
#   docker build --tag sensorium-pipeline:0.1.0-cuda --build-arg TORCH=cuda --build-arg EXTRAS=s3 .

ARG PYTHON=3.11.14-slim-bookworm

# The dependencies: a layer of several gigabytes, built again only when pyproject.toml or the arguments change.
FROM python:${PYTHON} AS dependencies

# cpu, or cuda: torch with the CUDA libraries that it brings; the host provides the driver.
ARG TORCH=cpu
# Of pyproject.toml, separated by commas: s3, gcs, azure for object stores; docker, kubernetes for workers.
ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /opt/sensorium
COPY pyproject.toml README.md LICENSE ./
# Without its packages the project is installed for its dependencies alone, whose versions pyproject.toml bounds.
# hadolint ignore=DL3013
RUN case "$TORCH" in \
      cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
      cuda) ;; \
      *) echo "TORCH is cpu or cuda, not $TORCH" >&2; exit 1 ;; \
    esac; \
    pip install ".${EXTRAS:+[$EXTRAS]}" && pip uninstall --yes sensorium-pipeline


FROM python:${PYTHON}

LABEL org.opencontainers.image.title="sensorium-pipeline" \
      org.opencontainers.image.description="SENSORIUM 2023 from the archives to a validated submission" \
      org.opencontainers.image.licenses="Apache-2.0"

# tini passes signals on and collects the processes that trainings leave: process 1 has to.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini=0.19.* \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 sensorium \
 && useradd --uid 10001 --gid 10001 --create-home sensorium \
 && install --directory --owner=10001 --group=10001 /data /cache

COPY --from=dependencies /opt/venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    # The code belongs to root.
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/cache \
    MPLCONFIGDIR=/cache/matplotlib \
    PREFECT_HOME=/cache/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=90 \
    SENSORIUM_RUNS=/data/runs

WORKDIR /opt/sensorium
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY deploy deploy
COPY sensorium_data sensorium_data
COPY models models
COPY flows flows
# Editable: deployed flows run from this folder, as from a clone.
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --editable . \
 && python -m compileall -q sensorium_data models flows

# Numbers, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/cache"]
ENTRYPOINT ["tini", "--", "/opt/sensorium/deploy/entrypoint.sh"]
CMD ["--help"]
