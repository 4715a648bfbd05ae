#!/bin/bash
# A run whose cells are jobs of Slurm. This job is its driver: it measures nothing, and has to live as long as the run.
#
#     sbatch examples/slurm.sh
#
# Change the lines of #SBATCH and what stands in capitals below them. Submitted again, or requeued by Slurm, it goes on
# with what is missing. `tlbench status FOLDER` says how far it is; `scancel --batch --signal=TERM JOB` stops it in good
# order. Where nodes may not submit jobs, start the last line on a login node, in tmux.

#SBATCH --job-name=tlbench
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=2-00:00:00
#SBATCH --output=tlbench-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time is up tlbench is told, cancels its jobs and keeps what is measured.
#SBATCH --signal=B:TERM@120

set -eu

ENVIRONMENT=.venv            # has tlbench[submitit], on a file system that all nodes see
IMAGES=/shared/photos        # the same place on all nodes
FOLDER=/shared/runs/photos   # of the run, on a file system that all nodes see
GRID=(--backbone "resnet18,resnet50" --freeze "linear_probe,last_1,full" --seeds "0-2" --device cuda --threads 4)
# What a job of a batch of cells gets; timeout_min is its time in minutes, in which a cell has to end.
JOBS=(--engine-option slurm_partition=gpu --engine-option slurm_account=mine --engine-option timeout_min=240)

# shellcheck source=/dev/null
. "$ENVIRONMENT/bin/activate"

# By exec tlbench takes the place of this shell, which Slurm sends its signals to.
if [ -e "$FOLDER/run.json" ]; then
    exec tlbench run --resume "$FOLDER" --engine submitit "${JOBS[@]}"
fi
exec tlbench run "$IMAGES" --out "$FOLDER" "${GRID[@]}" --engine submitit "${JOBS[@]}"
