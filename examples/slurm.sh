#!/usr/bin/env bash
# Train on two machines of a SLURM cluster with four GPUs each, one task for each GPU:
#   sbatch examples/slurm.sh --config hscl.yaml --config cifar100.yaml --data.batch_size 60
# Two minutes before its time is up every task is told to stop: they save a checkpoint and end with code 143, and the job
# is put into the queue again. So it is by SLURM when it was preempted or a machine failed. It goes on from the newest
# whole checkpoint by --ckpt_path last, which starts anew where there is none. Give each job a folder of its own.
#SBATCH --job-name=nc-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
status=0
srun nc-train fit "$@" --config ddp.yaml \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" --ckpt_path last || status=$?
if [ "$status" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
