import gc
import json
import os
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vidistill.data.datasets.synthetic import synthetic
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models.onnx_networks import onnx_network, open_session
from vidistill.ops.boxes import suppress
from vidistill.runtimes import RUNTIMES, deploy, open_student
from vidistill.runtimes.eager import as_frames
from vidistill.runtimes.graphs import GraphStudent, export_onnx
from vidistill.runtimes.measure import noise_frames
from vidistill.runtimes.onnx import Onnx
from vidistill.stream import Running, Stream
from vidistill.students.card import Card
from vidistill.students.state import State
from vidistill.students.student import PerFrame, Student
from vidistill.tasks.segmentation import Segmentation

EXPORT = RUNTIMES["onnx"].export
CARD = Card(task=Segmentation(num_classes=4), class_names=("a", "b", "c", "d"), key_frame_interval=3)


def delta_student(network: torch.nn.Module, size: tuple[int, int]) -> Student:
    method = Delta()
    return method.finish(method.prepare(network, torch.zeros(1, 3, *size), card=CARD))


@pytest.mark.parametrize("size", [(32, 48), (21, 35)])
@torch.no_grad()
def test_key_and_three_delta_frames_in_onnx_runtime(network, tmp_path: Path, size) -> None:
    """The files alone, driven as a user would: state goes in and out by name."""
    student = delta_student(network, size)
    exported = EXPORT(student, tmp_path, size=size)
    assert [path.name for path in exported.files] == ["delta.onnx", "first_delta.onnx", "key.onnx", "card.json"]
    assert 0 <= exported.gap < RUNTIMES["onnx"].parity["float32"]
    sessions = {
        name: onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("key", "first_delta", "delta")
    }
    graphs = json.loads((tmp_path / "card.json").read_text())["graphs"]
    assert graphs["key"]["inputs"] == ["frame"]
    assert sorted(graphs["delta"]["takes"]) == ["key/body.0/offset", "key/mix/offset"]
    state, held = None, {}
    for name, pixels in zip(("key", "first_delta", "delta", "delta"), noise_frames(4, size), strict=True):
        expected, state = student(as_frames(student, pixels[None]), state)
        given = {"frame": pixels[None].numpy(), **held}
        results = sessions[name].run(None, {key: given[key] for key in graphs[name]["inputs"]})
        found = dict(zip(graphs[name]["outputs"], results, strict=True))
        np.testing.assert_allclose(found["output"], expected.numpy(), atol=1e-5)
        held = {key: found[f"next/{key}"] if f"next/{key}" in found else held[key] for key in graphs[name]["leaves"]}


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@torch.no_grad()
def test_an_exported_student_runs_as_the_student(network, tmp_path: Path, runtime: str) -> None:
    student = delta_student(network, (32, 48))
    RUNTIMES[runtime].export(student, tmp_path, size=(32, 48))
    opened, state, held = open_student(tmp_path), None, None
    assert isinstance(opened, GraphStudent)
    assert opened.card == student.card
    assert (opened.runtime, opened.precision, opened.has_key_frames) == (runtime, "float32", True)
    other: State | None = None
    for pixels in noise_frames(3, (32, 48))[:, None]:
        expected, state = student(as_frames(student, pixels), state)
        output, held = opened(pixels, held)
        before = {name: tensor.clone() for name, tensor in held.items()}
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
        _, other = opened(255 - pixels, other)  # another stream through the same sessions
        assert all(torch.equal(held[name], tensor) for name, tensor in before.items()), "a state is a value"
    with pytest.raises(UserError, match="the state is of another student"):
        opened(pixels, {"key/other": torch.zeros(1)})
    next(tmp_path.glob("key.*")).write_bytes(b"no graph")
    (tmp_path / "key.xml").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"key\.(onnx: is not a network in ONNX|xml: cannot be run by OpenVINO)"):
        open_student(tmp_path)


def test_what_was_exported_streams_as_what_was_not(network, tmp_path: Path) -> None:
    student = delta_student(network, (32, 48))
    EXPORT(student, tmp_path, size=(32, 48))
    images = list(synthetic(num_sequences=1, num_frames=5, size=(32, 48)).sequences[0].images())
    expected = list(Stream(student)(images))
    live = Stream(student, running=Running(runtime="openvino"))
    for stream in (Stream(open_student(tmp_path)), live):
        outputs = list(stream(images))
        assert [output.is_key_frame for output in outputs] == [True, False, False, True, False]
        same = [np.mean(a.prediction == b.prediction) for a, b in zip(outputs, expected, strict=True)]
        assert min(same) > 0.999


def test_an_exported_folder_that_is_not_whole(network, tmp_path: Path) -> None:
    EXPORT(PerFrame(network, CARD).eval(), tmp_path, size=(16, 24))
    (tmp_path / "card.json").write_text('{"runtime": "onx"}')
    with pytest.raises(UserError, match=r"card\.json: runtime: unknown name 'onx'; did you mean onnx"):
        open_student(tmp_path)
    (tmp_path / "card.json").write_text('{"runtime": "onnx"}')
    with pytest.raises(UserError, match=r"card\.json: is not the card of an exported student .*; export it again"):
        open_student(tmp_path)
    (tmp_path / "card.json").write_text("no card")
    with pytest.raises(
        UserError, match=r"card\.json: is not the card of an exported student \(Invalid JSON: .*; export it again"
    ):
        open_student(tmp_path)


def test_an_exported_student_runs_as_it_was_exported(network, tmp_path: Path) -> None:
    EXPORT(PerFrame(network, CARD).eval(), tmp_path, size=(16, 24))
    opened, frame = open_student(tmp_path), noise_frames(1, (16, 24))
    assert deploy(opened, frame) is opened
    assert deploy(opened, frame, runtime="onnx") is opened
    with pytest.raises(UserError, match="was exported for runtime onnx in float32, got runtime eager"):
        deploy(opened, frame, runtime="eager")
    with pytest.raises(UserError, match="takes frames of 24x16, got 48x32; export it again with --size 48x32"):
        opened(noise_frames(1, (32, 48)))


def test_a_network_without_state_is_one_graph(network, tmp_path: Path) -> None:
    exported = EXPORT(PerFrame(network).eval(), tmp_path, size=(16, 24))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "key.onnx"]
    assert sorted(exported.files) == sorted(tmp_path.iterdir())
    assert not open_student(tmp_path).has_key_frames


def test_outputs_that_differ_are_not_written(network, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Onnx, "parity", {"float32": 0.0})
    with pytest.raises(UserError, match="differ from torch's"):
        EXPORT(PerFrame(network).eval(), tmp_path, size=(16, 24))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_our_suppression_in_onnx_runtime(tmp_path: Path, seed: int) -> None:
    """The operator that networks with proposals hold, on crowded boxes, some of them empty."""

    class Suppression(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
            return suppress(boxes, scores, groups, 0.5, 12)

    torch.manual_seed(seed)
    corner = 10 * torch.rand(1, 30, 2)
    boxes = torch.cat([corner, corner + (8 * torch.rand(1, 30, 2) - 1).clamp(min=0)], dim=2)
    inputs = boxes, torch.randn(1, 30), torch.randint(0, 2 if seed % 2 else 1, (1, 30))
    export_onnx(Suppression(), inputs, {}, tmp_path / "a.onnx", ["boxes", "scores", "groups"], ["kept"])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    given = dict(zip(["boxes", "scores", "groups"], (tensor.numpy() for tensor in inputs), strict=True))
    (kept,) = session.run(None, {name: given[name] for name in names})
    assert kept.tolist() == suppress(*inputs, 0.5, 12).tolist()


def graph(path: Path, nodes, inputs, outputs, **weights) -> Path:
    """A graph by hand. nodes: (type, inputs, outputs). inputs, outputs: shapes by name."""

    def infos(values):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

    made = helper.make_graph(
        [helper.make_node(*node) for node in nodes], "graph", infos(inputs), infos(outputs),
        [w if isinstance(w, TensorProto) else numpy_helper.from_array(np.float32(w), n) for n, w in weights.items()],
    )  # fmt: skip
    path.write_bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    return path


FRAME, LOGITS = {"frame": [1, 3, 8, 8]}, {"output": [1, 3, 8, 8]}


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("location", ["../secret", "{root}/secret", "link", "/dev/zero"])
def test_weights_outside_a_graphs_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(np.float32(7).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "beside").write_bytes(np.float32(7).tobytes())
    scaled = [("Mul", ["frame", "w"], ["output"])]
    own = graph(folder / "own.onnx", scaled, FRAME, LOGITS, w=outside("beside"))
    assert (onnx_network(own)(torch.ones(1, 3, 8, 8)) == 7).all()
    path = graph(folder / "evil.onnx", scaled, FRAME, LOGITS, w=outside(location.format(root=tmp_path)))
    with pytest.raises(UserError, match=r"evil\.onnx: is not a network in ONNX"):
        onnx_network(path)


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs", "sentence"),
    [
        ([("Relu", ["frame"], ["output"])], FRAME, {}, "returns nothing, expected|not a network"),
        ([("RandomNormal", [], ["output"])], {}, LOGITS, "takes nothing|not a network"),
        ([("Nope", ["frame"], ["output"])], FRAME, LOGITS, "is not a network in ONNX"),
        (
            [("Add", ["frame", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["a"], ["output"])],
            FRAME,
            LOGITS,
            "acyclic",
        ),
        (
            [("Add", ["frame", "other"], ["output"])],
            FRAME | {"other": [1, 3, 8, 8]},
            LOGITS,
            "takes .*, .* and returns",
        ),
        (
            [("Relu", ["frame"], ["output"])],
            {"frame": [1, 3, 2**40, 8]},
            {"output": [1, 3, 2**40, 8]},
            "expected YOLOX",
        ),
    ],
)
def test_graphs_that_are_no_teacher(tmp_path: Path, nodes, inputs, outputs, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        onnx_network(graph(tmp_path / "graph.onnx", nodes, inputs, outputs))


def test_a_graph_has_bounded_memory(tmp_path: Path) -> None:
    """Tiles a frame to 800 GB."""
    tile = helper.make_tensor("times", TensorProto.INT64, [4], [1, 1, 2**15, 2**15])
    tiled = {"output": [1, 3, "h", "w"]}
    path = graph(tmp_path / "g.onnx", [("Tile", ["frame", "times"], ["output"])], FRAME, tiled, times=tile)
    with pytest.raises(UserError, match=r"g\.onnx: ONNX Runtime cannot run it"):
        open_session(path).run(None, {"frame": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_exported_folder_of_a_stranger(network, tmp_path: Path, runtime: str) -> None:
    RUNTIMES[runtime].export(delta_student(network, (16, 24)), tmp_path, size=(16, 24))
    text = (tmp_path / "card.json").read_text()
    card = json.loads(text)
    graphs, files = card["graphs"], {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refused(sentence: str, **changes) -> None:
        (tmp_path / "card.json").write_text(json.dumps(card | changes))
        with pytest.raises(UserError, match=sentence):
            list(Stream(open_student(tmp_path))([np.zeros((16, 24, 3), np.uint8)] * 3))
        for name, contents in files.items():
            (tmp_path / name).write_bytes(contents)

    assert len(list(Stream(open_student(tmp_path))([np.zeros((16, 24, 3), np.uint8)] * 3))) == 3, (
        "what is changed below"
    )
    refused("'outputs.0'", outputs=["output/99999999999"])
    refused("'outputs.0'", outputs=["../x"])
    refused("expected 2 outputs", outputs=["output/0", "output/1"])
    refused("of precision int3", precision="int3")
    refused("'precision'", precision=8)
    refused("'key_frame_interval'", card=card["card"] | {"key_frame_interval": -1})
    refused("unknown key 'graphs.last'|'graphs.last", graphs=graphs | {"last": graphs["key"]})
    refused("in .*, of precision", graphs={"delta": graphs["delta"]})
    refused("a key graph", graphs=graphs | {"key": graphs["delta"]})
    refused("a state that the graphs make", graphs=graphs | {"key": graphs["key"] | {"leaves": ["key/other"]}})
    delta = graphs["delta"]
    refused("inputs that the state has", graphs=graphs | {"delta": delta | {"inputs": ["frame", "key/other"]}})
    for name in ("key", "delta"):  # another graph in its place
        suffix = ".onnx" if runtime == "onnx" else ".xml"
        (tmp_path / f"{name}{suffix}").write_bytes(files[f"first_delta{suffix}"])
        if runtime == "openvino":
            (tmp_path / f"{name}.bin").write_bytes(files["first_delta.bin"])
        refused("its graphs are not those of its card")


def test_a_graph_that_does_not_say_its_shapes_is_refused(network, tmp_path: Path) -> None:
    EXPORT(PerFrame(network, CARD).eval(), tmp_path, size=(8, 8))
    graph(tmp_path / "key.onnx", [("Relu", ["frame"], ["output"])], {"frame": [1, 3, "h", 8]}, LOGITS)
    with pytest.raises(UserError, match="a key graph of 'frame'"):
        open_student(tmp_path)


def test_exports_of_other_weights_are_other_students(network, tmp_path: Path) -> None:
    """Else a state of one would go on in the other. OpenVINO keeps the weights in a file of their own."""
    RUNTIMES["openvino"].export(PerFrame(network, CARD).eval(), tmp_path, size=(16, 24))
    one, same = (open_student(tmp_path).identity() for _ in range(2))
    weights = bytearray((tmp_path / "key.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "key.bin").write_bytes(weights)
    assert one == same
    assert open_student(tmp_path).identity() != one


def test_a_state_of_another_shape_is_refused(network, tmp_path: Path) -> None:
    EXPORT(delta_student(network, (16, 24)), tmp_path, size=(16, 24))
    opened, pixels = open_student(tmp_path), noise_frames(1, (16, 24))
    _, state = opened(pixels)
    _, state = opened(pixels, state)
    with pytest.raises(UserError, match="ONNX Runtime cannot run it"):
        opened(pixels, {name: tensor[..., :-1] for name, tensor in state.items()})


def test_a_signal_after_openvino_is_harmless(network) -> None:
    """OpenVINO's last core takes the stack of signal handlers away; with none, the next signal ends the process."""
    deployed = deploy(PerFrame(network, CARD).eval(), noise_frames(1, (16, 24)), runtime="openvino")
    deployed(noise_frames(1, (16, 24)))
    del deployed
    gc.collect()
    heard: list[int] = []
    earlier = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert heard == [signal.SIGUSR1]
