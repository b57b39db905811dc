# Videos on an NVIDIA GPU.
#   docker build -f docker/infer-cuda.Dockerfile -t colibri-infer:cuda .
#   docker run --gpus all -v $PWD/out:/work/out -v $HOME/.cache:/root/.cache colibri-infer:cuda \
#     infer t2v --prompt "..."
FROM python:3.12-slim

WORKDIR /work
COPY constraints.txt ./
COPY packages/core packages/core
COPY packages/testbed packages/testbed
COPY packages/vae packages/vae
COPY packages/infer packages/infer
# PyPI's torch for Linux is the one for CUDA.
RUN pip install --no-cache-dir -c constraints.txt \
      packages/core packages/testbed packages/vae "packages/infer[quant,serve]"

ENV PYTHONUNBUFFERED=1
CMD ["infer", "--help"]
