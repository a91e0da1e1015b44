"""The report in a real browser: drawn, hovered, by keyboard, small, dark, and off the network."""

import shutil
from urllib.parse import urlsplit

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from simclr_tf.cli.main import main
from tests.reporting.tiny_runs import CLOSING, IMAGE, SCRIPT

IDS = ["/".join(SCRIPT), "/".join(CLOSING), f"{IMAGE}/{IMAGE}.png"]
ALL = "[...document.querySelectorAll('{}')]".format
POINTS = "return document.querySelectorAll(`#${arguments[0]} .scatterlayer .point`).length"


pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser, hostile_run):
    browser.open(hostile_run / "report.html")
    return browser


@pytest.fixture(scope="module")
def comparison(shapes_run, hostile_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "all.html"
    longer = shutil.copytree(shapes_run, path.parent / "steps & 4") / "config.json"
    settings = longer.read_text(encoding="utf-8")
    longer.write_text(settings.replace('"train_steps": 3', '"train_steps": 4'), encoding="utf-8")
    runs = ",".join(map(str, [shapes_run, longer.parent, hostile_run]))
    assert main(["report", f"--runs={runs}", f"--output={path}"]) == 0
    return path


def _texts(browser, selector):
    return browser.run(f"return {ALL(selector)}.map((e) => e.textContent.trim())")


def _alone(browser, path):
    """Nothing in the console, and nothing asked for but the file and what lies in it."""
    assert browser.complaints() == []
    asked = browser.requests()
    assert asked[0] == path.absolute().as_uri()
    assert {urlsplit(address).scheme for address in asked[1:]} <= {"data", "blob"}


def test_a_report_draws_without_complaints_or_network(page, hostile_run):
    assert page.run(POINTS, "map-pca") == page.run(POINTS, "map-tsne") == 45
    drawn = page.run(f"return {ALL('.drawing')}.map((d) => !!d.querySelector('.trace, .hm'))")
    assert len(drawn) > 10 and all(drawn)
    unloaded = "return [...document.images].filter((i) => !i.naturalWidth).length"
    assert page.run(unloaded) == 0
    _alone(page, hostile_run / "report.html")


def test_a_request_would_be_refused_and_seen(page):
    # So that the test before can fail: an address in the page is asked for, and refused.
    page.run("const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)")
    page.until("return document.images[document.images.length - 1].complete")
    assert any("Content Security Policy" in line for line in page.complaints())


def test_names_are_text_everywhere(page):
    scripts = page.run("return [...document.scripts].map((s) => s.type + (s.nonce ? '!' : ''))")
    assert set(scripts) == {"application/json", "!"}
    assert page.run("return [...document.images].every((i) => i.src.startsWith('data:'))")
    assert page.run("return document.querySelectorAll('[onerror], header b').length") == 0
    assert page.run("return document.querySelector('h1').textContent") == "<b>hostile"
    points = page.run("return JSON.parse(document.getElementById('points').textContent)")
    assert set(IDS) < set(points["ids"])
    assert set(points["groups"]) == {SCRIPT[0], CLOSING[0], IMAGE}
    for drawn in ("#map-pca .legendtext", "#confusion .ytick text"):
        assert set(_texts(page, drawn)) == {SCRIPT[0], CLOSING[0], IMAGE}
    captions = {caption.removesuffix(" ✓") for caption in _texts(page, ".picture b")}
    assert captions == {SCRIPT[0], CLOSING[0], IMAGE}


def test_hovering_shows_the_image_of_a_point(page):
    # Of a point that no other one covers: the last drawn.
    point = page.run(
        "const p = [...document.querySelectorAll('#map-pca .point')].at(-1);"
        "p.scrollIntoView({block: 'center'}); return p"
    )
    assert page.run("return document.getElementById('tip').hidden")
    ActionChains(page.driver).move_to_element(point).perform()
    page.until("return !document.getElementById('tip').hidden")
    points = page.run("return JSON.parse(document.getElementById('points').textContent)")
    name, group, image = page.run(
        "const t = document.getElementById('tip'), s = getComputedStyle(t.children[0]);"
        "return [t.children[2].textContent, t.children[1].textContent, s.backgroundPosition]"
    )
    index = points["ids"].index(name)
    assert points["groups"][index] == group
    side = page.run("return document.querySelector('#tip .picture').clientWidth")
    row, column = divmod(index, points["columns"])
    assert side > 50 and image == f"{-side * column}px {-side * row}px".replace("-0px", "0px")
    sprite = "return getComputedStyle(document.querySelector('#tip .picture')).backgroundImage"
    assert page.run(sprite) == f'url("{points["sprite"]}")'
    ActionChains(page.driver).move_to_element(page.driver.find_element("tag name", "nav")).perform()
    page.until("return document.getElementById('tip').hidden")


def test_the_keyboard_goes_from_point_to_point(page):
    page.driver.find_element("tag name", "body").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    drawing = page.driver.find_element("id", "map-tsne")
    page.run("arguments[0].focus()", drawing)
    assert page.run("return document.activeElement.id") == "map-tsne"
    said = "return document.querySelector('#map-tsne ~ .said').textContent"
    heard = []
    for key in ("RIGHT", "RIGHT", "LEFT", "DOWN", "UP"):
        drawing.send_keys(getattr(Keys, f"ARROW_{key}"))
        heard.append(page.run(said))
        shown = page.run("return document.getElementById('tip').children[2].textContent")
        assert not page.run("return document.getElementById('tip').hidden")
        assert heard[-1].endswith(f": {shown}")
    assert len(set(heard)) > 2
    drawing.send_keys(Keys.ESCAPE)
    assert page.run("return document.getElementById('tip').hidden")


def test_a_screen_reader_has_words_for_all_that_is_drawn(page):
    assert page.run("return document.documentElement.lang") == "en"
    assert page.run("return [...document.images].filter((i) => !i.alt).length") == 0
    drawings = page.run(f"return {ALL('.drawing')}.map((d) => [d.role, d.ariaLabel])")
    assert {role for role, _ in drawings} == {"img", "application"}
    assert all(len(label) > 20 for _, label in drawings)
    # Every plot has a table of its values with column headers.
    assert page.run(f"return {ALL('figure.plot')}.every((f) => f.querySelector('th ~ td'))")
    levels = page.run(f"return {ALL('h1, h2, h3, h4')}.map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    ids = page.run(f"return {ALL('main [id]:not(svg *)')}.map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert page.run(f"return {ALL('nav a')}.every((a) => document.querySelector(a.hash))")


def test_a_phone_shows_it_in_one_column(browser, hostile_run):
    browser.open(hostile_run / "report.html", width=390, touch=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert max(browser.run(f"return {ALL('.drawing')}.map((d) => d.clientWidth)")) <= 390
    # A finger scrolls the page, wherever it is.
    assert browser.run("return document.getElementById('map-pca').layout.dragmode") is False
    # Its buttons zoom.
    span = "const [a, b] = document.getElementById('curve-loss').layout.xaxis.range; return b - a"
    before = browser.run(span)
    browser.run(
        "document.querySelector('#curve-loss [data-attr=zoom][data-val=in]')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    browser.until(span.replace("return", "return arguments[0] >"), before)
    assert browser.complaints() == []


def test_dark_is_dark_and_follows_the_system(browser, hostile_run):
    browser.open(hostile_run / "report.html", dark=True)

    colors = (
        "return [getComputedStyle(document.body).backgroundColor,"
        "getComputedStyle(document.querySelector('.xtick text')).fill].join(' ')"
    )
    assert browser.run(colors) == "rgb(18, 22, 29) rgb(242, 245, 250)"
    browser.prefer("light")
    browser.until(f"return (() => {{ {colors} }})() === 'rgb(255, 255, 255) rgb(42, 63, 95)'")


def test_a_comparison_shows_all_runs(browser, comparison):
    browser.open(comparison)
    names = ["steps & 3", "steps & 4", "<b>hostile"]
    assert _texts(browser, "#curve-loss .legendtext") == names
    lines = "return document.querySelectorAll('#curve-loss .scatterlayer .trace').length"
    assert browser.run(lines) == 3
    assert set(names) < set(_texts(browser, "#headline th"))
    differing = browser.run("return document.querySelector('#settings table').innerText")
    assert "--train_steps" in differing and "--train_batch_size" not in differing
    assert browser.run("return document.querySelectorAll('main b, [onerror]').length") == 0
    _alone(browser, comparison)
