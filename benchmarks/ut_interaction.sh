#!/usr/bin/env bash
# UT-Interaction, four folds by sequence: a teacher at 224 px a fold, students at 112 and 72 px with and without it; at 112
# also the collaborative method, its parts and the baselines.
# Usage: benchmarks/ut_interaction.sh [seeds…]; then benchmarks/accuracy_table.py runs/ut_interaction_ 112_alone
set -euo pipefail
[ -e runs/ut_interaction_frames ] || vidistill convert labelled_videos,root=data/ut_interaction,list_file=labels.csv \
  runs/ut_interaction_frames --layout labelled_frames
for fold in 0 1 2 3; do
  folds="data.train.0.fold=$fold data.evaluate.0.fold=$fold"
  teacher=runs/ut_interaction_teacher_0_$fold
  vidistill train recipes/ut_interaction_teacher.yaml $folds "out=$teacher"
  for seed in ${*:-0 1 2}; do
    run() {
      vidistill train recipes/ut_interaction_cross_resolution.yaml $folds "seed=$seed" "student.view.size=$1" \
        "out=runs/ut_interaction_$1_$2_${seed}_$fold" "${@:3}"
    }
    taught() {
      run "$@" "teacher.checkpoint=$teacher/student.safetensors"
    }
    for size in 112 72; do
      taught $size taught
      run $size alone teacher=null 'method={name: supervised}'
    done
    taught 112 logits 'method={name: supervised}' task.temperature=2.0
    taught 112 spectrum 'method={name: collaborative, stages: 2, parameters: false, weighting: fixed}'
    taught 112 parameters 'method={name: collaborative, stages: 2, spectrum: null, weighting: fixed}'
    taught 112 all 'method={name: collaborative, stages: 2, logits: true, weights_learning_rate: 0.01}' task.temperature=2.0
  done
done
