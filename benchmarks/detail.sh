#!/usr/bin/env bash
# Fine detail decides the class: students at half the size with and without their teacher, and the three-way experiment.
# Usage: benchmarks/detail.sh [seeds…], after the teacher's recipe, which is also a student at full size; then
# benchmarks/accuracy_table.py runs/detail_ 32_alone; the picture: benchmarks/three_way.py
set -euo pipefail
for seed in ${*:-0 1 2}; do
  run() {
    vidistill train recipes/synthetic_detail.yaml "seed=$seed" "out=runs/detail_$1_$seed" "${@:2}"
  }
  alone() {
    run "$1" teacher=null 'method={name: supervised}' 'losses={task: 1.0}' "${@:2}"
  }
  run 32_taught
  alone 32_alone
  alone 32_enlarged student.view.size=64 student.view.detail=32
done
