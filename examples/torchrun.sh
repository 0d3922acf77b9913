#!/usr/bin/env bash
# Train on several processes of this machine, one for each GPU or, by ACCELERATOR=cpu, on its CPUs:
#   PROCESSES=2 ACCELERATOR=cpu examples/torchrun.sh --config hscl.yaml --data.batch_size 125
# A run that was stopped goes on by --ckpt_path last. On several machines, give torchrun their number and a meeting point
# in the place of --standalone: --nnodes 2 --rdzv_backend c10d --rdzv_endpoint HOST:29500, and us --trainer.num_nodes 2.
set -euo pipefail
processes=${PROCESSES:-2}
exec torchrun --standalone --nproc_per_node "$processes" -m nc_lightning fit "$@" --config ddp.yaml \
  --trainer.devices "$processes" --trainer.accelerator "${ACCELERATOR:-auto}"
