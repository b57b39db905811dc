# Distillation and decoder training on NVIDIA devices.
#   docker build -f docker/train-cuda.Dockerfile -t colibri-train:cuda .
#   docker run --gpus all --ipc host -v $PWD/out:/work/out colibri-train:cuda distill train --plan
# PyPI's torch for Linux brings its own CUDA libraries; the driver of the host has to be new enough for them.
FROM python:3.11-slim

# a compiler is what torch.compile calls
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /work
COPY constraints.txt ./
COPY packages/core packages/core
COPY packages/testbed packages/testbed
COPY packages/vae packages/vae
COPY packages/distill packages/distill
RUN pip install --no-cache-dir -c constraints.txt \
      packages/core packages/testbed packages/vae packages/distill torchao tensorboard \
 && python -c "import torch; assert torch.version.cuda, 'this torch has no CUDA'"

ENV PYTHONUNBUFFERED=1
CMD ["distill", "--help"]
