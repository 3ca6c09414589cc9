"""FTD shards of drawn toy faces, made without the builder."""

from pathlib import Path

import numpy as np
from toy_asmd import draw_face

from asmgen.images import encode_image
from asmgen.maps import map_normalization
from asmgen.shards import shard_path, write_shard
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import camera_vertices, vertex_normals
from bfm.sampling import bilinear_taps
from texgen.ftd import CONVENTIONS, KIND, SCHEMA_VERSION, quantize_albedo


def toy_albedo(shape: tuple, seed: int) -> np.ndarray:
    """(S, S, 3) skin detail that the linear albedo lacks: what I_a - I_u is in `write_toy_ftd`."""
    rng = np.random.default_rng([3, seed])
    row, column = np.indices(shape) / shape[0]
    waves = [np.sin(2 * np.pi * (a * row + b * column) + c) for a, b, c in rng.uniform(1, 4, (3, 3))]
    return 0.08 * np.stack(waves, -1)


def write_toy_ftd(folder: Path, model: MorphableModel, count: int, size: int = 32, encoding: str = "params") -> Path:
    """Write one shard of `count` faces, two copies a photo, and two rejected photos; return the folder."""
    face = model.face_only()
    chart = make_chart(face, "cylindrical", size)
    texels, weights = bilinear_taps(chart.vertex_pixels, size, size)

    def samples():
        for index in range(count):
            drawn = draw_face(face, size, index)
            image = drawn.pop("image")
            linear = np.clip(chart.unwrap(face.albedo(drawn["albedo_coeffs"])), 0, 1).transpose(1, 2, 0)
            albedo = np.where(chart.mask[..., None], linear + toy_albedo(chart.mask.shape, index // 2), linear.mean())
            points = project(face.shape(drawn["id_coeffs"], drawn["exp_coeffs"]), drawn["pose"], drawn["position"])
            facing = chart.unwrap(vertex_normals(camera_vertices(points), face.triangles).astype(np.float32))[2] > 0.15
            yaw = abs(np.degrees(drawn["pose"][1]))
            numbers = {
                "light_residual": 0.02, "landmark_error": 0.5, "crop_transform": [[1, 0, 0], [0, 1, 0]],
                "visible_fraction": facing[chart.mask].mean(), "yaw": yaw, "light_ratio": 1 + index / 20,
                "saturation": 0.01, "exposure": 0.5, "albedo_residual": 0.08, "skin_fraction": 0.95,
            }
            if encoding == "dense":
                drawn["linear_albedo_map"] = quantize_albedo(linear)
            yield {
                **drawn, "image": encode_image(image), "source": f"TOY/TOY_{index // 2}_{index % 2}",
                "albedo_map": encode_image(quantize_albedo(albedo)), "mask": (facing & chart.mask).astype(np.uint8),
                **{key: np.asarray(value, np.float32) for key, value in numbers.items()},
            }

    centre, scale = map_normalization(face)
    attributes = {
        "kind": KIND, "schema_version": SCHEMA_VERSION, "encoding": encoding, "size": size,
        "chart": chart.name, "face_model": model.name, "face_model_sha256": model.sha256, "refit": False,
        "licence": model.licence, "coefficients": model.coefficients, "centre": centre, "scale": scale, "lit": False,
        "select_max_yaw": 60.0, "select_min_visible": 0.4, **CONVENTIONS,
    }
    constants = {
        "uv": chart.uv, "mask": chart.mask, "vertex_texels": texels.astype(np.int32), "vertex_weights": weights,
        "triangles": face.triangles, "mouth_triangles": face.mouth_triangles, "landmarks": face.landmarks,
        "mirror": face.mirror, "regions": face.regions,
    }
    folder.mkdir(parents=True, exist_ok=True)
    rejected = [("TOY/DARK", "too dark: 0.03, at least 0.08 wanted"), ("TOY/NONE", "no annotation: TOY/NONE.jpg")]
    write_shard(shard_path(folder, 0, 1), samples(), attributes, constants, rejected)
    return folder
