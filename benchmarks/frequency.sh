#!/usr/bin/env bash
# Motion decides the class: spectra, parameters, all together, and the baselines; equal budgets, three seeds.
# Usage: benchmarks/frequency.sh [seeds…], after the teacher's recipe; then benchmarks/accuracy_table.py runs/frequency_
set -euo pipefail
for seed in ${*:-0 1 2}; do
  run() {
    vidistill train recipes/synthetic_frequency.yaml "seed=$seed" "out=runs/frequency_$1_$seed" "${@:2}"
  }
  run alone teacher=null 'method={name: supervised}' 'losses={task: 1.0}'
  run logits 'method={name: supervised}'
  run features 'method={name: cross_resolution, teacher_norms: stored, stages: 2}' losses.feature=1.0
  run spectrum
  run spectrum_without_mean 'method.spectrum={frequency_weights: [0, 1, 1, 1, 1]}'
  run features_without_mean 'method.spectrum={kind: complex, frequency_weights: [0, 1, 1, 1, 1]}'
  run parameters method.spectrum=null method.parameters=true
  run all method.parameters=true method.logits=true method.weighting=learned method.weights_learning_rate=0.01
done
