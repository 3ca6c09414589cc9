"""`dualface view` in a real browser: what is seen changes with the sliders, nothing goes wrong, nothing leaves."""

import io
import json
import shutil
import socket
import webbrowser
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from view_files import MARKUP, served, write_asmd, write_ftd, write_out, write_run

from cli.main import main
from model.viewer import ViewServer, open_view

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1050,700",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra `dev`")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def asmd(tmp_path_factory):
    return write_asmd(tmp_path_factory.mktemp("asmd"))


class Page:
    """A page that is open."""

    def __init__(self, browser):
        self.browser = browser

    def run(self, script, *values):
        return self.browser.execute_script(script, *values)

    def wait(self, script):
        """Return what a script gives as soon as that is something."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, 0.05).until(lambda browser: browser.execute_script(f"return {script}"))

    def ready(self, sample):
        """Wait for a sample and its pictures."""
        self.wait(f"document.querySelector('.content')?.dataset.sample === '{sample}'")
        self.wait("[...document.querySelectorAll('figure img')].every((image) => image.complete && image.naturalWidth)")

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def picture(self):
        """The pixels of the face."""
        with Image.open(io.BytesIO(self.one("canvas").screenshot_as_png)) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def slide(self, name, value):
        """Move a slider as the user does."""
        self.run("const s = document.getElementById(arguments[0]); s.value = arguments[1];"
                 "s.dispatchEvent(new Event('input'))", name, value)
        return self.picture()

    def press(self, mode):
        self.one(f"[data-mode={mode}]").click()
        assert self.one(f"[data-mode={mode}]").get_attribute("aria-pressed") == "true"
        return self.picture()


@contextmanager
def opened(browser, view):
    """Open the page of a view; at the end, look at what the browser has logged, and whom it has asked."""
    browser.get("about:blank")
    browser.get_log("performance")
    with served(view) as server:
        browser.get(server.url)
        yield Page(browser)
        browser.get("about:blank")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = {urlsplit(request["request"]["url"]) for request in sent}
    hosts = {(url.scheme, url.netloc) for url in asked if url.scheme not in ("data", "blob", "about")}
    assert hosts == {("http", f"127.0.0.1:{server.server_port}")}


def changed(one, other):
    """The share of pixels that differ clearly."""
    return np.mean(np.abs(one - other).max(-1) > 12)


def test_a_sample_its_sliders_and_surfaces(browser, asmd):
    with opened(browser, open_view(asmd)) as page:
        page.ready(0)
        assert "AFW/AFW_0_0" in page.one(".title").text
        page.one(".thumbs [data-index='2']").click()
        page.ready(2)
        assert page.run("return location.hash") == "#2"
        assert page.run("return document.querySelectorAll('.row img').length") == 12
        photo, shaded, lines = page.press("photo"), page.press("wireframe"), page.press("shaded")
        assert min(changed(photo, shaded), changed(photo, lines), changed(shaded, lines)) > 0.2
        for name, low in (("expression", -1), ("identity", 0)):
            before = page.picture()
            moved = page.slide(name, low)
            assert changed(before, moved) > 0.005 and page.one(f"#{name} + output").text == f"{low:.2f}"
            further = page.slide(name, 2)
            assert changed(moved, further) > changed(before, moved) and changed(before, further) > 0.005
            np.testing.assert_array_equal(page.slide(name, 1), before)
        page.slide("expression", 2)
        page.one(".reset").click()
        np.testing.assert_array_equal(page.picture(), before)


def test_at_the_average_all_samples_look_alike(browser, asmd):
    """Without expression, that is; by identity alone they differ."""
    with opened(browser, open_view(asmd)) as page:
        page.ready(0)
        page.press("shaded")
        page.slide("expression", 0)
        neutral, average = page.slide("identity", 1), page.slide("identity", 0)
        assert changed(average, average[9, 9]) > 0.2  # a face, before the background
        page.run("dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }))")
        page.ready(1)
        np.testing.assert_array_equal(page.picture(), average)
        assert changed(page.slide("identity", 1), neutral) > 0.01


def test_samples_are_found_by_their_source(browser, asmd):
    with opened(browser, open_view(asmd)) as page:
        page.ready(0)
        page.one("input[type=search]").send_keys("ibug")
        page.wait("document.querySelectorAll('.thumbs button').length === 1")
        page.ready(5)
        assert "IBUG/IBUG_0_0" in page.one(".title").text and "1 found" in page.one(".pager").text
        page.one("summary").click()
        assert page.wait("document.querySelector('pre').textContent").startswith("samples")


def test_the_textures_of_a_sample(browser, tmp_path):
    shards, model = write_ftd(tmp_path)
    with opened(browser, open_view(shards, str(model))) as page:
        page.ready(0)
        pictures = [page.press(mode) for mode in ("photo", "albedo", "linear", "shaded")]
        assert min(changed(one, other) for k, one in enumerate(pictures) for other in pictures[:k]) > 0.02
        assert page.run("return document.querySelectorAll('.row img').length") == 3


def test_a_run_that_goes_on(browser, tmp_path):
    path = write_run(tmp_path / "run")
    with opened(browser, open_view(path)) as page:
        page.wait("document.querySelector('.content')?.dataset.step === '20'")
        titles = page.run("return [...document.querySelectorAll('.panel h2')].map((title) => title.textContent)")
        assert titles == ["losses", "degrees", "mm"]
        lines = page.run("return [...document.querySelectorAll('.curve')].map((line) => line.getAttribute('points'))")
        assert [len(line.split()) for line in lines] == [2, 1, 1, 3] and not any("NaN" in line for line in lines)
        assert f"from weights of {MARKUP}" in page.one(".content").text
        assert page.one(".sheet span").text == "step-000020.png"
        page.run("const s = document.querySelector('.sheet input'); s.value = 1; s.dispatchEvent(new Event('input'))")
        page.wait("document.querySelector('.sheet img').currentSrc.endsWith('step-000010.png')")
        with path.joinpath("log.jsonl").open("a") as log:
            log.write('{"step": 30, "loss": 1.0}\n')
        page.wait("document.querySelector('.content').dataset.step === '30'")


def test_reconstructed_faces(browser, tmp_path):
    with opened(browser, open_view(write_out(tmp_path / "out"), str(tmp_path / "model.h5"))) as page:
        page.ready(0)
        lit, albedo, shaded = page.press("lit"), page.press("albedo"), page.press("shaded")
        assert min(changed(lit, albedo), changed(lit, shaded), changed(albedo, shaded)) > 0.1
        for name in ("expression", "identity"):
            assert changed(shaded, page.slide(name, 0)) > 0.005
            np.testing.assert_array_equal(page.slide(name, 1), shaded)
        assert MARKUP in page.one(".content").text and "mean of the face model" in page.one(".content").text
        page.browser.find_elements("css selector", ".names button")[1].click()
        page.ready(1)
        assert "no face in 3D" in page.one(".content").text and not page.run("return document.querySelector('canvas')")


def test_a_face_of_another_model_says_what_its_identity_wants(browser, tmp_path):
    with opened(browser, open_view(write_out(tmp_path / "out"))) as page:
        page.ready(0)
        assert page.one("#expression").is_enabled() and not page.one("#identity").is_enabled()
        assert "give `--face-model` the file of toy" in page.one(".content").text


def test_the_command_serves_until_it_is_stopped(tmp_path, monkeypatch):
    """It says where, opens the browser unless told not to, and says in a sentence why it cannot."""
    opened_urls = []
    monkeypatch.setattr(webbrowser, "open", opened_urls.append)

    def stopped(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", stopped)
    path = write_run(tmp_path / "run")
    result = CliRunner().invoke(main, ["view", str(path), "--port", "0"])
    assert result.exit_code == 0 and opened_urls[0] in result.output and opened_urls[0].startswith("http://127.0.0.1:")
    assert CliRunner().invoke(main, ["view", str(path), "--port", "0", "--no-open"]).exit_code == 0
    assert len(opened_urls) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["view", str(path), "--port", str(port)])
    assert result.exit_code == 1 and f"port {port} must be free" in result.output and "--port" in result.output
    result = CliRunner().invoke(main, ["view", str(tmp_path)])
    assert result.exit_code == 1 and "holds none of them" in result.output
