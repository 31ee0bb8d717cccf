"""Layouts of super-resolution: Vimeo-90K septuplets, REDS, Vid4, and any videos or folders of frames.

All give high-resolution frames, see `HighResolutionSequence`. `low` names the folder of their stored low-resolution
counterparts, laid out alike, from the root or as an absolute path; without it there are none, and frames are degraded
by whoever needs them.
"""

from collections.abc import Sequence
from pathlib import Path

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.datasets.videos import videos
from vidistill.data.image_files import images_in, natural_key
from vidistill.data.sampling import FrameRange
from vidistill.data.sequences.high_resolution import HighResolutionSequence
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError, nearest

REDS4 = ("000", "011", "015", "020")
SEPTUPLET = 7


def vimeo90k(root: str | Path, *, split: str = "train", scale: int = 4, low: str | Path | None = None) -> VideoDataset:
    """Septuplets `sequences/00001/0001/im1…7.png` (Xue et al. 2019) of `sep_trainlist.txt` or `sep_testlist.txt`.

    Of the test split the centre frames alone are scored, as the field does; windows of up to 7 frames lie inside the
    septuplet, so that how the field continues it does not count. low: the folder that stands for `sequences`.
    Errors: no such list; a broken line; the folder of low frames missing.
    """
    root = Path(root)
    names = _septuplet_names(root / f"sep_{split}list.txt")
    low_root = _low_root(root, low)
    sequences = []
    for name in names:
        counterpart = _septuplet(low_root / name, name) if low_root else None
        high = _septuplet(root / "sequences" / name, name)
        sequences.append(HighResolutionSequence(high, scale, counterpart, centre_only=split == "test"))
    return VideoDataset("vimeo90k", sequences)


def reds(root: str | Path, *, split: str | None = None, scale: int = 4, low: str | Path | None = None) -> VideoDataset:
    """The clips `000/00000000.png` in `root` (Nah et al. 2019), as in `train_sharp`.

    split: "reds4", the four clips that the field tests on, "train", all others, or None for all there is.
    low: a folder of the same clips. Errors: no clips; no such split; one of REDS4 missing; low frames missing.
    """
    names = _clip_names(Path(root))
    if split == "train":
        names = [name for name in names if name not in REDS4]
    elif split == "reds4":
        names = _chosen(REDS4, names, where=str(root))
    elif split is not None:
        raise UserError(f"REDS has no split '{split}'; {nearest(split, ['train', 'reds4'])}")
    return _clips("reds", Path(root), names, scale, _low_root(Path(root), low))


def vid4(
    root: str | Path, *, clips: list[str] | None = None, scale: int = 4, low: str | Path | None = None
) -> VideoDataset:
    """The clips of `GT`, four in the whole set (Liu & Sun 2011). For testing only.

    clips: only these. low: "BIx4" or "BDx4" of the usual layout, or another folder of the same clips.
    Errors: no clips; one that is not there; low frames missing.
    """
    folder = Path(root) / "GT"
    names = _clip_names(folder)
    if clips is not None:
        names = _chosen(clips, names, where=str(folder))
    return _clips("vid4", folder, names, scale, _low_root(Path(root), low))


def high_resolution(
    root: str | Path,
    *,
    scale: int = 4,
    halved: bool = False,
    low: str | Path | None = None,
    frames: FrameRange | None = None,
) -> VideoDataset:
    """Every video and folder of frames in `root`, as `videos` finds them.

    halved: frames are averaged to half their size first, for sources that were compressed. low: the same videos; where
    their folder lies inside `root`, it is none of the high-resolution ones.
    Errors: those of `videos`; a video without its counterpart; nothing but low-resolution frames.
    """
    high = videos(root, frames=frames).sequences
    low_root = _low_root(Path(root), low)
    if low_root:
        high = _outside(low_root, Path(root), high)
    counterparts: dict[str, FrameSequence] = {}
    if low_root:
        counterparts = {sequence.name: sequence for sequence in videos(low_root, frames=frames).sequences}
        missing = [sequence.name for sequence in high if sequence.name not in counterparts]
        if missing:
            raise UserError(
                f"{low_root}: there is no low-resolution '{missing[0]}'; {nearest(missing[0], counterparts)}"
            )
    sequences = [HighResolutionSequence(s, scale, counterparts.get(s.name), halved) for s in high]
    return VideoDataset("high_resolution", sequences)


def _outside(low_root: Path, root: Path, sequences: Sequence[FrameSequence]) -> list[FrameSequence]:
    """Those of `root`, named by their paths in it, that do not lie in `low_root`."""
    found = [s for s in sequences if not (root / s.name).resolve().is_relative_to(low_root.resolve())]
    if not found:
        raise UserError(f"{root}: there are no videos in it beside those of {low_root}; give the high-resolution ones")
    return found


def _septuplet_names(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such list; Vimeo-90K's root holds sequences and sep_trainlist.txt")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    broken = next((name for name in names if len(Path(name).parts) != 2 or ".." in Path(name).parts), None)
    if broken is not None or not names:
        raise UserError(f"{path}: '{broken or ''}' is no septuplet; a line names one, as in 00001/0001")
    return names


def _septuplet(folder: Path, name: str) -> ImageSequence:
    """Its seven frames, looked for when they are read: the set has too many to look now."""
    return ImageSequence(name, [folder / f"im{number}.png" for number in range(1, SEPTUPLET + 1)])


def _clip_names(folder: Path) -> list[str]:
    names = [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."] if folder.is_dir() else []
    if not names:
        raise UserError(f"{folder}: there are no clips in it; each is a folder of frames")
    return sorted(names, key=natural_key)


def _chosen(wanted: Sequence[str], present: list[str], *, where: str) -> list[str]:
    for name in wanted:
        if name not in present:
            raise UserError(f"{where}: there is no clip '{name}'; {nearest(name, present)}")
    return [name for name in present if name in wanted]


def _low_root(root: Path, low: str | Path | None) -> Path | None:
    if low is None:
        return None
    folder = root / low
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder of low-resolution frames; leave low out to make them")
    return folder


def _clips(name: str, root: Path, clips: list[str], scale: int, low_root: Path | None) -> VideoDataset:
    sequences = []
    for clip in clips:
        counterpart = _clip(low_root / clip) if low_root else None
        sequences.append(HighResolutionSequence(_clip(root / clip), scale, counterpart))
    return VideoDataset(name, sequences)


def _clip(folder: Path) -> ImageSequence:
    images = images_in(folder) if folder.is_dir() else []
    if not images:
        raise UserError(f"{folder}: there are no frames in it; copy the clip again or take it out")
    return ImageSequence(folder.name, images)
