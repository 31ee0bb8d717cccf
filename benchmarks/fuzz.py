"""Fuzzing: changed files of every kind, each read in a process of its own, with bounded memory and time.

Usage: python benchmarks/fuzz.py [KIND…] [--mutants 200] [--seconds 3600] [--seed 0] [--out runs/fuzz]

A mutant is a small good file with one to three changes, all decided by the seed, its kind and its number. It ends well
(`fine`), in the sentence of a UserError (`sentence`), or as a find: `traceback`, `hang` or `memory`. Of each different
find the smallest number of changes that shows it is kept in --out, with a text that says what happened and how to see
it again; then the command exits with 1.
"""

import argparse
import contextlib
import io
import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
import yaml
from PIL import Image as PillowImage
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models import MODELS, build_network
from vidistill.models.onnx_networks import onnx_network
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.runs.build import build, build_datasets
from vidistill.runs.check import check_data
from vidistill.runs.recipe import load_recipe
from vidistill.runs.rehearsal import finished, rehearse
from vidistill.runs.run import refuse_nothing_to_learn
from vidistill.runs.train import try_step
from vidistill.runtimes import open_student
from vidistill.stream.key_frames import Adaptive
from vidistill.stream.stream import Stream, load_state, save_state
from vidistill.students.card import Card
from vidistill.students.files import load_weights, save_student
from vidistill.students.windows import as_student
from vidistill.tasks import task_of

SECONDS = 20  # of processor time that one mutant may take, and six times as many of the clock
SPARE_MEMORY = 2 * 2**30  # bytes beyond what the process has when it starts
OUTCOMES = ("fine", "sentence", "traceback", "hang", "memory")
SIZE = (24, 32)  # of the frames that students see

Mutator = Callable[[random.Random, bytes], bytes]


# ---- how bytes, trees, lines and graphs change

DEEP, LONG = "@deep", "@long"  # stand for what no encoder writes
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 255, 256, 65_537, 10**9, 2**31, 2**63, 10**40, -(2**63), 0.5, -0.5, 1e-9, 1e308,
    math.nan, math.inf, -math.inf, "", " ", "²", "-1", "1e9", "nan", "a\0b", "../..", "/etc/passwd", "someone/x", "é\n",
    "x" * 300, [], {}, [0], [[]], [None], [2, 1], [0, 5], {"name": "x"}, {"": None}, DEEP, LONG,
)  # fmt: skip
NUMBERS = (b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flips, cuts, doubles, fills or overwrites a part."""
    if not data:
        return rng.randbytes(rng.randrange(1, 64))
    at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 256))
    length = min(1 << rng.randrange(10), len(data) - at)
    part = data[at : at + length]
    changed = rng.choice(
        [
            bytes([part[0] ^ (1 << rng.randrange(8))]) + part[1:],
            b"",
            part * 2,
            rng.randbytes(length),
            bytes(length),
            rng.choice(NUMBERS) + part[4:],
        ]
    )
    return data[:at] if rng.random() < 0.1 else data[:at] + changed + data[at + length :]


def change_tree(rng: random.Random, tree: Any) -> Any:
    """A tree of dicts and lists with one value, key or entry replaced, removed, doubled or wrapped."""
    places = list(_places(tree))
    if not places:
        return rng.choice(ODD)
    parent, key = rng.choice(places)
    value = parent[key]
    action = rng.randrange(9)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), value)
    elif action == 1:
        parent[rng.choice(["x", "", "pretrained", "weights", "backbone", str(key) + "s", str(key).upper()])] = value
        del parent[key]
    elif action == 2:
        parent[key] = rng.choice([[value], {"name": value}, [value, value], str(value)])
    elif action == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = rng.choice([value + 1, value - 1, -value, value * 1000, value / 3, float(value)])
    elif action == 4:
        other, place = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[place], default=str))
    elif action == 5 and isinstance(parent, dict):
        parent[rng.choice(["x", "checkpoint_path", "attn_implementation", "size", "num_classes"])] = rng.choice(ODD)
    else:
        parent[key] = rng.choice(ODD)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _odd_text(text: str) -> bytes:
    text = text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{LONG}"', '"' + "y" * 100_000 + '"')
    return text.encode("utf-8", "surrogatepass")


def change_json(rng: random.Random, data: bytes) -> bytes:
    return _odd_text(json.dumps(change_tree(rng, json.loads(data))))


def change_yaml(rng: random.Random, data: bytes) -> bytes:
    return _odd_text(json.dumps(change_tree(rng, yaml.safe_load(data))))  # JSON is YAML


def change_lines(rng: random.Random, data: bytes) -> bytes:
    """A row or a cell replaced, removed or doubled; or the text in another encoding, with other ends of lines."""
    lines = data.decode("utf-8", "replace").split("\n")
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    cell = rng.randrange(len(cells))
    action = rng.randrange(6)
    if action == 0:
        del lines[row]
    elif action == 1:
        lines.insert(row, lines[row])
    elif action == 2:
        return "\n".join(lines).encode(rng.choice(["utf-8-sig", "utf-16", "utf-32"]))
    elif action == 3:
        return rng.choice(["\r\n", "\r", "\n\n", "\0", "\u2028"]).join(lines).encode()
    elif action == 4:
        del cells[cell]
        lines[row] = rng.choice([",", ";", "\t", " "]).join(cells)
    else:
        cells[cell] = str(rng.choice(ODD))
        lines[row] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def change_picture(rng: random.Random, data: bytes) -> bytes:
    """The picture with other values, in another mode, size or format."""
    width, height = rng.choice([(8, 6), (8, 6), (1, 1), (9, 6), (3000, 2)])
    mode = rng.choice(["L", "P", "RGB", "RGBA", "I;16", "I", "F", "1", "LA", "CMYK"])
    suffix = rng.choice(["PNG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
    values = np.random.default_rng(rng.randrange(2**32)).integers(-300, 70_000, (height, width))
    picture = PillowImage.fromarray(values.astype(np.uint8))
    with contextlib.suppress(ValueError):
        wide = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
        picture = PillowImage.fromarray(values.astype(wide)) if wide else picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, suffix)
    return file.getvalue()


def change_tensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with a change in its header, its card or its tensors."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    action = rng.randrange(8)
    if action < 4 and "card" in header.get("__metadata__", {}):
        card = header["__metadata__"]["card"]
        header["__metadata__"]["card"] = change_json(rng, card.encode()).decode("utf-8", "replace")
    elif action == 4 and names:
        entry = header[rng.choice(names)]
        entry["shape"] = rng.choice([entry["shape"][::-1], [*entry["shape"], 1], [math.prod(entry["shape"])]])
    elif action == 5 and names:
        body = b"".join(rng.choice([b"\xff\xff\xc0\x7f", body[i : i + 4]]) for i in range(0, len(body), 4))  # NaN
    elif action == 6 and len(names) > 1:
        first, second = rng.sample(names, 2)
        header[first], header[second] = header[second], header[first]
    else:
        header = change_tree(rng, header)
    text = _odd_text(json.dumps(header))
    claimed = len(text) if rng.random() < 0.95 else rng.choice([0, 1, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", claimed) + text + body


def change_graph(rng: random.Random, data: bytes) -> bytes:
    """An ONNX file with another node, shape, name, type, attribute or weight."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(data)
    graph = model.graph
    values = [*graph.input, *graph.output]
    action = rng.randrange(9)
    if action == 0 and graph.node:
        node = rng.choice(graph.node)
        node.op_type = rng.choice(["Relu", "Nope", "Loop", "Reshape", "Tile", "ConstantOfShape", "Conv", "", "Shape"])
    elif action == 1 and graph.node:
        node, names = rng.choice(graph.node), [n for one in graph.node for n in (*one.input, *one.output)] or ["x"]
        side = rng.choice([node.input, node.output])
        side[:] = [rng.choice(names) if rng.random() < 0.5 else name for name in side]  # cycles among them
    elif action == 2 and values:
        dims = rng.choice(values).type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice([0, -1, 1, 2, 3, 5, 10**6, 2**40, 2**63 - 1])
    elif action == 3 and values:
        rng.choice(values).type.tensor_type.elem_type = rng.choice([0, 1, 2, 6, 7, 8, 9, 10, 11, 16, 99])
    elif action == 4 and values:
        rng.choice(values).name = rng.choice(["frame", "output", "x", "", "key/x", "next/key/x", "output.1"])
    elif action == 5 and graph.initializer:
        weight = rng.choice(graph.initializer)
        weight.dims[:] = rng.choice([[10**6, 10**6], [-1], [], [2**62, 4], [0]])
    elif action == 6 and graph.initializer:
        weight = rng.choice(graph.initializer)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        place = weight.external_data.add()
        place.key, place.value = (
            "location",
            rng.choice(["../x", "/etc/passwd", "card.json", "", "key.onnx", "/dev/zero"]),
        )
    elif action == 7:
        side = rng.choice([graph.node, graph.input, graph.output, graph.initializer])
        if side:
            del side[rng.randrange(len(side))]
    else:
        model.opset_import[0].version = rng.choice([0, 1, 7, 99, -1])
    return model.SerializeToString()


def change_checkpoint(rng: random.Random, data: bytes) -> bytes:
    """Another value under another name, or another thing altogether, as torch or pickle write it."""
    odd = [
        [1],
        5,
        None,
        "x",
        {"state_dict": [1]},
        {"model": None},
        {1: torch.zeros(1)},
        {"head.weight": 3},
        [torch.ones(2)],
    ]
    contents = torch.load(io.BytesIO(data), weights_only=True) if rng.random() < 0.7 else None
    if isinstance(contents, dict) and contents:
        name = rng.choice(list(contents))
        new: list[Any] = [None, [], np.float64(1.0).item(), torch.zeros(0), torch.zeros(3, 3), torch.ones(1).bool(), {}]
        contents[rng.choice([name, "x", 7])] = rng.choice(new)
    else:
        contents = rng.choice(odd)
    file = io.BytesIO()
    pickle.dump(contents, file) if rng.random() < 0.2 else torch.save(contents, file)
    return file.getvalue()


def changed(rng: random.Random, data: bytes, change: Mutator) -> bytes:
    """The data after a change; after one of its bytes where earlier changes left nothing of its structure."""
    try:
        return change(rng, data)
    except Exception:
        return change_bytes(rng, data)


CHANGES: dict[str, tuple[Mutator, ...]] = {  # by suffix; structure first, which most mutants take
    ".json": (change_json, change_bytes),
    ".yaml": (change_yaml, change_bytes),
    ".txt": (change_lines, change_bytes),
    ".ini": (change_lines, change_bytes),
    ".png": (change_picture, change_bytes),
    ".safetensors": (change_tensors, change_bytes),
    ".onnx": (change_graph, change_bytes),
    ".pth": (change_checkpoint, change_bytes),
}


# ---- what is changed, and how it is read


class TinySegmenter(nn.Module):
    """Three convolutions; logits at half size."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.mix = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.head = nn.Conv2d(2 * width, num_classes, 1)

    def forward(self, frame: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.stem(frame))))


MODELS["tiny_segmenter"] = TinySegmenter


@dataclass(frozen=True)
class Kind:
    """write: makes good files in subfolders of a folder. read: reads the files of one of them, changed."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]


def _card(name: str, task: str, **values: Any) -> Card:
    settings = {"num_classes": 3} if task in ("segmentation", "recognition") else {"scale": 2}
    options = settings | values.pop("options", {})
    network = {"name": name, "library": "vidistill", "options": options}
    return Card(network=network, task=task_of({"name": task} | settings), **values)


def _frames(count: int) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), 40 * i, dtype=np.uint8) for i in range(count)]


def _write_students(folder: Path) -> None:
    torch.manual_seed(0)
    cards = {
        "frames": _card("tiny_segmenter", "segmentation", class_names=("a", "b", "c"), palette=((1, 2, 3),)),
        "windows": _card(
            "vsrnet",
            "super_resolution",
            options={"window": 3, "channels": 2, "feature_channels": 2},
            view=WindowView(3),
        ),
        "delta": _card("tiny_segmenter", "segmentation", key_frame_interval=3),
    }
    cards["clips"] = _card(
        "tsm", "recognition", options={"backbone": "test_resnet", "causal": True},
        view=ClipView(num_frames=2, stride=2, crop=16, size=16), key_frame_interval=2,
    )  # fmt: skip
    for name, card in cards.items():
        network = build_network(**card.network).eval()
        student = as_student(network, card)
        if name == "delta":
            method = Delta(key_frame_interval=3)
            student = method.finish(method.prepare(network, torch.zeros(1, 3, *SIZE), card=card))
        (folder / name).mkdir()
        save_student(folder / name / "student.safetensors", student)


def _read_student(folder: Path) -> None:
    for _ in Stream(open_student(folder))(_frames(3)):
        pass


def _write_states(folder: Path) -> None:
    _write_students(folder)
    for place in folder.iterdir():
        for name, policy in (("fixed", None), ("adaptive", Adaptive())):
            stream = Stream(open_student(place), key_frames=policy)
            for _ in stream(_frames(3), ends=False):
                pass
            save_state(stream, place / f"{name}.state")


def _read_state(folder: Path) -> None:
    for path in folder.glob("*.state"):
        stream = Stream(open_student(folder), key_frames=Adaptive() if path.stem == "adaptive" else None)
        load_state(stream, path)
        for _ in stream(_frames(2)):
            pass


def _graph(nodes: Sequence[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]], **weights: Any) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def infos(values: dict[str, list[int]]) -> list[Any]:
        kinds = {3: TensorProto.UINT8}  # of frames as they come, by the last side
        return [
            helper.make_tensor_value_info(name, kinds.get(shape[-1], TensorProto.FLOAT), shape)
            for name, shape in values.items()
        ]

    tensors = [numpy_helper.from_array(np.asarray(weight, dtype=np.float32), name) for name, weight in weights.items()]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **dict(*node[3:])) for node in nodes],
        "graph",
        infos(inputs),
        infos(outputs),
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _write_exported(folder: Path) -> None:
    (folder / "exported").mkdir()
    frame, image = {"frame": [1, *SIZE, 3]}, [1, 3, *SIZE]
    planes = [("Cast", ["frame"], ["levels"], {"to": 1}), ("Transpose", ["levels"], ["x"], {"perm": [0, 3, 1, 2]})]
    key = [*planes, ("Mul", ["x", "w"], ["next/key/x"]), ("Relu", ["next/key/x"], ["output"])]
    delta = [*planes, ("Add", ["x", "key/x"], ["output"])]
    (folder / "exported" / "key.onnx").write_bytes(_graph(key, frame, {"output": image, "next/key/x": image}, w=[2.0]))
    (folder / "exported" / "delta.onnx").write_bytes(_graph(delta, frame | {"key/x": image}, {"output": image}))
    graphs = {
        "key": {"inputs": ["frame"], "outputs": ["output", "next/key/x"], "takes": [], "leaves": ["key/x"]},
        "delta": {"inputs": ["frame", "key/x"], "outputs": ["output"], "takes": ["key/x"], "leaves": ["key/x"]},
    }
    card = json.loads(_card("tiny_segmenter", "segmentation", key_frame_interval=2).to_json())
    values = {"runtime": "onnx", "precision": "float32", "outputs": ["output"], "graphs": graphs, "card": card}
    (folder / "exported" / "card.json").write_text(json.dumps(values))


def _write_graphs(folder: Path) -> None:
    (folder / "segmenter").mkdir()
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1))
    nodes = [("Conv", ["frame", "w"], ["x"]), ("Relu", ["x"], ["output"])]
    graph = _graph(nodes, {"frame": [1, 3, *SIZE]}, {"output": [1, 3, *SIZE]}, w=weights)
    (folder / "segmenter" / "graph.onnx").write_bytes(graph)


def _read_graph(folder: Path) -> None:
    onnx_network(folder / "graph.onnx")(torch.zeros(1, 3, *SIZE))


def _write_weights(folder: Path) -> None:
    for suffix in ("pth", "safetensors"):
        (folder / suffix).mkdir()
    network = TinySegmenter(3)
    torch.save(network.state_dict(), folder / "pth" / "weights.pth")
    save_student(folder / "safetensors" / "weights.safetensors", as_student(network, Card()))


def _read_weights(folder: Path) -> None:
    for path in folder.glob("weights.*"):
        load_weights(TinySegmenter(3), path)


def _write_recipes(folder: Path) -> None:
    boxes = {"name": "synthetic", "num_sequences": 1, "num_frames": 4, "size": list(SIZE), "num_classes": 3}
    actions = {"name": "synthetic_actions", "num_videos": 2, "num_frames": 6, "size": 16, "num_classes": 3}
    optim = {"name": "adamw", "learning_rate": 0.001, "steps": 1, "batch_size": 2, "num_workers": 0}
    tiny = {"name": "tiny_segmenter", "options": {"width": 4}}
    recipes: dict[str, Any] = {
        "delta": {
            "task": {"name": "segmentation"},
            "teacher": tiny,
            "student": {"from": "teacher"},
            "method": {"name": "delta", "student": {"kind": "separable", "reduction": 2}, "key_frame_interval": 2},
            "losses": {"task": 1.0, "teacher": 1.0},
            "data": {
                "train": [boxes], "evaluate": [boxes],
                "clip": {"num_frames": 2, "max_gap": 2, "crop": [16, 16], "scale": [0.8, 1.2], "colour": 0.1},
            },
        },
        "clips": {
            "task": {"name": "recognition"},
            "student": {"name": "tsm", "options": {"backbone": "test_resnet"}},
            "method": {"name": "supervised"},
            "data": {"train": [actions], "evaluate": [actions], "clip": {"num_frames": 2, "crop": 16, "stride": 2}},
        },
    }  # fmt: skip
    recipes["clips"]["data"]["clip"].pop("stride")
    for name, recipe in recipes.items():
        (folder / name).mkdir()
        (folder / name / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"optim": optim, "out": "run", "seed": 0}))


def _read_recipe(folder: Path) -> None:
    """As `vidistill check`, without the export, which takes seconds."""
    run = build(load_recipe(folder / "recipe.yaml", []), measures=False)
    refuse_nothing_to_learn(run)
    student = finished(run)
    try_step(run.training)
    list(rehearse(run, student, run.evaluation or run.train_sets))


def _write_labels(folder: Path) -> None:
    def picture(path: Path, *shape: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(np.arange(math.prod(shape), dtype=np.uint8).reshape(shape) % 3).save(path)

    coco, mot, maps = folder / "coco_video", folder / "mot", folder / "label_maps"
    for i in range(3):
        picture(coco / "a" / f"{i}.png", 6, 8, 3)
        picture(mot / "img1" / f"{i + 1:06d}.png", 6, 8, 3)
        picture(maps / "a" / "frames" / f"{i}.png", 6, 8, 3)
        picture(maps / "a" / "labels" / f"{i}.png", 6, 8)
    images = [
        {"id": i, "video_id": 1, "frame_id": i, "file_name": f"a/{i}.png", "height": 6, "width": 8} for i in range(3)
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 4, "instance_id": 1, "bbox": [1, 1, 3.5, 2], "iscrowd": 0, "area": 7}
        for i in range(3)
    ]
    categories = [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
    videos = [{"id": 1, "name": "a", "height": 6, "width": 8}]
    contents = {"videos": videos, "images": images, "annotations": boxes, "categories": categories}
    (coco / "annotations.json").write_text(json.dumps(contents))
    (mot / "gt").mkdir()
    (mot / "gt" / "gt.txt").write_text("1,1,1,1,3,2,1,1,1\n2,1,1.5,1,3,2,1,1,0.5\n3,2,2,2,3,2,0,7,1\n")
    (mot / "seqinfo.ini").write_text("[Sequence]\nname=a\nimDir=img1\nseqLength=3\nimWidth=8\nimHeight=6\n")
    (maps / "classes.json").write_text('["a", "b", "c"]')
    videos_list = folder / "labelled_videos"
    for name in ("one", "two"):
        for i in range(3):
            picture(videos_list / name / f"{i}.png", 6, 8, 3)
    (videos_list / "list.txt").write_text("one 3 0\ntwo 3 1\n")
    (videos_list / "classes.json").write_text('["a", "b"]')


def _read_labels(folder: Path) -> None:
    name = next(name for name in ("coco_video", "mot", "label_maps", "labelled_videos") if name in _name_of(folder))
    source = {"name": name, "root": str(folder)}
    check_data(source)
    [dataset] = build_datasets([source], where="data")
    for sequence in dataset.sequences:
        for _ in islice(sequence.images(), 5):
            pass


def _name_of(folder: Path) -> str:
    return (folder / "name").read_text()


def _write_videos(folder: Path) -> None:
    formats = {
        "mp4": "mpeg4", "mkv": "mpeg4", "avi": "mjpeg", "ts": "mpeg2video", "flv": "flv", "mov": "mjpeg",
        "mpg": "mpeg1video",
    }  # fmt: skip
    for suffix, codec in formats.items():
        (folder / suffix).mkdir()
        with av.open(str(folder / suffix / f"video.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = 32, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            images = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
            for image in images:
                for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)


def _read_video(folder: Path) -> None:
    from vidistill.data.video.reader import VideoReader, verify

    [path] = folder.glob("video.*")
    verify(path)
    with VideoReader(path) as reader:
        for _ in islice(reader, 30):
            pass
    with VideoReader(path) as reader:
        reader.info  # noqa: B018 - reads the index
        if reader.num_frames:
            reader.frames_at([0, reader.num_frames - 1])
            reader.frame_at_time(0.08)


KINDS = {
    "students": Kind(_write_students, _read_student),
    "states": Kind(_write_states, _read_state),
    "exported": Kind(_write_exported, _read_student),
    "graphs": Kind(_write_graphs, _read_graph),
    "weights": Kind(_write_weights, _read_weights),
    "recipes": Kind(_write_recipes, _read_recipe),
    "labels": Kind(_write_labels, _read_labels),
    "videos": Kind(_write_videos, _read_video),
}
LEFT = {"states": ("student.safetensors",)}  # files that stay as they are


# ---- a mutant and what became of it


@dataclass(frozen=True)
class Mutant:
    """Decided by these alone: the changes number `steps` of the mutant `number`."""

    kind: str
    seed: int
    number: int
    steps: tuple[int, ...] = ()

    def planned(self) -> "Mutant":
        """With all its steps."""
        count = random.Random(f"{self.seed}/{self.kind}/{self.number}/steps").choice([1, 1, 2, 3])
        return Mutant(self.kind, self.seed, self.number, tuple(range(count)))

    def make(self, good: Path, folder: Path) -> None:
        """Copies one of the good folders and changes it."""
        rng = random.Random(f"{self.seed}/{self.kind}/{self.number}")
        chosen = rng.choice(sorted(good.iterdir()))
        shutil.copytree(chosen, folder)
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in LEFT.get(self.kind, ()))
        plain = [path for path in files if path.suffix != ".png"] or files  # there are many pictures
        for step in range(max(self.steps) + 1):
            rng = random.Random(f"{self.seed}/{self.kind}/{self.number}/{step}")
            path = rng.choice(plain if rng.random() < 0.7 else files)
            changes = (
                (change_tensors, change_bytes) if path.suffix == ".state" else CHANGES.get(path.suffix, (change_bytes,))
            )
            change = changes[0] if rng.random() < 0.75 else changes[-1]
            if step in self.steps:
                path.write_bytes(changed(rng, path.read_bytes(), change))
        (folder / "name").write_text(chosen.name)


@dataclass(frozen=True)
class Outcome:
    """What: one of OUTCOMES. where: tells finds apart. text: the sentence or the traceback."""

    what: str
    where: str = ""
    text: str = ""


def read_apart(read: Callable[[Path], object], folder: Path) -> Outcome:
    """Reads the folder in a process of its own."""
    report = folder / "report"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _read_in_child(read, folder, report)  # does not return
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        what = (
            "hang"
            if number in (signal.SIGALRM, signal.SIGXCPU)
            else "memory"
            if number == signal.SIGKILL
            else "traceback"
        )
        return Outcome(what, signal.Signals(number).name, f"ended by {signal.Signals(number).name}")
    what, where, text = json.loads(report.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if usage.ru_maxrss * 1024 > before * 1024 + SPARE_MEMORY:
        return Outcome("memory", where, f"{usage.ru_maxrss // 1024} MB; {text}")
    return Outcome(what, where, text)


def _read_in_child(read: Callable[[Path], object], folder: Path, report: Path) -> None:
    outcome = Outcome("fine")
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.chdir(folder)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(6 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 2 * SPARE_MEMORY  # of addresses, of which threads' stacks take many
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        torch.set_num_threads(1)  # the threads of before did not come along
        try:
            read(folder)
        except UserError as error:
            is_one = "\n" not in str(error).strip()
            outcome = Outcome("sentence" if is_one else "traceback", "" if is_one else "lines", str(error))
        except MemoryError:
            outcome = Outcome("memory", _last_line(), traceback.format_exc())
        except BaseException as error:
            outcome = Outcome("traceback", f"{type(error).__name__} {_last_line()}", traceback.format_exc())
        report.write_text(json.dumps([outcome.what, outcome.where, outcome.text[-20_000:]]))
    finally:
        os._exit(0)


def _last_line() -> str:
    """Of this package, in the current exception's traceback."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [frame for frame in frames if "vidistill" in frame.filename and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def run(mutant: Mutant, good: Path) -> Outcome:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "mutant"
        mutant.make(good, place)
        return read_apart(KINDS[mutant.kind].read, place)


def smallest(mutant: Mutant, outcome: Outcome, good: Path) -> Mutant:
    """The mutant with as few of its steps as still end alike."""
    for step in mutant.steps:
        fewer = Mutant(mutant.kind, mutant.seed, mutant.number, tuple(s for s in mutant.steps if s != step))
        if fewer.steps and (again := run(fewer, good)).what == outcome.what and again.where == outcome.where:
            return smallest(fewer, outcome, good)
    return mutant


def keep(mutant: Mutant, outcome: Outcome, good: Path, out: Path) -> None:
    """Writes a find's files and what happened."""
    place = out / f"{mutant.kind}_{mutant.seed}_{mutant.number}"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    mutant.make(good, place)
    (place / "find.txt").write_text(f"{mutant}\n{outcome.what} {outcome.where}\n{outcome.text}\n")


def fuzz(kind: str, *, mutants: int, seed: int, seconds: float = math.inf, out: Path | None = None) -> Counter[str]:
    """How many of the mutants of a kind ended how. out: where finds are kept."""
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    until = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        KINDS[kind].write(good)
        for place in sorted(good.iterdir()):  # what is good must be read well, or nothing is tried
            (place / "name").write_text(place.name)
            outcome = read_apart(KINDS[kind].read, place)
            for written in ("name", "report"):
                (place / written).unlink()
            if outcome.what != "fine":
                raise SystemExit(f"{kind}: the good files of {place.name} end in: {outcome.text}")
        for number in range(mutants):
            if time.monotonic() > until:
                break
            mutant = Mutant(kind, seed, number).planned()
            outcome = run(mutant, good)
            counts[outcome.what] += 1
            if outcome.what in ("fine", "sentence") or (outcome.what, outcome.where) in seen:
                continue
            seen.add((outcome.what, outcome.where))
            mutant = smallest(mutant, outcome, good)
            print(f"{outcome.what}: {mutant} {outcome.where}")
            if out is not None:
                keep(mutant, outcome, good, out)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--mutants", type=int, default=200, help="of each kind")
    parser.add_argument("--seconds", type=float, default=3600, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    chosen = parser.parse_args()
    print(f"{'kind':10}" + "".join(f"{name:>10}" for name in OUTCOMES))
    finds = 0
    for kind in chosen.kinds or KINDS:
        if kind not in KINDS:
            raise SystemExit(f"unknown kind '{kind}'; choose among {', '.join(KINDS)}")
        counts = fuzz(kind, mutants=chosen.mutants, seed=chosen.seed, seconds=chosen.seconds, out=chosen.out)
        print(f"{kind:10}" + "".join(f"{counts[name]:10}" for name in OUTCOMES), flush=True)
        finds += sum(counts[name] for name in OUTCOMES[2:])
    sys.exit(1 if finds else 0)


if __name__ == "__main__":
    main()
