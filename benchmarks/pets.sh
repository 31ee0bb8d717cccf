#!/usr/bin/env bash
# Detectors on PETS: two teachers, their students and controls, and one network on YOLOX-nano's boxes alone.
# Usage: benchmarks/pets.sh [seeds…]; then benchmarks/seeds_table.py runs/pets_efficientdet_, and runs/pets_faster_rcnn_
set -euo pipefail
for network in efficientdet faster_rcnn; do
  vidistill train "recipes/pets_${network}_teacher.yaml"
  for seed in ${*:-0 1 2}; do
    for kind in delta low_rank; do
      vidistill train "recipes/pets_${network}_$kind.yaml" "seed=$seed" "out=runs/pets_${network}_${kind}_$seed"
    done
  done
done
[ -e runs/pets_yolox ] || vidistill label data/pets09_s2l1/vtest.avi --teacher data/weights/yolox/yolox_nano.onnx \
  --classes person --score 0.3 --out runs/pets_yolox
vidistill train recipes/pets_yolox_labels.yaml
