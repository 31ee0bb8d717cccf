"""A tiny training run, as a function and as a program that tests can start, kill and distribute."""

import argparse
from pathlib import Path

import torch

from tests.networks import TinySegmenter
from vidistill.data.augment import View
from vidistill.data.synthetic import synthetic
from vidistill.data.training import ClipSettings, TrainingClips
from vidistill.distill.delta.method import Delta
from vidistill.distill.delta.plan import StudentSpec
from vidistill.distill.teacher import FrozenTeacher
from vidistill.ops.normalise import Normalisation
from vidistill.tasks.segmentation import Segmentation
from vidistill.train import OptimSettings, Training, train


def training_of(folder: Path, *, steps: int, workers: int = 0, reduction: int = 4, **optim) -> Training:
    """Delta distillation of a tiny network on a tiny synthetic set, with labels and a frozen teacher."""
    torch.manual_seed(7)
    network = TinySegmenter(num_classes=4)
    dataset = synthetic(num_sequences=2, num_frames=5, size=(32, 48), num_classes=4, seed=0)
    clips = TrainingClips([dataset], ClipSettings(max_gap=3, view=View(crop=(24, 32), scale=(0.8, 1.2), colour=0.2)))
    method = Delta(student=StudentSpec(reduction=reduction))
    settings = OptimSettings(
        learning_rate=3e-3, steps=steps, batch_size=4, num_workers=workers, checkpoint_every=4, **optim
    )
    return Training(
        student=method.prepare(network, torch.zeros(1, 3, 24, 32)),
        teacher=FrozenTeacher(network),
        method=method,
        task=Segmentation(num_classes=4),
        clips=clips,
        loss_weights=method.default_losses,
        optim=settings,
        normalisation=Normalisation(),
        seed=1,
        folder=folder,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--announce", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def announce(step: int) -> bool:
        if step == arguments.announce:
            print("reached", flush=True)
        return False

    train(training_of(arguments.folder, steps=arguments.steps, workers=arguments.workers), should_stop=announce)


if __name__ == "__main__":
    main()
