#!/usr/bin/env bash
# Train a recipe on several machines under SLURM: sbatch tools/slurm.sh RECIPE [KEY=VALUE]...
# Adapt the #SBATCH lines below to the cluster. A job that is preempted and requeued resumes from its last checkpoint.
#SBATCH --job-name=semiseg
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --requeue
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch tools/slurm.sh RECIPE [KEY=VALUE]..." >&2; exit 2; }

host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=${SLURM_GPUS_PER_NODE:-4}
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / gpus))

# one launcher per machine; $SLURM_NODEID is only defined inside srun
exec srun bash -c '
  exec torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --nproc-per-node "$0" \
    --master-addr "$1" --master-port 29500 -m semiseg.train "${@:2}"
' "$gpus" "$host" "$@"
