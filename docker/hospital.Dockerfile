# A hospital: trainer and connection, each in a container of its own from this one image.
#   CPU:   docker build -f docker/hospital.Dockerfile -t fedurwkv-hospital .
#   CUDA:  docker build -f docker/hospital.Dockerfile -t fedurwkv-hospital:cuda \
#            --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .     (the host brings the driver)
FROM python:3.11.14-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 FLWR_TELEMETRY_ENABLED=0 NO_ALBUMENTATIONS_UPDATE=1 \
    MPLCONFIGDIR=/tmp NUMBA_CACHE_DIR=/tmp/numba PATH=/opt/fedurwkv/.venv/bin:$PATH
WORKDIR /opt/fedurwkv
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --disable-pip-version-check \
       --extra-index-url "$TORCH_INDEX" -r requirements.lock
COPY . .
RUN .venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e . \
    && useradd --uid 10001 --create-home fedurwkv \
    && mkdir /site && chown fedurwkv /site
USER 10001
VOLUME /site
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s CMD ["fedurwkv", "site", "status", "/site"]
ENTRYPOINT ["fedurwkv", "site"]
CMD ["start", "/site"]
