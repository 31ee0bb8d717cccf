#!/usr/bin/env bash
# Vid4 ×4 (BI): the teacher, then three students without distillation, with both parts, with these and the teacher's frames
# (`all`), and with the teacher's frames alone (`outputs`), three seeds each; with one part and with a random ConvLSTM, one seed
# each; and VESPCN whose ConvLSTM never freezes, and freezes early.
# Usage: [TEACHER="key=value…"] benchmarks/vid4.sh [key=value…]; then benchmarks/vid4_table.py runs/vid4_*_[0-9], which scores all.
# key=value…, as data.clip.patch=24: for every student; TEACHER's: for the teacher. What is there already is not trained again.
set -euo pipefail
# shellcheck disable=SC2086  # TEACHER is several words
[[ -e runs/vid4_edvr/student.safetensors ]] || vidistill train recipes/vid4_edvr.yaml ${TEACHER:-}
run() {  # kind, seed, recipe, its settings
  local out="runs/vid4_${student}_$1_$2"
  [[ -e $out/results.json ]] || vidistill train "recipes/vid4_$3.yaml" "seed=$2" "out=$out" 'data.evaluate=[]' "${@:4}"
}
for student in vsrnet vespcn fastdvdnet; do
  taught="${student}_space_time"
  for seed in 0 1 2; do
    run none $seed $student "$@"
    run both $seed $taught "$@"
    run all $seed $taught 'losses={teacher: 1.0}' "$@"
    run outputs $seed $taught 'method={name: supervised}' 'losses={task: 1.0, teacher: 3.0}' "$@"
  done
  run space 0 $taught method.time=0 "$@"
  run time 0 $taught method.space=0 "$@"
  run random 0 $taught method.random_cell=true "$@"
done
student=vespcn
run collapse 0 vespcn_space_time method.freeze_below=null "$@"
run frozen 0 vespcn_space_time method.freeze_below=1.0e-4 "$@"
