"""What the server of `dualface view` answers, and whom."""

import http.client
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from toy import toy_model
from toy_tree import FACE, hashes
from view_files import MARKUP, RECORDS, SIZE, served, write_asmd, write_ftd, write_out, write_run

from asmgen.asmd import AsmdReader
from asmgen.face_crops import KIND as CROPS
from asmgen.images import encode_image
from asmgen.shards import shard_path, write_shard
from bfm.model_file import save_model
from bfm.pose import project
from bfm.render import visible_vertices
from model.mesh_files import picture_uv
from model.viewer import open_view
from model.viewer.reconstructed import ReconstructedView
from model.viewer.samples import AsmdSamples
from model.viewer.server import page_files
from texgen.ftd import FtdReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="module")
def asmd(folder):
    shards = write_asmd(folder)
    with served(open_view(shards)) as server:
        yield server, AsmdReader(shards)


@pytest.fixture(scope="module")
def ftd(folder):
    shards, model = write_ftd(folder)
    with served(open_view(shards, str(model))) as server:
        yield server, FtdReader(shards)


@pytest.fixture(scope="module")
def run(folder):
    path = write_run(folder / "run")
    with served(open_view(path)) as server:
        yield server, path


@pytest.fixture(scope="module")
def out(folder):
    path = write_out(folder / "out")
    with served(open_view(path, str(folder / "model.h5"))) as server:
        yield server, path


def ask(server, path, method="GET", **headers):
    """Status, headers and body of an answer; the path goes as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, values in headers.items():
            for value in values:
                connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def good(server, path):
    status, headers, body = ask(server, path)
    assert status == 200, body
    return body


def as_json(server, path):
    return json.loads(good(server, path))


def pixels(server, path):
    with Image.open(io.BytesIO(good(server, path))) as picture:
        return np.asarray(picture).astype(int)


def shape(server, index, count):
    values = np.frombuffer(good(server, f"/api/samples/{index}/shape"), "<f4")
    return np.split(values, np.cumsum([3, 3, 2]) * count)


def test_the_shape_of_attribute_maps_and_its_average(asmd):
    server, reader = asmd
    count, faces = len(FACE.mean_shape), len(FACE.triangles)
    assert as_json(server, "/api/view")["mesh"] == {"vertices": count, "triangles": faces}
    neutrals, hidden = [], 0
    for index, sample in enumerate(reader.shards):
        identity_map, expression_map = reader.maps(sample)
        neutral, offsets, uv, seen = shape(server, index, count)
        neutrals.append(reader.vertices(identity_map))
        np.testing.assert_allclose(neutral.reshape(-1, 3), neutrals[-1], atol=1e-4)
        full = reader.vertices(identity_map + expression_map)
        np.testing.assert_allclose((neutral + offsets).reshape(-1, 3), full, atol=1e-4)
        at = uv.reshape(-1, 2)[reader.landmarks] * [SIZE, -SIZE] + [-0.5, SIZE - 0.5]
        np.testing.assert_allclose(at, sample["landmarks"], atol=0.6)  # maps hold vertices to the chart's error
        points = project((neutral + offsets).reshape(-1, 3), sample["pose"], sample["position"])
        np.testing.assert_array_equal(seen, visible_vertices(points, reader.triangles, SIZE, SIZE))
        hidden += np.count_nonzero(seen == 0)
    assert hidden > 20
    mesh = good(server, "/api/mesh")
    triangles, mesh = np.frombuffer(mesh[:12 * faces], "<u4"), np.frombuffer(mesh[12 * faces:], "<f4")
    np.testing.assert_array_equal(triangles.reshape(-1, 3), reader.triangles)
    uv = reader.shards.constants["uv"]
    np.testing.assert_array_equal(mesh[:2 * count].reshape(-1, 2), picture_uv(uv, SIZE))
    np.testing.assert_allclose(mesh[2 * count:].reshape(-1, 3), np.mean(neutrals, 0), atol=1e-4)


def test_the_pictures_of_attribute_maps(asmd):
    server, reader = asmd
    identity_map, expression_map = reader.maps(reader.shards[3])
    for name, values in {
        "identity": identity_map, "expression": 4 * expression_map, "sum": identity_map + expression_map,
    }.items():
        wanted = np.rint(np.clip((values + 1) / 2, 0, 1) * 255).transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels(server, f"/api/samples/3/{name}.png"), wanted)
        for channel, letter in enumerate("xyz"):
            grey = pixels(server, f"/api/samples/3/{name}-{letter}.png")
            np.testing.assert_array_equal(grey, wanted[..., [channel] * 3])
    assert good(server, "/api/samples/3/photo.jpg") == reader.shards[3]["image"]
    assert ask(server, "/api/samples/3/albedo.png")[0] == ask(server, "/api/samples/6/sum.png")[0] == 404


def test_the_texture_and_the_shape_that_goes_with_it(ftd):
    server, reader = ftd
    sample, count = reader.shards[1], len(FACE.mean_shape)
    albedo, seen = reader.albedo(sample), reader.mask(sample)
    for name, values in {"linear": reader.linear_albedo(sample), "albedo": albedo}.items():
        np.testing.assert_array_equal(pixels(server, f"/api/samples/1/{name}.png"), np.rint(255 * values.clip(0, 1)))
    marked, chart = pixels(server, "/api/samples/1/seen.png"), reader.shards.constants["mask"]
    np.testing.assert_array_equal(marked[seen], np.rint(255 * albedo[seen]))
    filled = chart & ~seen
    assert filled.any() and (marked[filled, 2] > marked[filled, 0] + 80).all() and not marked[~chart].any()
    neutral, offsets, uv, _ = shape(server, 1, count)
    id_coeffs, exp_coeffs = sample["id_coeffs"], sample["exp_coeffs"]
    np.testing.assert_allclose(neutral.reshape(-1, 3), FACE.shape(id_coeffs, 0 * exp_coeffs), atol=1e-4)
    np.testing.assert_allclose((neutral + offsets).reshape(-1, 3), FACE.shape(id_coeffs, exp_coeffs), atol=1e-4)
    at = uv.reshape(-1, 2)[FACE.landmarks] * [SIZE, -SIZE] + [-0.5, SIZE - 0.5]
    np.testing.assert_allclose(at, sample["landmarks"], atol=1e-3)
    facts = dict(as_json(server, "/api/samples/1")["facts"])
    assert facts["light ratio"] == "1.05" and "pitch, yaw, roll" in facts


def test_shards_of_another_model_name_it(folder, ftd):
    other = folder / "other.h5"
    save_model(toy_model(seed=1), other)
    with pytest.raises(ValueError, match="give the face model they were built with, 'toy'"):
        open_view(folder / "ftd", str(other))


def test_samples_come_in_pages_and_are_searched(asmd, monkeypatch):
    server, reader = asmd
    monkeypatch.setattr("model.viewer.shards.PAGE", 4)
    sources = reader.shards.column("source")
    assert as_json(server, "/api/samples?page=1") == {
        "found": len(sources), "page": 1, "pages": 2,
        "samples": [{"index": k, "source": sources[k]} for k in range(4, len(sources))],
    }
    found = as_json(server, "/api/samples?search=helen%2FH&page=9")
    assert [sample["source"] for sample in found["samples"]] == [name for name in sources if "HELEN" in name]
    assert as_json(server, "/api/samples?search=nobody")["found"] == 0
    assert good(server, "/api/statistics").decode().startswith("samples")


def test_threads_get_what_one_gets(asmd):
    server, reader = asmd
    paths = [f"/api/samples/{k}/{name}" for k in range(len(reader)) for name in ("shape", "sum.png", "photo.jpg")]
    alone = [good(server, path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda path: good(server, path), 3 * paths)) == 3 * alone


def test_one_thread_reads_at_a_time(asmd, monkeypatch):
    reading, most, read = [], [], AsmdSamples.open

    def slow(samples, index):
        reading.append(index)
        most.append(len(reading))
        Event().wait(0.02)
        reading.pop()
        return read(samples, index)

    monkeypatch.setattr(AsmdSamples, "open", slow)
    with served(open_view(asmd[1].shards.paths[0].parent)) as server, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: good(server, f"/api/samples/{index}"), range(4)))
    assert most == [1] * 4


def test_crops_alone_have_a_photo_and_no_face(tmp_path):
    image = encode_image(np.full((SIZE, SIZE, 3), 90, np.uint8))
    sample = {"image": image, "source": "A/1", "placed_by": "box", "crop_transform": np.zeros((2, 3), np.float32),
              "five_points": np.zeros((5, 2), np.float32)}
    write_shard(shard_path(tmp_path, 0, 1), [sample], {"kind": CROPS, "schema_version": 1, "size": SIZE}, {})
    with served(open_view(tmp_path)) as server:
        assert as_json(server, "/api/view")["mesh"] is None
        assert as_json(server, "/api/samples/0") == {"source": "A/1", "facts": [["placed by", "box"]]}
        assert good(server, "/api/samples/0/photo.jpg") == image
        assert ask(server, "/api/samples/0/shape")[0] == ask(server, "/api/mesh")[0] == 404


def test_a_damaged_sample_is_told_and_the_others_are_shown(asmd, tmp_path):
    first = asmd[1].shards.paths[0]
    shard = tmp_path / first.name
    content = bytearray(first.read_bytes())
    jpeg = AsmdReader(first).shards[1]["image"]
    content[content.find(jpeg[-200:]) + 100] ^= 255
    shard.write_bytes(content)
    with served(open_view(shard)) as server:
        status, _, text = ask(server, "/api/samples/1")
        assert status == 500 and re.search(rb"row 1 of .* is damaged .*repair it", text)
        assert ask(server, "/api/samples/0")[0] == 500  # images share a chunk
        assert as_json(server, "/api/samples")["found"] == 2


def test_the_curves_and_sheets_of_a_run_that_goes_on(run):
    server, path = run
    view, log = as_json(server, "/api/view"), as_json(server, "/api/log")
    assert view["kind"] == "run" and ["config.augmentation.flip", "0.5"] in view["facts"]
    panels = {panel["title"]: {curve["label"]: curve["points"] for curve in panel["series"]} for panel in log["panels"]}
    assert panels == {
        "losses": {"loss": [[10, 2.0], [20, 0.02]], "shape": [[10, 0.5]]},  # what is no number is left out
        "degrees": {"pose": [[20, 7.0]]}, "mm": {"identity": [[10, 4.0], [20, 3.0], [20, 3.5]]},
    }
    assert log["sheets"] == [f"step-{step:06d}.png" for step in (0, 10, 20)]
    assert (log["step"], log["notes"]) == (20, [f"step 0: {RECORDS[0]['note']}"])
    assert pixels(server, "/files/samples/step-000010.png")[0, 0].tolist() == [100, 80, 80]
    text = path.joinpath("log.jsonl").read_bytes()
    path.joinpath("log.jsonl").write_bytes(text + b'{"step": 30, "loss": 1.0}\n{"ste')
    assert as_json(server, "/api/log")["step"] == 30
    path.joinpath("log.jsonl").write_bytes(text)


def test_reconstructed_faces_and_their_files(out):
    server, path = out
    assert as_json(server, "/api/view")["faces"] == ["a b/face#1", "plain"]
    face = as_json(server, "/api/faces/0")
    assert face["files"] == [".glb", "_lit.glb", "_neutral.glb", "_parameters.json"]
    assert [[part["url"] for part in row["pictures"]] for row in face["rows"]] == [
        ["files/0_overlay.png"], ["api/faces/0/depth.png"],
    ]
    assert ["pitch, yaw, roll", "6°, 29°, 0°"] in face["facts"] and ["placed by", MARKUP] in face["facts"]
    assert as_json(server, "/api/faces/1")["files"] == [".obj", ".mtl", "_parameters.json"]
    assert as_json(server, "/api/faces/1")["rows"][0]["pictures"] == [
        {"url": "files/1_albedo.png", "caption": "albedo I_a"}
    ]
    for ending in (".glb", "_neutral.glb", "_overlay.png", "_depth.png", "_parameters.json"):
        assert good(server, f"/files/0{ending}") == path.joinpath(f"a b/face#1{ending}").read_bytes()
    for missing in ("api/faces/2", "api/faces/1/depth.png", "files/1.glb", "files/1_overlay.png", "files/1_secret.png"):
        assert ask(server, f"/{missing}")[0] == 404


def test_the_mean_that_identity_is_scaled_from(out):
    """It is that of the face's own model, in a GLB's metres and order of vertices; of other models it is not taken."""
    server, _ = out
    mean = np.frombuffer(good(server, "/api/average"), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(mean, FACE.mean_shape / 1000, rtol=1e-6)
    found = [as_json(server, f"/api/faces/{number}") for number in range(2)]
    assert [face["has_average"] for face in found] == [True, False]
    assert [face["face_model"] for face in found] == [toy_model().name, "another"]


def test_the_mean_is_that_of_the_face_alone(out):
    """As meshes are: without the ears and the neck of its model."""
    model = toy_model()
    regions = model.regions.copy()
    regions[:17] = 0  # the top row, which holds no landmark, is outside
    model = replace(model, regions=regions)
    mean = np.frombuffer(ReconstructedView(out[1], model).routes["api/average"]({}).body, "<f4")
    np.testing.assert_array_equal(mean, (model.mean_shape[17:] / np.float32(1000)).ravel())


def test_depth_is_stretched_to_what_a_screen_shows(out):
    np.testing.assert_array_equal(pixels(out[0], "/api/faces/0/depth.png"), [[0, 32], [255, 144]])  # 32 + 223 / 2, even


def test_nothing_else_of_a_folder_is_sent(run, out):
    """No other file, nothing above the folder by any spelling, nothing behind a link that leads out of it."""
    secret = run[1].parent / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    run[1].joinpath("samples/linked.png").symlink_to(secret)
    out[1].joinpath("plain_overlay.png").symlink_to(secret)
    try:
        for path in (
            "checkpoint.pt", "config.json", "samples/linked.png", "samples/../../secret.png", "../secret.png",
            "samples/..%2f..%2fsecret.png", "samples/%2e%2e/%2e%2e/secret.png", "samples/..\\..\\secret.png",
            str(secret), quote(str(secret), safe=""), "samples/%00.png", "samples/%ff.png", "samples/none.png",
        ):
            status, _, body = ask(run[0], f"/files/{path}")
            assert status in (404, 500) and b"PNG" not in body and b"weights" not in body, path
            assert ask(run[0], f"/{path}")[0] in (404, 500), path
        assert ask(out[0], "/files/1_overlay.png")[0] == 404
        assert ask(out[0], "/files/0/../../secret.png")[0] == 404
    finally:
        run[1].joinpath("samples/linked.png").unlink()
        out[1].joinpath("plain_overlay.png").unlink()


def test_only_this_machine_is_answered(run):
    server, _ = run
    assert server.server_address[0] == "127.0.0.1"
    port = server.server_port
    for hosts in (["127.0.0.1"], [f"127.0.0.1:{port}"], ["localhost:9999"]):
        assert ask(server, "/api/log", Host=hosts)[0] == 200
    for hosts in (
        ["evil.example"], [f"evil.example:{port}"], ["127.0.0.1.evil.example"], ["localhost.evil.example"], [], [""],
        ["evil.example", "127.0.0.1"], ["127.0.0.1", "evil.example"], ["x@127.0.0.1"], ["0.0.0.0"],
    ):
        status, _, body = ask(server, "/api/log", Host=hosts)
        assert status in (400, 403) and b"panels" not in body, hosts


def test_every_answer_forbids_other_sites(run):
    for path in ("/", "/view.js", "/api/log", "/files/samples/step-000010.png", "/nothing"):
        headers = ask(run[0], path)[1]
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert all(not re.search(r"http|\*|unsafe", sources) for sources in policy.values())
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers


def test_nothing_is_written(run):
    server, path = run
    before = hashes(path)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, "/files/samples/step-000010.png", method)[0] == 501
    good(server, "/api/log")
    assert hashes(path) == before
    status, headers, body = ask(server, "/view.css", "HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 1000


def test_the_page_is_complete():
    """Every file that a module or the page names is there, and none is from elsewhere."""
    pages = page_files()
    ours = {name: answer.body.decode() for name, answer in pages.items() if name != "three.js"}
    named = {name for text in ours.values() for name in re.findall(r'(?:from "\./|src="|href=")([\w.]+)"', text)}
    kinds = {"shards.js", "run.js", "reconstructed.js"}
    assert kinds | {"three.js", "view.js", "view.css"} <= named | kinds <= set(pages)
    assert not [name for name, text in ours.items() if re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)]


def test_a_path_that_is_nothing_of_ours(tmp_path):
    with pytest.raises(ValueError, match="must hold shards .* a run .* or reconstructed faces .* holds none of them"):
        open_view(tmp_path)
