#!/usr/bin/env bash
# Train with several processes on this machine, one per GPU, or on its CPUs with ACCELERATOR=cpu:
#   PROCESSES=2 ACCELERATOR=cpu examples/torchrun.sh --config hscl.yaml --data.batch_size 125
# A stopped run resumes with --ckpt_path last. On several machines, replace --standalone by
# --nnodes 2 --rdzv_backend c10d --rdzv_endpoint HOST:29500 --max-restarts 3, and add --trainer.num_nodes 2 and
# --ckpt_path last: a run that loses a process restarts from its newest checkpoint, in a folder that all machines share.
set -euo pipefail
# Agents of several machines count their restarts separately; in a store that outlives a restart, processes with another
# count would find the addresses of dead ones and fail until no restart is left.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
processes=${PROCESSES:-2}
exec torchrun --standalone --nproc_per_node "$processes" -m nc_lightning fit "$@" --config ddp.yaml \
  --trainer.devices "$processes" --trainer.accelerator "${ACCELERATOR:-auto}"
