#!/usr/bin/env bash
# Networks of other libraries: a U-Net and a SegFormer, each trained briefly on CamVid and then delta-distilled without labels.
# Usage: benchmarks/your_networks.sh; then read runs/your_*/report.html
set -euo pipefail
for name in unet segformer; do
  policy=out
  case $name in
    unet) network='{library: segmentation_models_pytorch, name: unet, options: {encoder_name: tu-resnet10t, encoder_weights: null, decoder_channels: [96, 64, 32, 16, 16]}}' ;;
    segformer)
      policy=min   # "out" leaves the wide layers of its blocks as they are: 75 % of the MACs
      network='{library: transformers, name: segformer, options: {depths: [2, 2, 2, 2], decoder_hidden_size: 128}}' ;;
  esac
  vidistill train recipes/camvid_teacher.yaml "student=$network" optim.steps=300 data.clip.crop='[192, 256]' data.clip.scale='[0.5, 1.1]' "out=runs/your_${name}_teacher"
  vidistill train recipes/camvid_delta_no_labels.yaml "teacher.checkpoint=runs/your_${name}_teacher/student.safetensors" "method.student.policy=$policy" \
    optim.steps=150 data.clip.crop='[192, 256]' data.clip.scale='[0.5, 1.1]' "out=runs/your_$name"
done
