#!/usr/bin/env bash
# Which blocks and which students: CamVid, equal budgets. Runs that are complete are only scored again.
# Usage: benchmarks/blocks.sh [seeds…]; then benchmarks/pareto.py runs
set -euo pipefail
candidates='[{kind: copy}, {kind: separable}, {kind: separable, reduction: 8}, {kind: nothing}]'
run() {  # name, then overrides
  local name=$1; shift
  for seed in $seeds; do
    vidistill train "recipes/${recipe}.yaml" "seed=$seed" "out=runs/blocks_${name}_$seed" "$@"
  done
}
seeds=${*:-0 1 2}
others='method.others={kind: separable, reduction: 8}'
recipe=camvid_coarse
run network_copy
run network_copy_47 method.student.scale=0.47
run network_copy_44 method.student.scale=0.44
run network_copy_untrained optim.steps=0
recipe=camvid_delta
run layer_separable_4
run layer_separable_8 method.student.reduction=8
run block_bottleneck method.granularity=block method.student='{kind: bottleneck, reduction: 4}' "$others"
run stage_bottleneck method.granularity=stage method.student='{kind: bottleneck, reduction: 2}' "$others"
run layer_searched_macs losses.cost=0.03 "method.search={candidates: $candidates, cost: macs, size: [360, 480]}"
run layer_searched_latency losses.cost=0.03 "method.search={candidates: $candidates, cost: latency, size: [360, 480]}"
