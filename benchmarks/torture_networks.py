"""Networks of other libraries by the hundred: what converts, is left or refused, and why. Part of `make torture`.

One small member of every family of timm that has feature maps; torchvision's segmenters and detectors;
segmentation-models-pytorch's decoders and encoders; Transformers' image networks from small configurations. All with
random weights. Each is converted layer by layer, takes one training step on a key frame and a later one, must give the
network's own outputs on a key frame, streams three frames, and, one in `--export-every`, is exported with parity.

Each runs in a process of its own, with a limit of time and memory. Prints a table; exits 1 where any has a fault.
"""

import argparse
import itertools
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidistill import Card, Stream
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models import build_network
from vidistill.models.libraries import import_torchvision
from vidistill.models.outputs import largest_gap, named_tensors
from vidistill.ops.modules import first_line
from vidistill.runtimes import RUNTIMES
from vidistill.students.delta.kinds.separable import Separable
from vidistill.students.student import Student
from vidistill.tasks import Task
from vidistill.tasks.depth import Depth
from vidistill.tasks.detection import Detection
from vidistill.tasks.segmentation import Segmentation

CLASSES = 5
SIZES = (64, 128, 224, 256, 384, 512)  # the first that a network takes
SMALL = ("atto", "femto", "pico", "nano", "xxs", "xxtiny", "xtiny", "tiny", "xs", "050", "small", "_s", "lite", "mini")
LARGE = ("base", "large", "huge", "giant")
# of a Transformers configuration, where it has the attribute
SMALLER: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64, "embed_dim": 16,
    "decoder_hidden_size": 32, "image_size": 64, "encoder_stride": 16, "out_indices": [1, 2, 3, 4],
    "auxiliary_channels": 16, "channels": 16, "hidden_dim": 32, "decoder_layers": 2, "d_model": 32,
    "neck_hidden_sizes": [16, 16, 32, 32], "fusion_hidden_size": 32,
}  # fmt: skip


class NotTried(Exception):
    """The case is not a network of one frame, or cannot be built."""


@dataclass(frozen=True)
class Case:
    """A network to try: its library's group, its name, and how it is built."""

    group: str
    name: str
    build: Callable[[], nn.Module]
    task: Task = field(default_factory=lambda: Segmentation(num_classes=CLASSES))


@dataclass
class Outcome:
    """What came of it: converts, refused, fault, over limits or not tried. export: the gap, or why there is none."""

    state: str
    group: str = ""
    name: str = ""
    size: int = 0
    converted: int = 0
    share: float = 0.0
    left: dict[str, int] = field(default_factory=dict)
    sentence: str = ""
    export: str = ""


class OnFeatures(nn.Module):
    """A classifier of every place on the last feature map of a backbone."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, frame: Tensor) -> Tensor:
        return self.head(list(self.backbone(frame))[-1])


def timm_features(name: str) -> nn.Module:
    import timm

    try:
        backbone = timm.create_model(name, features_only=True)
    except Exception as error:
        raise NotTried(f"no feature maps ({error})") from error
    if backbone.output_fmt.value not in ("NCHW", "NHWC") if hasattr(backbone, "output_fmt") else False:
        raise NotTried("its features are no maps")
    return OnFeatures(backbone, backbone.feature_info.channels()[-1])


def transformers_small(auto: str, model_type: str) -> nn.Module:
    import transformers

    mapping = getattr(transformers, auto)._model_mapping
    config_class = next(config for config in mapping if config.model_type == model_type)
    smaller = {name: value for name, value in SMALLER.items() if hasattr(config_class(), name)}
    for options in (smaller, {name: value for name, value in smaller.items() if name == "num_hidden_layers"}, {}):
        try:
            config = config_class(num_labels=CLASSES, **options)
            for name in ("use_pretrained_backbone", "use_timm_backbone"):
                if getattr(config, name, False):
                    raise NotTried(f"wants {name}")
            return getattr(transformers, auto).from_config(config)
        except NotTried:
            raise
        except Exception as error:
            reason = first_line(error)
    raise NotTried(f"cannot be built from its configuration ({reason})")


def cases() -> Iterator[Case]:
    """All of them, without building any."""
    import segmentation_models_pytorch as smp
    import timm
    import transformers

    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if names:
            yield Case("timm", min(names, key=_width), partial(timm_features, min(names, key=_width)))
    models = import_torchvision().models
    for name in models.list_models(module=models.segmentation):
        build = partial(build_network, name, "torchvision", {"num_classes": CLASSES, "aux_loss": None})
        yield Case("torchvision segmentation", name, build)
    for name in models.list_models(module=models.detection):
        options = {"num_classes": CLASSES, "weights": None, "weights_backbone": None}
        build = partial(build_network, name, "torchvision", options)
        yield Case("torchvision detection", name, build, Detection(num_classes=CLASSES))
    decoders = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    families: dict[str, str] = {}  # the smallest encoder of each
    for encoder in sorted(smp.encoders.get_encoder_names(), key=_width):
        families.setdefault(re.sub(r"[\d_.x-].*", "", encoder.removeprefix("timm-").removeprefix("tu-")), encoder)
    pairs = {*itertools.product(decoders, ("resnet18", "mobilenet_v2", "mit_b0", "tu-convnext_atto"))}
    pairs |= {*itertools.product(("unet", "fpn", "deeplabv3plus"), families.values())}
    for decoder, encoder in sorted(pairs):
        options = {"num_classes": CLASSES, "encoder_name": encoder}
        build = partial(build_network, decoder, "segmentation_models_pytorch", options)
        yield Case("segmentation_models_pytorch", f"{decoder} on {encoder}", build)
    for auto, task in (
        ("AutoModelForSemanticSegmentation", Segmentation(num_classes=CLASSES)),
        ("AutoModelForUniversalSegmentation", Segmentation(num_classes=CLASSES)),
        ("AutoModelForDepthEstimation", Depth()),
        ("AutoModelForImageClassification", None),
    ):
        for config in getattr(transformers, auto)._model_mapping:
            group = f"transformers {auto.removeprefix('AutoModelFor')}"
            yield Case(group, config.model_type, partial(transformers_small, auto, config.model_type), task)


def _width(name: str) -> tuple[int, int, str]:
    """Sorts the small networks of a family first, as far as names tell."""
    rank = next((i for i, word in enumerate(SMALL) if word in name), len(SMALL))
    rank += max((i for i, word in enumerate(LARGE, 1) if word in name), default=0)
    number = re.search(r"\d+", name)
    return rank, int(number[0]) if number else 0, name


def settle(network: nn.Module) -> None:
    """Gives batch normalisations statistics that do something, so that fusing one wrongly is seen."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)


def attempt(case: Case, *, exports: bool) -> Outcome:
    """Everything that is tried of one network."""
    torch.manual_seed(0)
    try:
        network = case.build().eval()
    except (NotTried, UserError):
        raise
    except Exception as error:  # the library itself
        raise NotTried(f"cannot be built ({first_line(error)})") from error
    settle(network)
    size = _size(network)
    images = (np.random.default_rng(0).random((3, size, size, 3)) * 255).astype(np.uint8)
    card = Card(task=case.task, key_frame_interval=10)
    method = Delta()
    student: Student = method.prepare(network, torch.zeros(1, 3, size, size), card=card)
    assert student.plan is not None
    left = dict(Counter(block.reason for block in student.plan.left))
    outcome = Outcome("converts", size=size, converted=len(student.plan.converted), share=student.plan.share, left=left)
    frames = card.normalisation(torch.from_numpy(images).movedim(-1, 1))
    _train(method, student, frames)
    student = method.finish(student)
    with torch.no_grad():
        wanted = network(frames[:1])
        outputs, state = student(frames[:1])
        gap = largest_gap(wanted, outputs)
        if not gap < 1e-5:
            return Outcome("fault", sentence=f"a key frame differs by {gap:.1e} of its scale")
        later, _ = student(frames[1:2], state)
        if {*named_tensors(later, "output")} != {*named_tensors(outputs, "output")}:
            return Outcome("fault", sentence="a later frame's outputs have another form")
    if case.task is not None:
        stream = Stream(student)
        own = case.task.decode(wanted, size=(size, size))[0].numpy()
        predictions = [stream.step(image).prediction for image in images]
        if own.dtype == np.uint8 and float((predictions[0] != own).mean()) > 0.01:  # classes of equal logits may swap
            return Outcome("fault", sentence="a stream's key frame is not the network's")
    if exports:
        outcome.export = _exported(student, size)
    return outcome


def _size(network: nn.Module) -> int:
    """The first size of frames on which it runs. Errors: the last one's."""
    for size in SIZES:
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, size, size))
        except Exception as error:
            last = error
        else:
            return size
    raise NotTried(f"runs on no frame ({first_line(last)})")


def _train(method: Delta, student: Student, frames: Tensor) -> None:
    """A training step on a key frame and a later one, of any loss: without an optimiser, so that nothing moves."""
    method.set_training(student)
    outputs, state = student(frames[:1].repeat(2, 1, 1, 1))
    later, _ = student(frames[1:2].repeat(2, 1, 1, 1), state)
    tensors = [t for tree in (outputs, later) for t in named_tensors(tree, "output").values() if t.requires_grad]
    torch.stack([tensor.float().square().mean() for tensor in tensors]).sum().backward()
    student.zero_grad(set_to_none=True)


def _exported(student: Student, size: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"{RUNTIMES['onnx'].export(student, Path(folder), size=(size, size)).gap:.0e}"
        except UserError as error:
            return str(error)


def run(case: Case, *, exports: bool, seconds: float, gigabytes: float) -> Outcome:
    """One case in a process of its own; one that ends without an answer is a fault."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        limit = int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        warnings.simplefilter("ignore")
        try:
            outcome = attempt(case, exports=exports)
        except NotTried as error:
            outcome = Outcome("not tried", sentence=str(error))
        except UserError as error:
            outcome = Outcome("refused", sentence=" ".join(str(error).split()))
        except MemoryError:
            outcome = Outcome("over limits", sentence=f"over {gigabytes:g} GB")
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            last = (str(error).splitlines() or [""])[0][:200]
            where = f"{Path(place.filename).name}:{place.lineno}"
            outcome = Outcome("fault", sentence=f"{type(error).__name__}: {last} ({where})")
            if "can't allocate memory" in last:
                outcome = Outcome("over limits", sentence=f"over {gigabytes:g} GB")
        sender.send(outcome)

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        outcome = receiver.recv() if receiver.poll(seconds) else Outcome("over limits", sentence=f"over {seconds:g} s")
    except EOFError:
        outcome = Outcome("fault", sentence=f"ended without a word (over {gigabytes:g} GB of memory?)")
    process.kill()
    process.join()
    outcome.group, outcome.name = case.group, case.name
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: by group, how many convert, are refused, have a fault; then why layers are left, what is refused."""
    lines = [
        "| networks | tried | convert | refused | faults | over limits | share, median | exported |",
        "|---" * 8 + "|",
    ]
    for group in dict.fromkeys(outcome.group for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.group == group and outcome.state != "not tried"]
        states = Counter(outcome.state for outcome in own)
        shares = sorted(outcome.share for outcome in own if outcome.state == "converts")
        exports = [outcome.export for outcome in own if outcome.export]
        good = sum(re.fullmatch(r"\de[+-]\d+", export) is not None for export in exports)
        share = f"{shares[len(shares) // 2]:.0%}" if shares else "–"
        counts = [len(own), *(states[state] for state in ("converts", "refused", "fault", "over limits")), share]
        lines.append(f"| {group} | {' | '.join(map(str, counts))} | {good} of {len(exports)} |")
    lines += ["", "Left, by reason (networks):"]
    reasons = Counter(_general(reason) for outcome in outcomes for reason in {_general(r) for r in outcome.left})
    lines += [f"- {reason} ({count})" for reason, count in reasons.most_common()]
    for title, state in (("Refused:", "refused"), ("Faults:", "fault")):
        lines += ["", title, *(f"- {o.group}, {o.name}: {o.sentence}" for o in outcomes if o.state == state)]
    lines += ["", "Not exported:"]
    lines += [f"- {o.group}, {o.name}: {o.export}" for o in outcomes if o.export and " " in o.export]
    return "\n".join(lines)


def _general(reason: str) -> str:
    """A reason without what it says of one network."""
    return re.sub(r"\(.*\)|^an? \S+,|'[^']*'|\d+", "…", reason)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of the group and name of what is tried")
    parser.add_argument("--every", type=int, default=1, help="try one in so many")
    parser.add_argument("--export-every", type=int, default=10, help="export one in so many; 0 for none")
    parser.add_argument("--seconds", type=float, default=180, help="for each network")
    parser.add_argument("--gigabytes", type=float, default=3, help="for each network")
    parser.add_argument("--json", type=Path, help="where every outcome is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    # the students' start, singular value decompositions, takes most of the time and is tested elsewhere
    setattr(Separable, "start", lambda student, block: None)  # noqa: B010 - what mypy does not let be assigned
    import_torchvision()
    outcomes = []
    chosen = [case for case in cases() if args.only in f"{case.group} {case.name}"][:: args.every]
    for number, case in enumerate(chosen):
        exports = bool(args.export_every) and number % args.export_every == 0
        outcome = run(case, exports=exports, seconds=args.seconds, gigabytes=args.gigabytes)
        outcomes.append(outcome)
        print(f"{number + 1}/{len(chosen)} {case.group} {case.name}: {outcome.state} {outcome.sentence}", flush=True)
        if args.json:
            args.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    print(table(outcomes))
    sys.exit(any(outcome.state == "fault" for outcome in outcomes))


if __name__ == "__main__":
    main()
