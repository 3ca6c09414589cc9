"""UV charts against their definition, on a tiny face."""

from dataclasses import replace

import numpy as np
import pytest

from bfm.charts import _symmetrized, make_chart, round_trip_error
from bfm.morphable_model import REGIONS
from toy import toy_model

KINDS = ("cylindrical", "harmonic")


def signed_areas(chart):
    a, b, c = (chart.uv[chart.triangles[:, k]].astype(np.float64) for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def unwrapped_by_definition(chart, values):
    """For each texel centre, solve for its weights in each triangle in turn; NaN outside."""
    size = chart.size
    result = np.full((values.shape[1], size, size), np.nan)
    for corners in chart.triangles:
        system = np.vstack([chart.uv[corners].T.astype(np.float64), np.ones(3)])
        for row in range(size):
            for column in range(size):
                weights = np.linalg.solve(system, [column / (size - 1), 1 - row / (size - 1), 1])
                if weights.min() >= -1e-9:
                    result[:, row, column] = weights @ values[corners]
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_unwrap_is_barycentric_interpolation_at_texel_centres(kind):
    model = toy_model(rows=8, columns=7)
    chart = make_chart(model, kind, size=14)
    values = np.random.default_rng(0).normal(size=(len(model.mean_shape), 2))
    expected = unwrapped_by_definition(chart, values)
    inside = ~np.isnan(expected[0])
    unwrapped = chart.unwrap(values)
    assert chart.mask[inside].all() and inside.sum() > 90
    np.testing.assert_allclose(unwrapped[:, inside], expected[:, inside], atol=2e-6)
    assert (unwrapped[:, ~chart.mask] == 0).all()
    # beyond the triangles the mask is a ring one texel wide
    for row, column in np.argwhere(chart.mask & ~inside):
        assert inside[max(row - 1, 0):row + 2, max(column - 1, 0):column + 2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_sample_is_bilinear_at_the_vertices(kind):
    model = toy_model(rows=8, columns=7)
    chart = make_chart(model, kind, size=14)
    maps = np.random.default_rng(0).normal(size=(2, 14, 14))
    for (u, v), sampled in zip(chart.uv.astype(np.float64), chart.sample(maps)):
        x, y = u * 13, (1 - v) * 13
        expected = sum(
            maps[:, row, column] * max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
            for row in range(14) for column in range(14)
        )
        np.testing.assert_allclose(sampled, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [7, 24, 65])
def test_a_field_linear_in_uv_survives_even_at_the_outline(kind, size):
    chart = make_chart(toy_model(), kind, size)
    field = chart.uv.astype(np.float64) @ [[3.0, -1], [1, 2]] + [5, 0]
    np.testing.assert_allclose(chart.sample(chart.unwrap(field)), field, atol=2e-5)
    row, column = np.nonzero(chart.mask)
    places = np.stack([column, size - 1 - row], 1) / (size - 1)
    np.testing.assert_allclose(chart.unwrap(field)[:, chart.mask].T, places @ [[3.0, -1], [1, 2]] + [5, 0], atol=2e-5)


def test_a_field_linear_in_uv_survives_on_a_spike_thinner_than_a_texel():
    model = toy_model()
    uv = ((model.mean_shape[:, :2] / [70, 90] + 1) / 2 * 0.6 + 0.2).astype(np.float32)
    uv[16] = 0.995, 0.79  # the upper right corner
    chart = make_chart(replace(model, uv=uv), "file", 16)
    field = uv.astype(np.float64) @ [[3.0, -1], [1, 2]]
    np.testing.assert_allclose(chart.sample(chart.unwrap(field)), field, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_batches_and_types(kind):
    chart = make_chart(toy_model(), kind, 32)
    values = np.random.default_rng(0).normal(size=(2, 3, len(chart.uv), 4)).astype(np.float32)
    maps = chart.unwrap(values)
    assert maps.shape == (2, 3, 4, 32, 32) and maps.dtype == np.float32
    assert np.array_equal(maps[1, 2], chart.unwrap(values[1, 2]))
    back = chart.sample(maps)
    assert back.shape == values.shape and back.dtype == np.float32
    assert chart.unwrap(values[0, 0].astype(np.float64)).dtype == np.float64
    assert chart.uv.dtype == np.float32 and 0 <= chart.uv.min() and chart.uv.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_lies_as_the_face_is_seen(kind):
    model = toy_model()
    chart = make_chart(model, kind, 64)
    x, y, _ = chart.unwrap(model.mean_shape)
    middle = slice(16, 48)
    assert (np.diff(x[middle, middle], axis=1) > 0).all() and (np.diff(y[middle, middle], axis=0) < 0).all()
    assert (signed_areas(chart) > 0).all()
    np.testing.assert_array_equal(chart.uv.min(0), 0)
    np.testing.assert_array_equal(chart.uv.max(0), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [32, 48])
def test_flipping_the_map_is_mirroring_the_face(kind, size):
    model = toy_model()
    chart = make_chart(model, kind, size)
    mirrored = chart.uv[model.mirror]
    assert np.array_equal(mirrored[:, 0], 1 - chart.uv[:, 0]) and np.array_equal(mirrored[:, 1], chart.uv[:, 1])
    assert np.array_equal(chart.mask, chart.mask[:, ::-1])
    face = chart.unwrap(model.mean_shape)
    np.testing.assert_allclose(face[:, :, ::-1] * [[[-1]], [[1]], [[1]]], face, atol=1e-4)


def test_a_triangle_is_not_taken_for_its_mirror_image():
    uv, mirror = np.random.default_rng(0).random((6, 2)), np.array([1, 0, 2, 3, 5, 4])
    np.testing.assert_array_equal(_symmetrized(uv, np.array([[0, 2, 5]]), mirror), uv)
    both = _symmetrized(uv, np.array([[0, 2, 5], [4, 2, 1]]), mirror)
    np.testing.assert_allclose(both[mirror], both * [-1, 1] + [1, 0], rtol=0, atol=1e-15)


def test_an_asymmetric_topology_keeps_its_own_chart_upright():
    model = toy_model()
    triangles = np.concatenate([model.triangles[1:], model.triangles[:1, [1, 2, 0]]])
    same = make_chart(replace(model, triangles=triangles), "harmonic", 32)
    assert np.array_equal(same.uv[model.mirror][:, 0], 1 - same.uv[:, 0])  # order and rotation do not matter
    asymmetric = make_chart(replace(model, triangles=model.triangles[1:]), "harmonic", 32)
    assert (signed_areas(asymmetric) > 0).all()
    mirrored = asymmetric.uv[model.mirror] * [-1, 1] + [1, 0]
    assert 0 < np.abs(mirrored - asymmetric.uv)[2:-2].max() < 0.1


def test_a_cylinder_stands_behind_the_face_at_its_rearmost_point():
    model = toy_model()
    shape = model.mean_shape + np.float32([5, 40, -80])
    chart = make_chart(replace(model, mean_shape=shape, triangles=model.triangles[1:]), "cylindrical", 32)
    x, y, z = shape.T.astype(np.float64)
    angle = np.arctan2(x, z - z.min())
    np.testing.assert_allclose(chart.uv[:, 0], 0.5 + 0.5 * angle / np.abs(angle).max(), atol=1e-5)
    np.testing.assert_allclose(chart.uv[:, 1], (y - y.min()) / (y.max() - y.min()), atol=1e-5)


def test_a_harmonic_chart_is_a_bijection_even_where_the_face_overhangs():
    model = toy_model(rows=31, columns=31)
    mean = model.mean_shape.copy()
    bump = np.exp(-(mean[:, 0] / 25) ** 2 - (mean[:, 1] / 25) ** 2)
    mean += np.stack([40 * bump, -50 * bump, 120 * bump], 1)  # a drooping nose, turned to one side
    chart = make_chart(replace(model, mean_shape=mean), "harmonic", 64)
    assert (signed_areas(chart) > 0).all()
    assert (signed_areas(make_chart(replace(model, mean_shape=mean), "cylindrical", 64)) < 0).any()


def test_holes_stay_holes_and_do_not_fold():
    model = toy_model()
    full = make_chart(model, "harmonic", 120)
    open_mouth = make_chart(replace(model, mouth_triangles=model.mouth_triangles[:0]), "harmonic", 120)
    assert (signed_areas(open_mouth) > 0).all()
    assert full.mask[9:-9, 9:-9].all() and not open_mouth.mask[9:-9, 9:-9].all()


def test_where_a_cylinder_folds_the_outermost_surface_is_kept():
    model = toy_model()
    count = len(model.mean_shape)
    inner = model.mean_shape * np.float32([0.5, 1, 0.5])  # at the same angles: the axis is at depth 0
    both = replace(
        model, mean_shape=np.concatenate([inner, model.mean_shape]),
        triangles=np.concatenate([model.triangles, model.triangles + count]),
        mouth_triangles=np.concatenate([model.mouth_triangles, model.mouth_triangles + count]),
        id_basis=np.zeros((5, 2 * count, 3)), exp_basis=np.zeros((3, 2 * count, 3)),
        albedo_basis=np.zeros((4, 2 * count, 3)), mean_albedo=np.zeros((2 * count, 3)),
        mirror=np.concatenate([model.mirror, model.mirror + count]), regions=np.ones(2 * count, np.uint8),
    )
    chart = make_chart(both, "cylindrical", 64)
    sheet = (np.arange(2 * count) >= count).astype(float)[:, None]
    covered = chart.mask & (chart.texel_barycentric.min(-1) >= 0)  # not the ring
    assert covered.mean() > 0.6
    np.testing.assert_allclose(chart.unwrap(sheet)[0, covered], 1, atol=1e-6)


def test_the_file_chart_takes_the_texture_coordinates_as_they_are():
    model = toy_model()
    uv = np.random.default_rng(0).uniform(size=(len(model.mean_shape), 2)).astype(np.float32)
    assert np.array_equal(make_chart(replace(model, uv=uv), "file", 32).uv, uv)
    with pytest.raises(ValueError, match="'toy' came without texture coordinates"):
        make_chart(model, "file")


def test_the_outside_region_is_left_out():
    model = toy_model()
    regions = model.regions.copy()
    regions[:17] = REGIONS.index("outside")
    model = replace(model, regions=regions)
    chart = make_chart(model, size=32)
    assert chart.name == "harmonic" and len(chart.uv) == len(model.mean_shape) - 17
    with pytest.raises(ValueError, match=r"values must have shape \(\.\.\., 340, C\).*face_only"):
        chart.unwrap(model.mean_shape)
    assert round_trip_error(model, chart) == round_trip_error(model.face_only(), chart)


def test_round_trip_error_is_measured_at_the_vertices():
    model = toy_model()
    chart = make_chart(model, "harmonic", 40)
    mean, greatest = round_trip_error(model, chart)
    moved = chart.sample(chart.unwrap(model.mean_shape)) - model.mean_shape
    assert greatest == pytest.approx(np.sqrt((moved**2).sum(1)).max(), rel=1e-4)
    assert mean == pytest.approx(np.sqrt((moved**2).sum(1)).mean(), rel=1e-3)
    assert 0 < mean < 1 and greatest < 5
    finer = round_trip_error(model, make_chart(model, "harmonic", 160))
    assert finer[0] < mean / 3 and finer[1] < greatest / 2


def test_refusals():
    model = toy_model()
    with pytest.raises(ValueError, match="chart must be one of default, cylindrical, harmonic, file, got 'conformal'"):
        make_chart(model, "conformal")
    with pytest.raises(ValueError, match="size must be at least 2 texels, got 1"):
        make_chart(model, size=1)
    with pytest.raises(ValueError, match=r"maps must have shape \(\.\.\., C, 32, 32\), got \(3, 32, 31\)"):
        make_chart(model, size=32).sample(np.zeros((3, 32, 31)))
    split = model.triangles[(model.triangles // 17 != 5).all(axis=1)]
    with pytest.raises(ValueError, match="one piece with one outline, got"):
        make_chart(replace(model, triangles=split), "harmonic")
    tetrahedron = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [3, 2, 1]], np.int32)
    with pytest.raises(ValueError, match="one piece with one outline, got"):
        make_chart(replace(model, triangles=tetrahedron, mouth_triangles=tetrahedron[:0]), "harmonic")
