#!/usr/bin/env bash
# Detectors on PETS: two teachers, their students and controls, and one network on YOLOX-nano's boxes alone.
# Usage: benchmarks/pets.sh [seeds…]; then benchmarks/seeds_table.py runs/pets_efficientdet_, and runs/pets_faster_rcnn_
set -euo pipefail
seeds=${*:-0 1 2}
students() {  # of a network, each kind
  vidistill train "recipes/pets_$1_teacher.yaml"
  for seed in $seeds; do
    for kind in "${@:2}"; do
      vidistill train "recipes/pets_$1_$kind.yaml" "seed=$seed" "out=runs/pets_$1_${kind}_$seed"
    done
  done
}
students efficientdet delta coarse low_rank
students faster_rcnn delta low_rank
[ -e runs/pets_yolox ] || vidistill label data/pets09_s2l1/vtest.avi --teacher data/weights/yolox/yolox_nano.onnx \
  --classes person --score 0.3 --out runs/pets_yolox
vidistill train recipes/pets_yolox_labels.yaml
