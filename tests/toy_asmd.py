"""ASMD shards of drawn toy faces, made without the builder."""

from pathlib import Path

import numpy as np

from asmgen.asmd import KIND, QUANTUM, SCHEMA_VERSION, quantize_maps
from asmgen.images import encode_image
from asmgen.maps import AttributeMaps
from asmgen.shards import write_shard
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import camera_vertices, render, vertex_normals


def draw_face(model: MorphableModel, size: int, seed: int) -> dict:
    """Return one face in a crop: `image` (S, S, 3) uint8 and what is true of it."""
    rng = np.random.default_rng(seed)
    id_coeffs, exp_coeffs, albedo_coeffs = (
        rng.standard_normal(len(basis)) for basis in (model.id_basis, model.exp_basis, model.albedo_basis)
    )
    pose = rng.uniform([-0.3, -0.8, -0.3], [0.3, 0.8, 0.3])
    position = np.array([size / 2 + rng.normal(0, 2), size / 2 + rng.normal(0, 2), size / 200 * rng.uniform(0.8, 1)])
    light = np.concatenate([[3.2], rng.normal(0, 0.3, 3), rng.normal(0, 0.1, 5)])
    vertices = model.shape(id_coeffs, exp_coeffs)
    points = project(vertices, pose, position)
    shading = sh_basis(vertex_normals(camera_vertices(points), model.triangles)) @ light
    background = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (size, size, 3))
    colours = model.albedo(albedo_coeffs) * shading[:, None]
    numbers = {
        "id_coeffs": id_coeffs, "exp_coeffs": exp_coeffs, "albedo_coeffs": albedo_coeffs, "light": light,
        "pose": pose, "position": position, "landmarks": points[model.landmarks, :2],
    }
    return {
        "image": render(points, colours, model.triangles, background),
        **{key: value.astype(np.float32) for key, value in numbers.items()},
    }


def write_toy_asmd(
    folder: Path, model: MorphableModel, count: int, size: int = 32, encoding: str = "params"
) -> Path:
    """Write one shard of `count` faces, two copies a photo, and return the folder."""
    maps = AttributeMaps.from_model(model, make_chart(model, "cylindrical", size))

    def samples():
        for index in range(count):
            face = draw_face(model, size, index)
            if encoding == "dense":
                face["identity_map"] = quantize_maps(maps.identity_map(face["id_coeffs"][None])[0])
                face["expression_map"] = quantize_maps(maps.expression_map(face["exp_coeffs"][None])[0])
            yield {**face, "image": encode_image(face["image"]), "source": f"TOY/TOY_{index // 2}_{index % 2}"}

    folder.mkdir(parents=True, exist_ok=True)
    attributes = {
        "kind": KIND, "schema_version": SCHEMA_VERSION, "encoding": encoding, "size": size,
        "chart": maps.chart.name, "face_model": model.name, "face_model_sha256": model.sha256,
        "licence": model.licence, "coefficients": model.coefficients, "centre": maps.centre, "scale": maps.scale,
        "quantum": QUANTUM,
    }
    write_shard(folder / "shard-00000-of-00001.h5", samples(), attributes, {"uv": maps.chart.uv})
    return folder
