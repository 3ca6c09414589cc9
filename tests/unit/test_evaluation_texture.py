import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_model
from toy_ftd import write_toy_ftd

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from model.batches import GeometryPreparer
from model.config import FusionConfig, GeometryConfig
from model.data import FUSION, FaceDataset, samples_with_truth, split_identities
from model.dual_stream import Face, TrainedFaces, draw_face
from model.evaluation import texture
from model.evaluation.texture import PUBLISHED, evaluate_texture
from model.evaluation.texture_methods import Drawn, TextureMethods, method_errors, picture_errors
from model.geometry import normalise_position
from model.identity import LAYERS, IdentityNetwork, face_crop
from model.linear_albedo import LinearAlbedo
from model.metrics import ssim_map
from model.render import FaceRenderer

SIZE = 32


def test_errors_by_hand():
    """Three pixels of a 4 x 4 picture count; what is brighter than white is white."""
    image = torch.full((2, 3, 4, 4), 0.5)
    rendered, region = torch.full((2, 3, 4, 4), 7.0), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    region[0, 0, 0, 1] = region[0, 0, 2, 2] = region[0, 0, 3, 0] = True
    rendered[0, :, 0, 1] = torch.tensor([0.6, 0.3, 0.5])
    rendered[0, :, 2, 2] = torch.tensor([0.5, 0.5, 1.4])  # 1.0
    rendered[0, :, 3, 0] = torch.tensor([-0.2, 0.5, 0.5])  # 0.0
    errors = picture_errors(rendered, image, region)
    assert errors["mae"][0].item() == pytest.approx((0.1 + 0.2 + 0.5 + 0.5) / 9, abs=1e-7)
    assert errors["e_pho"][0].item() == pytest.approx((0.01 + 0.04 + 0.25 + 0.25) / 3, abs=1e-7)
    assert all(math.isnan(values[1]) for values in errors.values())  # no pixel is not a perfect one


def test_errors_are_of_the_region_alone():
    generator = torch.Generator().manual_seed(0)
    image, rendered = torch.rand(2, 1, 3, 20, 20, generator=generator)
    region = torch.rand(1, 1, 20, 20, generator=generator) < 0.3
    errors = picture_errors(rendered, image, region)
    changed = picture_errors(torch.where(region, rendered, 0.1), image, region)
    assert all(torch.equal(changed[key], errors[key]) for key in errors)
    over = torch.where(region, rendered, image)
    in_region = ssim_map(over, image)[0][:, region[0, 0]]
    assert errors["ssim"].item() == pytest.approx(in_region.mean().item(), abs=1e-9)
    same = picture_errors(image, image, region)
    assert (same["mae"], same["e_pho"]) == (0, 0) and same["ssim"].item() == pytest.approx(1, abs=1e-9)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_ftd(tmp_path_factory.mktemp("shards"), model, 6, SIZE)


class Known(torch.nn.Module):
    """A network that gives the true faces of some photos, moved by so many pixels, and albedo a little too bright."""

    def __init__(self, linear_albedo, truth, shift=0.0, brighter=None):
        super().__init__()
        self.linear_albedo, self.truth, self.shift, self.brighter = linear_albedo, truth, shift, brighter
        self.generator, self.landmarks = brighter is not None, None

    def forward(self, image):
        rows = torch.stack([(self.truth.image - one).abs().sum((1, 2, 3)).argmin() for one in image])
        parameters = type(self.truth.parameters)(*(part[rows] for part in self.truth.parameters))
        moved = self.truth.position[rows] + torch.tensor([self.shift, 0, 0])
        albedo = self.linear_albedo(parameters.albedo)
        return Face(
            self.truth.identity_map[rows], self.truth.expression_map[rows],
            (albedo + (self.brighter or 0)) * self.linear_albedo.inside,
            parameters._replace(position=normalise_position(moved, SIZE)),
        )


@pytest.fixture(scope="module")
def raw(model, shards):
    (samples,), unknown = samples_with_truth(FaceDataset(shards, FUSION), metadata(model))
    assert not unknown
    return torch.utils.data.default_collate([samples[index] for index in range(len(samples))])


def metadata(model):
    return {"face_model_sha256": model.sha256, "chart": "cylindrical", "size": SIZE, "kind": "fusion"}


@pytest.fixture(scope="module")
def known(model, raw):
    """Makes the runs of `Known`."""
    face = model.face_only()
    maps = AttributeMaps.from_model(face, make_chart(face, "cylindrical", SIZE))
    truth = GeometryPreparer(face, maps, {"encoding": "params"}, torch.device("cpu"))(raw)
    albedo, renderer = LinearAlbedo(face, maps.chart), FaceRenderer(face, maps)

    def make(shift=0.0, brighter=None):
        network = Known(albedo, truth, shift, brighter)
        return TrainedFaces(network, renderer, face, maps, metadata(model), True)

    return make


def test_each_method_draws_its_albedo_on_its_face(known, raw):
    run = known(4.0, 0.1)
    drawn = TextureMethods({"run": run})(raw)
    assert list(drawn.pictures) == [
        "linear", "linear on the true face", "this method", "this method on the true face",
        "I_a of the shards on the true face",
    ]
    face = run.network(drawn.image)
    true_face = known(0.0, 0.1).network(drawn.image)
    linear = run.network.linear_albedo(face.parameters.albedo)
    photographed = raw["albedo_map"].float() / 255 * run.network.linear_albedo.inside
    expected = {
        "linear": face._replace(albedo_map=linear), "linear on the true face": true_face._replace(albedo_map=linear),
        "this method": face, "this method on the true face": true_face,
        "I_a of the shards on the true face": true_face._replace(albedo_map=photographed),
    }
    for method, one in expected.items():
        torch.testing.assert_close(drawn.pictures[method], draw_face(run.renderer, one).image, atol=1e-4, rtol=0)
    assert torch.equal(drawn.landmarks, raw["landmarks"])
    inside = run.network.linear_albedo.inside
    visible = raw["mask"].bool() & inside
    for method, albedo in (("linear", linear), ("this method", face.albedo_map)):
        for row, seen in enumerate(visible):
            error = (albedo - photographed)[row][:, seen].abs().mean()
            assert drawn.albedo_errors[method][row].item() == pytest.approx(error.item(), abs=1e-6)


def test_the_region_is_what_all_methods_draw(known, raw):
    class Half:
        def to(self, device):
            return self

        def face_mask(self, image):
            return (torch.arange(SIZE) < 14).expand(len(image), 1, SIZE, SIZE)

    runs = {"left": known(-3.0), "right": known(3.0)}
    masks = [draw_face(run.renderer, run.network(raw["image"] / 255)).mask for run in (*runs.values(), known())]
    drawn = TextureMethods(runs)(raw)
    assert torch.equal(drawn.region, masks[0] & masks[1] & masks[2])
    assert (drawn.region != masks[2]).any() and (drawn.region != masks[0] & masks[1]).any()
    half = TextureMethods(runs, Half())(raw)
    assert torch.equal(half.region, drawn.region & Half().face_mask(drawn.image))
    assert list(drawn.pictures)[::2] == ["left: linear", "right: linear", "I_a of the shards on the true face"]
    photos = {key: raw[key] for key in ("image",)}
    alone = TextureMethods(runs)(photos)
    assert list(alone.pictures) == ["left: linear", "right: linear"] and not alone.albedo_errors
    assert torch.equal(alone.region, masks[0] & masks[1])


def test_what_is_known_to_be_right_has_no_error_and_what_is_misplaced_has_one(known, raw):
    """The toy photos are drawn with the linear albedo, so that on the true face only JPEG and the chart are left."""
    right = method_errors(TextureMethods({"run": known()})(raw))
    wrong = method_errors(TextureMethods({"run": known(2.0)})(raw))
    assert right["linear"]["mae"].max() < 0.02 and wrong["linear on the true face"]["mae"].max() < 0.02
    torch.testing.assert_close(right["linear"]["mae"], right["linear on the true face"]["mae"], atol=1e-5, rtol=0)
    misplaced, in_place = wrong["linear"]["mae"], wrong["linear on the true face"]["mae"]
    assert (misplaced > in_place).all() and misplaced.mean() > 2 * in_place.mean()
    assert (right["linear"]["ssim"] > wrong["linear"]["ssim"]).all()


def test_identity_is_the_cosine_of_photo_and_composed_face(known, raw):
    torch.manual_seed(0)
    network = IdentityNetwork(LAYERS[18], 0.05).eval().requires_grad_(False)
    drawn = TextureMethods({"run": known(2.0)})(raw)
    found = method_errors(drawn, network)
    for method, picture in drawn.pictures.items():
        over = torch.where(drawn.region, picture.clamp(0, 1), drawn.image)
        ours, theirs = (network(face_crop(images, raw["landmarks"])) for images in (over, drawn.image))
        cosine = (ours * theirs).sum(1) / (ours.norm(dim=1) * theirs.norm(dim=1))
        torch.testing.assert_close(found[method]["identity"], cosine, atol=1e-5, rtol=0)
    perfect = Drawn(drawn.image, drawn.region, {"photo": drawn.image}, drawn.landmarks, {})
    torch.testing.assert_close(method_errors(perfect, network)["photo"]["identity"], torch.ones(6), atol=1e-6, rtol=0)


@pytest.fixture
def evaluated(known, model, shards, tmp_path, monkeypatch):
    """Runs `evaluate_texture` on made runs, trained as they say."""
    def run(runs, trainings=None, sheet=False, **options):
        monkeypatch.setattr(texture, "_load", lambda *given: (runs, trainings or {}))
        if not sheet:
            monkeypatch.setattr(texture, "_sheet", lambda *given: Image.new("RGB", (1, 1)))
        path = evaluate_texture(shards, [], tmp_path / "out", model, "cpu", **options)
        return path.read_text(), json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def test_the_report(evaluated, known, raw, tmp_path):
    text, results = evaluated({"a": known(2.0, 0.1)}, sheet=True)
    errors = method_errors(TextureMethods({"a": known(2.0, 0.1)})(raw))
    for method, values in errors.items():
        for key, each in values.items():
            written = [photo["methods"][method][key] for photo in results["photos"]]
            np.testing.assert_allclose(written, each.numpy(), atol=1e-6)
            assert results["means"][method][key] == pytest.approx(float(each.mean()), abs=1e-6)
        cells = next(line for line in text.splitlines() if line.startswith(f"| {method} "))
        assert f"{results['means'][method]['mae']:.4f}" in cells and f"{results['means'][method]['e_pho']:.4f}" in cells
    sources = [f"TOY/TOY_{index // 2}_{index % 2}" for index in range(6)]
    assert [photo["source"] for photo in results["photos"]] == sources
    for name, mae in PUBLISHED.items():
        cells = next(line for line in text.splitlines() if line.startswith(f"| {name} ")).split("|")
        assert [cell.strip() for cell in cells[2:4]] == ["-", f"{mae:.3f}"]
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_photos_without_a_common_region_do_not_count(evaluated, known, raw):
    class Elsewhere(Known):
        def forward(self, image):
            face = super().forward(image)
            position = face.parameters.position.clone()
            position[(self.truth.image[1] == image).all((1, 2, 3)), 0] = 50.0  # far to the right
            return face._replace(parameters=face.parameters._replace(position=position))

    run = known()
    run.network.__class__ = Elsewhere
    text, results = evaluated({"a": run})
    run.network.__class__ = Known
    assert results["photos"][1]["region_pixels"] == 0 and results["photos"][1]["methods"] == {}
    assert all(means["photos"] == 5 for means in results["means"].values())
    assert "Photos without such a pixel, which do not count: 1 (TOY/TOY_0_1)." in text
    others = [photo["methods"]["linear"]["mae"] for photo in results["photos"] if photo["methods"]]
    assert len(others) == 5 and results["means"]["linear"]["mae"] == pytest.approx(np.mean(others))


def test_held_out_samples_are_taken(evaluated, known, shards):
    dataset = FaceDataset(shards, FUSION)
    of_these = {"samples_sha256": dataset.samples_sha256}
    config, other = FusionConfig(validation_fraction=0.34), {"samples_sha256": "another"}
    held_out = split_identities(dataset.sources, 0.34, 0)[1]
    text, results = evaluated({"a": known()}, {"a": (config, of_these)})
    assert [photo["sample"] for photo in results["photos"]] == held_out.tolist() and len(held_out) == 2
    assert "2 of 6 samples; a held them out; on what the runs that a started from were trained is not recorded" in text
    text, results = evaluated({"a": known()}, {"a": (config, of_these)}, every=True)
    assert len(results["photos"]) == 6 and "6 of 6 samples; a was trained on most of them" in text
    text, results = evaluated({"a": known()}, {"a": (config, of_these), "b": (GeometryConfig(), other)})
    assert len(results["photos"]) == 2 and "b was trained on other shards, or on these before they changed" in text
    none_held = GeometryConfig(validation_fraction=0)
    text, results = evaluated({"a": known()}, {"a": (none_held, of_these)})
    assert len(results["photos"]) == 6 and "a was trained on all of them" in text
    splits = {seed: split_identities(dataset.sources, 0.34, seed)[1] for seed in range(9)}
    seed = next(seed for seed, others in splits.items() if not np.intersect1d(held_out, others).size)
    apart = FusionConfig(validation_fraction=0.34, seed=seed)
    with pytest.raises(ValueError, match="no sample was held out by all of the runs"):
        evaluated({"a": known()}, {"a": (config, of_these), "b": (apart, of_these)})
