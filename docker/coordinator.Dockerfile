# The coordinator of a study: Flower's SuperLink behind the guard, and the server app. CPU only: it trains nothing.
#   docker build -f docker/coordinator.Dockerfile -t fedurwkv-coordinator .
FROM python:3.11.14-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 FLWR_TELEMETRY_ENABLED=0 NO_ALBUMENTATIONS_UPDATE=1 \
    MPLCONFIGDIR=/tmp PATH=/opt/fedurwkv/.venv/bin:$PATH
WORKDIR /opt/fedurwkv
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --disable-pip-version-check \
       --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.lock
COPY . .
RUN .venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e . \
    && useradd --uid 10001 --create-home fedurwkv \
    && mkdir /study && chown fedurwkv /study
USER 10001
VOLUME /study
EXPOSE 9092
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s CMD ["fedurwkv", "coordinator", "status", "/study"]
ENTRYPOINT ["fedurwkv", "coordinator"]
CMD ["start", "/study"]
