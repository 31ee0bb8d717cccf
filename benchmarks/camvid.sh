#!/usr/bin/env bash
# The README's CamVid table: students and controls, three seeds each. Runs that are complete are only scored again.
# Usage: benchmarks/camvid.sh [seeds…]; then benchmarks/seeds_table.py runs/camvid_
set -euo pipefail
for seed in ${*:-0 1 2}; do
  for name in camvid_delta camvid_delta_no_labels camvid_low_rank camvid_fine_tuned; do
    vidistill train "recipes/$name.yaml" "seed=$seed" "out=runs/${name}_$seed"
  done
done
