import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidistill.ops.detection_metrics import AveragePrecision


def frame(true=(), found=(), crowd=None) -> dict:
    """true: (box, class) pairs; found: (box, class, score)."""
    return {
        "boxes": np.array([b for b, _ in true], np.float32).reshape(-1, 4),
        "labels": np.array([c for _, c in true], np.int64),
        "crowd": None if crowd is None else np.array(crowd, bool),
        "found_boxes": np.array([b for b, _, _ in found], np.float32).reshape(-1, 4),
        "found_labels": np.array([c for _, c, _ in found], np.int64),
        "found_scores": np.array([s for _, _, s in found], np.float32),
    }


def test_worked_by_hand() -> None:
    metric = AveragePrecision(2)
    box, other = (0, 0, 10, 10), (50, 50, 60, 60)
    # class 0: two boxes; found: right (0.9), wrong (0.8), right (0.7)
    metric.add(**frame([(box, 0), (other, 0)], [(box, 0, 0.9), ((20, 20, 30, 30), 0, 0.8)]))
    metric.add(**frame([], [(other, 1, 0.99)]))  # class 1 never occurs, so that nothing of it counts
    metric.add(**frame())
    assert metric.value()["ap50"] == pytest.approx(51 / 101)  # recall 0.5 at precision 1: recalls 0, 0.01 … 0.5
    assert metric.by_class() == [pytest.approx(51 / 101), None]
    metric.add(**frame([], [(other, 0, 0.7)]))
    assert metric.value()["ap50"] == pytest.approx(51 / 101)
    half = AveragePrecision(1)
    # a box of 10 × 8 in one of 10 × 10 overlaps by 0.8: found for the thresholds .5 to .8, seven of ten
    half.add(**frame([(box, 0)], [((0, 0, 10, 8), 0, 0.5)]))
    assert half.value() == {"ap50": pytest.approx(1), "ap": pytest.approx(0.7)}


def test_crowds_are_neither_asked_for_nor_wrong() -> None:
    metric = AveragePrecision(1)
    box = (0, 0, 10, 10)
    metric.add(**frame([(box, 0), ((40, 0, 80, 40), 0)], [((50, 10, 60, 20), 0, 0.9), (box, 0, 0.5)], [False, True]))
    assert metric.value()["ap50"] == pytest.approx(1)


def test_nothing_to_find_is_unknown() -> None:
    metric = AveragePrecision(1)
    assert metric.value() == {"ap50": None, "ap": None}
    metric.add(**frame([], [((0, 0, 1, 1), 0, 0.5)]))
    assert metric.value() == {"ap50": None, "ap": None}
    metric.add(**frame([((0, 0, 1, 1), 0)]))
    assert metric.value()["ap50"] == 0


PLACE = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2).map(
    lambda b: (b[0] / 4, b[1] / 4, (b[0] + b[2]) / 4, (b[1] + b[3]) / 4)
)
TRUE = st.tuples(PLACE, st.integers(0, 2))
FOUND = st.tuples(PLACE, st.integers(0, 2), st.integers(1, 50).map(lambda s: s / 64))


def outside(frames: list[dict], folder: Path) -> dict[str, float | None]:
    """The metrics from files, as anyone computes them with pycocotools and its defaults."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: dict = {
        "images": [{"id": i} for i in range(len(frames))],
        "annotations": [],
        "categories": [{"id": c, "name": str(c)} for c in range(3)],
    }
    found = []
    for i, one in enumerate(frames):
        for box, label, crowd in zip(one["boxes"].tolist(), one["labels"].tolist(), one["crowd"].tolist(), strict=True):
            w, h = box[2] - box[0], box[3] - box[1]
            record = {"image_id": i, "category_id": label, "bbox": [*box[:2], w, h], "area": w * h}
            truth["annotations"].append(record | {"id": len(truth["annotations"]) + 1, "iscrowd": int(crowd)})
        for box, label, score in zip(
            one["found_boxes"].tolist(), one["found_labels"].tolist(), one["found_scores"].tolist(), strict=True
        ):
            bbox = [*box[:2], box[2] - box[0], box[3] - box[1]]
            found.append({"image_id": i, "category_id": label, "bbox": bbox, "score": score})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")) if found else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"ap50": evaluation.stats[1], "ap": evaluation.stats[0]}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(TRUE, st.booleans()), max_size=5), st.lists(FOUND, max_size=7)),
        min_size=1,
        max_size=4,
    )
)
def test_it_is_pycocotools_to_the_digit(tmp_path: Path, drawn) -> None:
    frames = [frame([t for t, _ in true], found, [crowd for _, crowd in true]) for true, found in drawn]
    if not any(found for _, found in drawn):
        return  # pycocotools has no results without detections
    metric = AveragePrecision(3)
    for one in frames:
        metric.add(**one)
    value, expected = metric.value(), outside(frames, tmp_path)
    assert {name: -1 if v is None else v for name, v in value.items()} == expected
