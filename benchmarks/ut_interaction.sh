#!/usr/bin/env bash
# UT-Interaction, four folds by sequence: a teacher at 224 px a fold, students at 112 and 72 px with and without it.
# Usage: benchmarks/ut_interaction.sh [seeds…]; then benchmarks/accuracy_table.py runs/ut_interaction_ 112_alone
set -euo pipefail
for fold in 0 1 2 3; do
  folds="data.train.0.fold=$fold data.evaluate.0.fold=$fold"
  teacher=runs/ut_interaction_teacher_0_$fold
  vidistill train recipes/ut_interaction_teacher.yaml $folds "out=$teacher"
  for seed in ${*:-0 1 2}; do
    for size in 112 72; do
      run() {
        vidistill train recipes/ut_interaction_cross_resolution.yaml $folds "seed=$seed" "student.view.size=$size" \
          "out=runs/ut_interaction_${size}_$1_${seed}_$fold" "${@:2}"
      }
      run taught "teacher.checkpoint=$teacher/student.safetensors"
      run alone teacher=null 'method={name: supervised}'
    done
  done
done
