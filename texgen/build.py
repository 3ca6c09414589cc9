"""Annotated photos to FTD shards: crop, placement, light, linear albedo and the texture of each face that is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from asmgen.build import asmd_plan
from asmgen.faces import PlacedFace
from asmgen.images import encode_image
from asmgen.pipeline import BuildSummary, PhotoPass
from asmgen.rejection import SampleError, rejecting
from asmgen.shard_job import ShardPlan
from asmgen.shards import ShardWriter
from bfm.morphable_model import MorphableModel
from texgen.ftd import CONVENTIONS, KIND, SCHEMA_VERSION, quantize_albedo
from texgen.selection import ScoreTexels, measure, yaw_degrees
from texgen.texture import TextureMapper
from texgen.thresholds import Scores, Selection

SCORES = tuple(score.name for score in fields(Scores))
"""Fields of the scores, float32 each."""

PREVIEW_SIZE, PREVIEW_QUALITY = 128, 85
"""Of the JPEG that is kept of a photo left out: side in pixels, and quality."""


class FtdMaker:
    """Makes FTD samples of placed faces.

    Parameters
    ----------
    mapper : TextureMapper
        Takes the textures.
    texels : ScoreTexels
        Where the scores are taken, on the same chart.
    selection : Selection
        Which photos are kept.
    encoding : str
        ``dense`` stores I_u, ``params`` leaves it to the reader.
    lit : bool
        Store the photo's colours undivided by the shading.
    """

    def __init__(self, mapper: TextureMapper, texels: ScoreTexels, selection: Selection, encoding: str, lit: bool):
        self.mapper, self._texels, self._selection = mapper, texels, selection
        self._encoding, self._lit = encoding, lit

    def fill(self, writer: ShardWriter, faces: Sequence[PlacedFace]) -> None:
        """Add the chosen faces of a batch; those turned too far are not looked at."""
        turned = [self._selection.turned_too_far(yaw_degrees(face.pose)) for face in faces]
        surfaces = self._surfaces([face for face, reason in zip(faces, turned) if not reason])
        for face, reason in zip(faces, turned):
            try:
                if reason:
                    raise _left_out(reason)
                writer.add(self._sample(face, *next(surfaces)))
            except SampleError as error:
                writer.reject(face.fields["source"], str(error), _preview(face.crop))

    def _surfaces(self, faces: Sequence[PlacedFace]) -> Iterator[tuple[np.ndarray, ...]]:
        """Vertices of each face, I_u where it is scored, and the map of I_u if that is stored; of all faces at once."""
        if faces:
            id_coeffs, exp_coeffs, albedo_coeffs = (
                np.stack([face.fields[key] for face in faces]) for key in ("id_coeffs", "exp_coeffs", "albedo_coeffs")
            )
            stored = self._encoding == "dense"
            maps = self.mapper.linear_albedo(albedo_coeffs) if stored else [None] * len(faces)
            yield from zip(
                self.mapper.vertices(id_coeffs, exp_coeffs), self._texels.linear_albedo(albedo_coeffs), maps
            )

    def _sample(
        self, face: PlacedFace, vertices: np.ndarray, scored_albedo: np.ndarray, linear_albedo: np.ndarray | None
    ) -> dict:
        """One face with its texture; SampleError if it is not chosen."""
        texture = self.mapper.extract(
            np.asarray(face.photo), vertices, face.pose, face.position, face.fields["light"]
        )
        scores = measure(texture, scored_albedo, self._texels, face.pose)
        reason = self._selection.reason(scores)
        if reason:
            raise _left_out(reason)
        with rejecting("no texture"):
            albedo = texture.filled(texture.colours) if self._lit else texture.filled_albedo()
        sample = {
            **face.fields, "albedo_map": encode_image(quantize_albedo(albedo)),
            "mask": texture.visible.astype(np.uint8),
            **{name: np.float32(score) for name, score in asdict(scores).items()},
        }
        if linear_albedo is not None:
            sample["linear_albedo_map"] = quantize_albedo(linear_albedo)
        return sample


def _left_out(reason: str) -> SampleError:
    """What `Selection` says, as a kind and its detail."""
    kind, detail = reason.split(": ", 1)
    return SampleError(kind, detail)


def _preview(crop: np.ndarray) -> bytes:
    """A small JPEG of a crop."""
    file = BytesIO()
    picture = Image.fromarray(crop).resize((PREVIEW_SIZE, PREVIEW_SIZE), Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue()


def ftd_plan(photos: PhotoPass, out_dir: str | Path, selection: Selection, lit: bool) -> ShardPlan:
    """Return the set of FTD shards to make of some photos.

    Parameters
    ----------
    photos : PhotoPass
        Photos, face model and options.
    out_dir : str | Path
        Folder for the shards.
    selection : Selection
        Which photos are kept; its thresholds are settings ``select_<name>``, but for those that are off.
    lit : bool
        Store the photo's colours undivided by the shading.

    Returns
    -------
    ShardPlan
        For `PhotoPass.fill`.
    """
    thresholds = {f"select_{name}": limit for name, limit in asdict(selection).items() if limit is not None}
    maker = FtdMaker(
        TextureMapper(photos.face, photos.chart), ScoreTexels.from_model(photos.face, photos.chart), selection,
        photos.settings["encoding"], lit,
    )
    return ShardPlan(
        Path(out_dir), {"kind": KIND, "schema_version": SCHEMA_VERSION, **photos.settings, "lit": lit, **thresholds},
        {**photos.attributes, **CONVENTIONS}, maker, SCORES,
    )


def build_ftd(
    root: str | Path,
    out_dir: str | Path,
    model: MorphableModel,
    *,
    size: int = 256,
    encoding: str = "dense",
    chart: str = "default",
    shard_size: int = 1024,
    jobs: int = 1,
    seed: int = 0,
    count: int | None = None,
    refit: bool = False,
    strict: bool = False,
    repair: bool = False,
    lit: bool = False,
    selection: Selection = Selection(),
    asmd_dir: str | Path | None = None,
    progress: Callable[..., tqdm] = tqdm,
) -> BuildSummary:
    """Turn a tree of annotated photos into FTD shards (IV-A of the paper); a run that was stopped continues.

    Departs from IV-A: I_a is the photo's colour divided by the fitted shading, because eq. (19) lights it again.
    `lit` leaves it undivided.

    Parameters
    ----------
    root : str | Path
        300W-LP or AFLW2000-3D tree, see `asmgen.w300lp.find_samples`.
    out_dir : str | Path
        Folder for the shards and their settings; made if it is not there.
    model : MorphableModel
        Face model, with the coefficient space of the annotations unless `refit`.
    size : int
        Side of the crop and of the maps.
    encoding : str
        ``dense`` stores I_u, ``params`` leaves it to the reader.
    chart : str
        UV chart, see `bfm.charts.make_chart`.
    shard_size : int
        Photos a shard; a shard holds fewer samples if some are rejected.
    jobs : int
        Worker processes; the shards do not depend on it.
    seed : int
        Of the draw of `count` photos.
    count : int | None
        Photos to draw; None takes all.
    refit : bool
        Fit the model to the landmarks in place of reading the annotated parameters.
    strict : bool
        End at the first photo whose face cannot be placed, see `PhotoPass`.
    repair : bool
        Compare every byte of the shards that are there with its digest, and make those again that are damaged.
    lit : bool
        Store the photo's colours undivided by the shading.
    selection : Selection
        Which photos are kept.
    asmd_dir : str | Path | None
        Folder for ASMD shards of the same photos, made in the same pass: all of them, byte for byte what
        `asmgen.build.build_asmd` makes with these options. None makes none.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    BuildSummary
        Of all shards, also those that were there before; that of the ASMD shards is `beside`. `PhotoPass` and
        `PhotoPass.fill` say what may go wrong.
    """
    photos = PhotoPass(
        root, model, size=size, encoding=encoding, chart=chart, shard_size=shard_size, seed=seed, count=count,
        refit=refit, strict=strict,
    )
    plans = [ftd_plan(photos, out_dir, selection, lit)]
    if asmd_dir is not None:
        plans.append(asmd_plan(photos, asmd_dir))
    summary, *beside = photos.fill(plans, jobs, progress, repair)
    return replace(summary, beside=tuple(beside))
