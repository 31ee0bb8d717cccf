"""Tiny training runs, as a function and as a program that tests can start, kill and distribute."""

import argparse
from pathlib import Path

import torch

from tests.networks import TinyClips, TinySegmenter
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.methods.collaborative import Collaborative
from vidistill.methods.delta import Delta
from vidistill.methods.processes import leave_processes
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.normalise import Normalisation
from vidistill.runs.train import OptimSettings, Training, train
from vidistill.students.card import Card
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.search import Search
from vidistill.tasks.recognition import Recognition
from vidistill.tasks.recognition.samples import ClassifiedClips, ClassifiedClipSettings
from vidistill.tasks.segmentation import Segmentation


def training_of(
    folder: Path, *, steps: int, workers: int = 0, reduction: int = 4, search: Search | None = None, **optim
) -> Training:
    """Delta distillation of a tiny network on a tiny synthetic set, with labels and a frozen teacher."""
    torch.manual_seed(7)
    network = TinySegmenter(num_classes=4)
    dataset = synthetic(num_sequences=2, num_frames=5, size=(32, 48), num_classes=4, seed=0)
    clips = DenseClips([dataset], DenseClipSettings(max_gap=3, crop=(24, 32), scale=(0.8, 1.2), colour=0.2))
    method = Delta(student=StudentSpec(reduction=reduction), search=search)
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


def clip_training_of(folder: Path, *, steps: int) -> Training:
    """Collaborative distillation, all of it, of a tiny network of clips on tiny made videos."""
    torch.manual_seed(7)
    dataset = synthetic_actions(num_videos=6, num_frames=8, size=16, num_classes=3, seed=0)
    clips = ClassifiedClips([dataset], ClassifiedClipSettings(num_frames=4, crop=12))
    view = clips.view_of({})
    teacher = FrozenTeacher(TinyClips(3, width=8), view)
    method = Collaborative(logits=True)
    settings = OptimSettings(learning_rate=0.05, steps=steps, batch_size=4, num_workers=0, weight_decay=0.01)
    return Training(
        student=method.prepare(TinyClips(3), clips.example(), card=Card(view=view), teacher=teacher),
        teacher=teacher,
        method=method,
        task=Recognition(num_classes=3),
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
    parser.add_argument("--search", action="store_true", help="for the first half of the run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def announce(step: int) -> bool:
        if step == arguments.announce:
            print("reached", flush=True)
        return False

    search = Search(until=0.5) if arguments.search else None
    training = training_of(arguments.folder, steps=arguments.steps, workers=arguments.workers, search=search)
    train(training, should_stop=announce)
    leave_processes()


if __name__ == "__main__":
    main()
