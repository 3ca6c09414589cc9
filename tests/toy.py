"""A tiny morphable model, made in a millisecond: a bulged, mirror-symmetric grid with a mouth slit."""

import numpy as np

from bfm.morphable_model import REGIONS, MorphableModel


def toy_model(rows: int = 21, columns: int = 17, id_modes: int = 5, exp_modes: int = 3, albedo_modes: int = 4,
              seed: int = 0) -> MorphableModel:
    """Return a face-like model; `columns` is odd, so that a column of vertices lies on the mirror plane."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(1, -1, rows))
    mean = np.stack([70 * u, 90 * v, 60 * np.sqrt(np.clip(1.6 - u**2 - 0.6 * v**2, 0, None))], -1)
    mean[..., 2] += 20 * np.exp(-((u / 0.15) ** 2) - (v / 0.25) ** 2)  # a nose
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    # diagonals mirrored about the middle column
    left = np.tile(np.arange(columns - 1) < (columns - 1) // 2, rows - 1)[:, None]
    triangles = np.concatenate([
        np.where(left, np.stack([a, c, d], 1), np.stack([a, c, b], 1)),
        np.where(left, np.stack([a, d, b], 1), np.stack([b, c, d], 1)),
    ])
    # a slit of two triangles a cell is the mouth gap
    mouth_row = int(rows * 0.75)
    gap_vertices = index[mouth_row:mouth_row + 2, columns // 2 - 2:columns // 2 + 3].ravel()
    gap = np.isin(triangles, gap_vertices).all(axis=1)
    mirror = index[:, ::-1].ravel()

    def modes(count: int, scale: float) -> np.ndarray:
        """Random smooth modes; even ones are mirror-symmetric."""
        frequency = rng.uniform(0.5, 2.5, (count, 3, 2))
        phase = rng.uniform(0, 6, (count, 3))
        field = np.cos(
            frequency[..., 0, None, None] * u + frequency[..., 1, None, None] * v + phase[..., None, None]
        ).reshape(count, 3, u.size).swapaxes(1, 2)
        flipped = field[:, mirror] * [-1, 1, 1]
        field[::2] = (field[::2] + flipped[::2]) / 2
        return (scale * field).astype(np.float32)

    regions = np.full((rows, columns), REGIONS.index("face"), np.uint8)
    regions[np.hypot(u, v) < 0.3] = REGIONS.index("nose")
    regions[(np.abs(v - 0.4) < 0.12) & (np.abs(np.abs(u) - 0.45) < 0.2)] = REGIONS.index("eyes")
    regions[(np.abs(v + 0.55) < 0.15) & (np.abs(u) < 0.4)] = REGIONS.index("mouth")
    # 17 jaw points along the outline, the other 51 over the inside
    jaw = np.round(np.linspace(0, 1, 17) * (columns - 1)).astype(int)
    jaw_rows = np.round((1 - (np.linspace(-1, 1, 17) ** 2)) * (rows // 2 - 1) + rows // 2).astype(int)
    inner = index[3:-4, 2:-2].ravel()
    landmarks = np.concatenate([index[jaw_rows, jaw], inner[np.linspace(0, len(inner) - 1, 51).astype(int)]])
    count = rows * columns
    return MorphableModel(
        mean_shape=mean.reshape(-1, 3).astype(np.float32),
        id_basis=modes(id_modes, 3.0), exp_basis=modes(exp_modes, 2.0),
        mean_albedo=np.full((count, 3), (0.7, 0.5, 0.4), np.float32),
        albedo_basis=np.abs(modes(albedo_modes, 0.03)),
        id_stddev=np.linspace(9e5, 1e5, id_modes).astype(np.float32),
        exp_stddev=np.linspace(1, 0.3, exp_modes).astype(np.float32),
        albedo_stddev=np.linspace(3e3, 1e3, albedo_modes).astype(np.float32),
        triangles=triangles[~gap].astype(np.int32), mouth_triangles=triangles[gap].astype(np.int32),
        landmarks=landmarks.astype(np.int32), mirror=mirror.astype(np.int32), regions=regions.ravel(),
        name="toy", layout="toy", coefficients="toy", licence="made in the test",
    )
