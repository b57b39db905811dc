# Videos on an AMD GPU. Not tried on one: see docs/rocm.md.
#   docker build -f docker/infer-rocm.Dockerfile -t colibri-infer:rocm .
#   docker run --device /dev/kfd --device /dev/dri --group-add video --ipc host \
#     -v $PWD/out:/work/out -v $HOME/.cache:/root/.cache colibri-infer:rocm infer doctor
# The image has ROCm's torch; it is kept, as the one from PyPI is built for CUDA.
ARG BASE=rocm/pytorch:latest
FROM ${BASE}

WORKDIR /work
COPY constraints.txt ./
COPY packages/core packages/core
COPY packages/testbed packages/testbed
COPY packages/vae packages/vae
COPY packages/infer packages/infer
# What is installed already is pinned to its own version, so that nothing replaces it.
RUN python -c "from importlib.metadata import distributions as d; \
names = ('torch', 'torchvision', 'triton', 'pytorch-triton-rocm'); \
print(*sorted({f'{x.name}=={x.version}' for x in d() if x.name in names}), sep='\n')" \
      > /tmp/kept.txt \
 && grep -viE '^(torch|triton)' constraints.txt > /tmp/constraints.txt \
 && pip install --no-cache-dir -c /tmp/kept.txt -c /tmp/constraints.txt \
      packages/core packages/testbed packages/vae "packages/infer[quant,serve]" \
 && python -c "import torch; assert torch.version.hip, 'torch lost its ROCm build'"

ENV PYTHONUNBUFFERED=1 TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1 MIOPEN_FIND_MODE=FAST
CMD ["infer", "doctor"]
