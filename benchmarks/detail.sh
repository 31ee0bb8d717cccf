#!/usr/bin/env bash
# Fine detail decides the class: students at small sizes with and without their teacher, and the three-way experiment.
# Usage: benchmarks/detail.sh [seeds…], after the teacher's recipe; then benchmarks/accuracy_table.py runs/detail_ full
set -euo pipefail
for seed in ${*:-0 1 2}; do
  run() {
    vidistill train recipes/synthetic_detail.yaml "seed=$seed" "out=runs/detail_$1_$seed" "${@:2}"
  }
  alone() {
    run "$1" teacher=null 'method={name: supervised}' 'losses={task: 1.0}' "${@:2}"
  }
  alone full student.view.size=64
  for size in 40 32; do
    alone "${size}_alone" student.view.size=$size
    run "${size}_taught" student.view.size=$size
  done
  alone 32_enlarged student.view.size=64 student.view.detail=32
done
