#!/usr/bin/env bash
# HRNet-w18-small on CamVid: a teacher, and students with a key frame every 3; smaller crops and fewer steps than the recipes'.
# Usage: benchmarks/hrnet.sh [seeds…]; then read runs/hrnet_*/report.html
set -euo pipefail
short=('data.clip.crop=[192,256]' 'data.clip.scale=[0.5,1.1]')
vidistill train recipes/camvid_hrnet_teacher.yaml optim.steps=900 "${short[@]}"
for seed in ${*:-0 1 2}; do
  vidistill train recipes/camvid_hrnet_delta.yaml optim.steps=200 "${short[@]}" "seed=$seed" "out=runs/hrnet_delta_$seed"
done
