"""Images a second of FTD generation on one core, and how exact its visibility is, beside rasterising each photo's mesh.

Ours is the work of one worker process of ``dualface build ftd``, from the files to a finished shard, photos that are
left out included; models are loaded before. The baseline differs in one thing: which texels are hidden is read from a
depth buffer of the photo's mesh (`bfm.rasterize`), as is common. They take turns. Truth for visibility is a ray from
each of some texels against every triangle.

    python benchmarks/bm_ftd.py -o ftd.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from provenance import provenance
from texture_accuracy import ray_casts_free
from timing import interleaved

from asmgen.asmd import ENCODINGS
from asmgen.build import asmd_plan
from asmgen.faces import FacePlacer, PlacedFace
from asmgen.images import encode_image
from asmgen.pipeline import PhotoPass
from asmgen.rejection import SampleError
from asmgen.shard_job import BATCH, ShardPlan
from asmgen.shards import ShardWriter
from asmgen.synth import synthesize_300wlp
from asmgen.workers import run_tasks
from bfm.open_face import open_face_model
from bfm.rasterize import rasterize
from model.run_folder import json_text
from texgen.build import ftd_plan
from texgen.ftd import quantize_albedo
from texgen.selection import ScoreTexels, measure as measure_scores
from texgen.texture import CELL, FACING, TextureMapper
from texgen.thresholds import Selection

SIZE = 256
RAYS = 400
SLACK = 1.5
"""Pixels by which the depth buffer must be nearer: a pixel of a steep surface is that much off."""


class DepthBuffer:
    """The baseline in place of `texgen.occlusion.Occlusion`: a texel is hidden if the mesh is nearer at its pixel."""

    def __init__(self, triangles: np.ndarray):
        self._triangles = triangles

    def hidden(self, points, away, texels, some, cell) -> np.ndarray:
        """Return which texels are hidden; see `Occlusion.hidden`."""
        low = np.floor(points[:2].min(axis=1))[:, None]
        width, height = (np.ceil((points[:2] - low).max(axis=1)) + 1).astype(int)
        ids, barycentric = rasterize((points[:2] - low).T, points[2], self._triangles, height, width)
        depth = np.where(ids < 0, -np.inf, (points[2][self._triangles[ids]] * barycentric).sum(-1))
        column, row = np.clip(np.rint(texels[:2] - low), 0, [[width - 1], [height - 1]]).astype(int)
        return depth[row, column] > texels[2] + SLACK


class OneWorker:
    """What a worker process of a build does, in this process: a shard of each set, again and again."""

    def __init__(self, folder: Path, count: int):
        model = open_face_model()
        synthesize_300wlp(folder / "photos", model, count)
        self.passes = {
            encoding: PhotoPass(folder / "photos", model, size=SIZE, encoding=encoding, chart="default",
                                shard_size=1024, seed=0, count=None, refit=False)
            for encoding in ENCODINGS
        }
        one = self.passes["dense"]
        self.face, self.chart, self.entries = one.face, one.chart, one.entries
        self.placer, self._folder, self._constants = FacePlacer(self.face, SIZE, False), folder, one.constants
        self.mapper = TextureMapper(self.face, self.chart)

    def ftd(self, encoding: str, buffered: bool = False) -> ShardPlan:
        """Return the plan of an FTD; that of the baseline if `buffered`."""
        plan = ftd_plan(self.passes[encoding], self._folder, Selection(), False)
        if buffered:
            plan.maker.mapper.occlusion = DepthBuffer(self.face.triangles)
        return plan

    def asmd(self, encoding: str) -> ShardPlan:
        """Return the plan of an ASMD."""
        return asmd_plan(self.passes[encoding], self._folder)

    def placed(self) -> list[PlacedFace]:
        """Place the faces of all photos."""
        found = [face for first in range(0, len(self.entries), BATCH)
                 for face in self.placer.place_batch(self.entries[first:first + BATCH])]
        return [face for face in found if not isinstance(face, SampleError)]

    def build(self, *plans: ShardPlan) -> None:
        """Make a shard of each set from the photos."""
        writers = [
            ShardWriter(self._folder / f"{number}.h5", plan.settings | plan.attributes, self._constants, plan.packing)
            for number, plan in enumerate(plans)
        ]
        faces = self.placed()
        for plan, writer in zip(plans, writers):
            with writer:
                for first in range(0, len(faces), BATCH):
                    plan.maker.fill(writer, faces[first:first + BATCH])


def measure(quick: bool) -> list[dict]:
    """Return the rows of the table: rates, and visibility by itself."""
    return run_tasks(_measured, [(quick,)], 1)[0]  # workers have one thread


def _measured(quick: bool) -> list[dict]:
    count, rounds = (16, 3) if quick else (2 * BATCH, 9)
    with tempfile.TemporaryDirectory() as folder:
        worker = OneWorker(Path(folder), count)
        dense, params, asmd = worker.ftd("dense"), worker.ftd("params"), worker.asmd("params")
        timings = interleaved({
            "dense, buffered": partial(worker.build, worker.ftd("dense", buffered=True)),
            "dense": partial(worker.build, dense),
            "params, buffered": partial(worker.build, worker.ftd("params", buffered=True)),
            "params": partial(worker.build, params),
            "params, asmd": partial(worker.build, asmd),
            "params, with asmd": partial(worker.build, params, asmd),
        }, rounds)
        rows = [
            _row(f"build ftd, {one}", timings[f"{one}, buffered"], timings[one], count, "depth buffer")
            for one in ENCODINGS
        ]
        apart = [timings["params"], timings["params, asmd"]]
        apart = apart[0]._replace(
            seconds=sum(one.seconds for one in apart), process_seconds=sum(one.process_seconds for one in apart)
        )
        rows.append(_row("build ftd --with-asm, params", apart, timings["params, with asmd"], count, "two builds"))
        return [*rows, _visibility(worker, 3 if quick else 9)]


def _row(operation, baseline, ours, count, name) -> dict:
    return {
        "operation": operation, "baseline": f"{count / baseline.seconds:.1f} img/s ({name})",
        "ours": f"{count / ours.seconds:.1f} img/s", "ratio": baseline.seconds / ours.seconds,
        "processor_time_ratio": baseline.process_seconds / ours.process_seconds,
        "milliseconds_of_processor_a_photo": 1e3 * ours.process_seconds / count,
    }


def _visibility(worker: OneWorker, rounds: int) -> dict:
    """Time and exactness of telling which texels are hidden, without margins."""
    mapper, rng = worker.mapper, np.random.default_rng(0)
    given, truths = [], []
    for face in worker.placed()[:8]:
        vertices = mapper.vertices(face.fields["id_coeffs"][None], face.fields["exp_coeffs"][None])[0]
        placed = mapper.surface.place(vertices, face.pose, face.position)
        texels, normals = (values.take(mapper.surface.texels, axis=1) for values in (placed.places, placed.normals))
        front = np.flatnonzero(normals[2] > FACING)
        given.append((placed.points, placed.away, texels, front, CELL * mapper.spacing * float(face.position[2])))
        drawn = rng.choice(front, RAYS, replace=False)
        truths.append((drawn, ~ray_casts_free(texels.T[drawn], placed.points.T, worker.face.triangles)))

    def told(occlusion) -> list[np.ndarray]:
        return [occlusion.hidden(*each) for each in given]

    ways = {"baseline": DepthBuffer(worker.face.triangles), "ours": mapper.occlusion}
    timings = interleaved({name: partial(told, way) for name, way in ways.items()}, rounds)
    exact = {
        name: np.mean([hidden[drawn] == truth for hidden, (drawn, truth) in zip(told(way), truths)])
        for name, way in ways.items()
    }
    texts = {
        name: f"{1e3 * timing.seconds / len(given):.1f} ms, {exact[name]:.2%} as rays"
        for name, timing in timings.items()
    }
    return {
        "operation": "which texels are hidden, a photo", **texts,
        "ratio": timings["baseline"].seconds / timings["ours"].seconds,
        "processor_time_ratio": timings["baseline"].process_seconds / timings["ours"].process_seconds,
        "rays": RAYS * len(given), "agreement": {name: float(share) for name, share in exact.items()},
    }


def stages(count: int, rounds: int = 5) -> dict[str, float]:
    """Return the milliseconds a photo, of so many, of each stage by itself."""
    with tempfile.TemporaryDirectory() as folder:
        return _stages(OneWorker(Path(folder), count), rounds)


def _stages(worker: OneWorker, rounds: int) -> dict[str, float]:
    mapper, texels = worker.mapper, ScoreTexels.from_model(worker.face, worker.chart)
    faces = worker.placed()[:BATCH]
    coeffs = [np.stack([face.fields[key] for face in faces]) for key in ("id_coeffs", "exp_coeffs", "albedo_coeffs")]
    shapes, linear = mapper.vertices(*coeffs[:2]), texels.linear_albedo(coeffs[2])
    textures = [
        mapper.extract(face.photo, vertices, face.pose, face.position, face.fields["light"])
        for face, vertices in zip(faces, shapes)
    ]
    albedos = [quantize_albedo(texture.filled_albedo()) for texture in textures]

    def each(function: Callable, *lists) -> Callable[[], list]:
        return lambda: [function(*values) for values in zip(*lists)]

    poses, positions = ([getattr(face, name) for face in faces] for name in ("pose", "position"))
    timings = interleaved({
        "photo, crop and light": lambda: worker.placer.place_batch(worker.entries[:BATCH]),
        "vertices": lambda: mapper.vertices(*coeffs[:2]),
        "I_u (dense)": lambda: mapper.linear_albedo(coeffs[2]),
        "I_u where it is scored": lambda: texels.linear_albedo(coeffs[2]),
        "texture, all of it": each(mapper.extract, [face.photo for face in faces], shapes, poses, positions,
                                   [face.fields["light"] for face in faces]),
        "  of which places and normals": each(mapper.surface.place, shapes, poses, positions),
        "scores": each(lambda texture, albedo, pose: measure_scores(texture, albedo, texels, pose),
                       textures, linear, poses),
        "light out, holes filled": each(lambda texture: quantize_albedo(texture.filled_albedo()), textures),
        "I_a encoded": each(encode_image, albedos),
    }, rounds)
    return {name: 1e3 * timing.process_seconds / len(faces) for name, timing in timings.items()}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer photos and rounds.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(quick: bool, output: Path | None):
    """Compare with a depth buffer a photo, and time the stages."""
    rows = measure(quick)
    for row in rows:
        click.echo(f"{row['operation']:<34}{row['baseline']:>30}{row['ours']:>30}{row['ratio']:>8.2f} times "
                   f"({row['processor_time_ratio']:.2f} by processor time)")
    parts = run_tasks(stages, [(16 if quick else BATCH,)], 1)[0]
    for name, milliseconds in parts.items():
        click.echo(f"{name:<34}{milliseconds:>8.2f} ms a photo, processor time")
    if output:
        report = {"benchmark": "ftd", **provenance(torch.device("cpu")), "results": rows, "stages_ms": parts}
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
