#!/usr/bin/env bash
# Train on two nodes of a SLURM cluster with four GPUs each, one task per GPU:
#   sbatch examples/slurm.sh --config hscl.yaml --config cifar100.yaml --data.batch_size 60
# Two minutes before the time limit SLURM signals every task: the run saves a checkpoint and exits with code 143, and
# the job is requeued. SLURM itself requeues it after preemption or a node failure. With --ckpt_path last the run resumes
# from the newest undamaged checkpoint, or starts from scratch if there is none. Give each job its own folder.
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
