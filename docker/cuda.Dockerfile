# CUDA: docker build -f docker/cuda.Dockerfile -t mclr_fast:cuda . ; docker run --rm --gpus all -v $PWD/runs:/work/runs mclr_fast:cuda
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends g++ git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY . /source
RUN MCLR_FAST_CUDA=1 pip install --no-cache-dir "/source[demo,dali,hub,latents,logs,metrics]"
WORKDIR /work
CMD ["torchrun", "-m", "mclr_fast.train"]
