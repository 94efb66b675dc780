# CPU: docker build -f docker/cpu.Dockerfile -t mclr_fast:cpu . ; docker run --rm -v $PWD/runs:/work/runs mclr_fast:cpu
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends g++ git && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch --index-url "$TORCH_INDEX"
COPY . /source
RUN MCLR_FAST_CUDA=0 pip install --no-cache-dir "/source[demo,hub,metrics]"
WORKDIR /work
CMD ["torchrun", "-m", "mclr_fast.train"]
