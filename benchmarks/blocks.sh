#!/usr/bin/env bash
# Which blocks and which students: CamVid, three seeds, equal budgets. Runs that are complete are only scored again.
# Usage: benchmarks/blocks.sh [seeds…]; then benchmarks/pareto.py runs
set -euo pipefail
candidates='[{kind: copy}, {kind: separable}, {kind: separable, reduction: 8}, {kind: copy, scale: 0.5}, {kind: nothing}]'
blocks='[{kind: copy}, {kind: copy, scale: 0.5}, {kind: bottleneck}, {kind: bottleneck, scale: 0.5}, {kind: nothing}]'
run() {  # name, then overrides
  local name=$1; shift
  for seed in $seeds; do
    vidistill train "recipes/${recipe}.yaml" "seed=$seed" "out=runs/blocks_${name}_$seed" "$@"
  done
}
seeds=${*:-0 1 2}
recipe=camvid_coarse
run network_copy
run network_copy_75 method.student.scale=0.75
run stage_copy method.granularity=stage
run block_copy method.granularity=block
fresh="optim.learning_rate=1.0e-4 method.student_learning_rate_factor=10"
run stage_bottleneck method.granularity=stage method.student='{kind: bottleneck, reduction: 4}' $fresh
run block_bottleneck method.granularity=block method.student='{kind: bottleneck, reduction: 4}' $fresh
recipe=camvid_delta
run layer_separable
run layer_searched_macs "method.search={candidates: $candidates, cost: macs, size: [360, 480]}"
run layer_searched_latency "method.search={candidates: $candidates, cost: latency, size: [360, 480]}"
run block_searched_latency method.granularity=block "method.search={candidates: $blocks, cost: latency, size: [360, 480]}"
