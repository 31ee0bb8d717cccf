"""Layouts of super-resolution: Vimeo-90K septuplets, REDS, Vid4, and any videos or folders of frames.

All give high-resolution frames, see `HighResolutionSequence`. `low` names the folder of stored low-resolution frames,
laid out alike, relative to the root or absolute; without it training and scoring make them.
"""

from pathlib import Path

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.datasets.videos import videos
from vidistill.data.degradation import Scale
from vidistill.data.foreign import read_rows
from vidistill.data.image_files import folders_in, images_in
from vidistill.data.sampling import FrameRange, select_names
from vidistill.data.sequences.high_resolution import HighResolutionSequence
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError, nearest

REDS4 = ("000", "011", "015", "020")
SEPTUPLET = 7  # frames


def vimeo90k(
    root: str | Path, *, split: str = "train", scale: Scale = 4, low: str | Path | None = None
) -> VideoDataset:
    """The septuplets of Vimeo-90K (Xue et al. 2019), `sequences/00001/0001/im1…7.png`.

    Only the centre frames of the test split are scored, as is usual. Windows of up to 7 frames lie inside a septuplet,
    so that no choice of how to continue it matters.

    Args:
        root: Folder that holds sequences, sep_trainlist.txt and sep_testlist.txt.
        split: "train" or "test", the list to read.
        scale: How many times larger the high-resolution frames are.
        low: The folder that takes the place of `sequences` for stored low-resolution frames.

    Returns:
        One sequence of 7 frames per septuplet; files are first looked for when read.

    Raises:
        UserError: If the list or the folder `low` does not exist, or for a broken line.
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


def reds(
    root: str | Path, *, split: str | None = None, scale: Scale = 4, low: str | Path | None = None
) -> VideoDataset:
    """The clips of REDS (Nah et al. 2019), `000/00000000.png`.

    Args:
        root: Folder of clips, such as train_sharp.
        split: "reds4", the four clips that are usually tested on; "train", all others; or None for all.
        scale: How many times larger the high-resolution frames are.
        low: A folder of the same clips at low resolution.

    Returns:
        One sequence per clip.

    Raises:
        UserError: If there are no clips, the split does not exist, or a clip of REDS4 or low-resolution frames are
            missing.
    """
    names = _clip_names(Path(root))
    if split == "train":
        names = [name for name in names if name not in REDS4]
    elif split == "reds4":
        names = select_names(names, REDS4, where=str(root))
    elif split is not None:
        raise UserError(f"split: REDS has no '{split}'; {nearest(split, ['train', 'reds4'])}")
    return _clips("reds", Path(root), names, scale, _low_root(Path(root), low))


def vid4(
    root: str | Path, *, clips: list[str] | None = None, scale: Scale = 4, low: str | Path | None = None
) -> VideoDataset:
    """The clips of Vid4 (Liu & Sun 2011), four in the whole set. For testing only.

    Args:
        root: Folder that holds GT, with a folder of frames per clip.
        clips: Names of the clips to take; None takes all.
        scale: How many times larger the high-resolution frames are.
        low: "BIx4" or "BDx4" of the usual layout, or another folder of the same clips.

    Returns:
        One sequence per clip.

    Raises:
        UserError: If there are no clips, or one of `clips` or low-resolution frames are missing.
    """
    folder = Path(root) / "GT"
    names = _clip_names(folder)
    if clips is not None:
        names = select_names(names, clips, where=str(folder))
    return _clips("vid4", folder, names, scale, _low_root(Path(root), low))


def high_resolution(
    root: str | Path,
    *,
    scale: Scale = 4,
    halved: bool = False,
    low: str | Path | None = None,
    frames: FrameRange | None = None,
) -> VideoDataset:
    """Videos and folders of frames as ground truth, as `videos` finds them.

    Args:
        root: A folder, or a video file.
        scale: How many times larger the high-resolution frames are.
        halved: First average frames to half their size, for sources that were compressed.
        low: A folder of the same videos at low resolution; inside `root` it does not count as high resolution.
        frames: [first, end) of each video; None takes all.

    Returns:
        One sequence per video.

    Raises:
        UserError: As for `videos`; if a video has no low-resolution counterpart, or there are only low-resolution ones.
    """
    high = list(videos(root, frames=frames).sequences)
    low_root = _low_root(Path(root), low)
    counterparts: dict[str, FrameSequence] = {}
    if low_root:
        # names are paths from `root`
        high = [s for s in high if not (Path(root) / s.name).resolve().is_relative_to(low_root.resolve())]
        if not high:
            raise UserError(f"{root}: has no videos except those of {low_root}; add the high-resolution ones")
        counterparts = {sequence.name: sequence for sequence in videos(low_root, frames=frames).sequences}
        missing = next((sequence.name for sequence in high if sequence.name not in counterparts), None)
        if missing is not None:
            raise UserError(f"{low_root}: there is no low-resolution '{missing}'; {nearest(missing, counterparts)}")
    sequences = [HighResolutionSequence(s, scale, counterparts.get(s.name), halved) for s in high]
    return VideoDataset("high_resolution", sequences)


def _septuplet_names(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: list not found; Vimeo-90K's root holds sequences and sep_trainlist.txt")
    names = [row.text for row in read_rows(path)]
    broken = next((name for name in names if len(Path(name).parts) != 2 or ".." in Path(name).parts), None)
    if broken is not None or not names:
        raise UserError(
            f"{path}: expected lines such as 00001/0001, a septuplet each, got '{broken or ''}'; correct it"
        )
    return names


def _septuplet(folder: Path, name: str) -> ImageSequence:
    """Its seven frames, first looked for when read, as the set has too many."""
    return ImageSequence(name, [folder / f"im{number}.png" for number in range(1, SEPTUPLET + 1)])


def _clip_names(folder: Path) -> list[str]:
    names = [path.name for path in folders_in(folder)]
    if not names:
        raise UserError(f"{folder}: has no clips; it must hold one folder of frames for each clip")
    return names


def _low_root(root: Path, low: str | Path | None) -> Path | None:
    if low is None:
        return None
    folder = root / low
    if not folder.exists():
        raise UserError(f"{folder}: folder of low-resolution frames not found; leave low out to have them made")
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
        raise UserError(f"{folder}: has no frames; copy the clip again or leave it out")
    return ImageSequence(folder.name, images)
