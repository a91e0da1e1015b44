"""The documentation site, built by `make docs`: its pages, links and API reference."""

import importlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import simclr_tf
from simclr_tf.option_groups import Augmentation
from simclr_tf.options import option_fields

pytestmark = pytest.mark.slow  # Sphinx imports everything

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PUBLIC = ["augment", "embedding", "evaluation", "exporter", "losses", "models", "optimizers"]
PUBLIC += ["reporting", "weights_import"]


class Page(HTMLParser):
    """Links, loaded files, IDs and text of a page."""

    def __init__(self, file: Path):
        super().__init__()
        self.file = file
        self.links, self.loaded, self.ids, self.words = [], [], set(), []
        self.feed(file.read_text(encoding="utf-8"))
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id"))
        if "href" in given:
            (self.links if tag == "a" else self.loaded).append(given["href"])
        self.loaded += [given[name] for name in ("src", "data", "poster") if name in given]
        self.words.append(given.get("style", ""))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "site"
    command = ["make", "--old-file=install", "docs", f"VENV={sys.prefix}", f"SITE={path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{path}/index.html" in done.stdout
    return path


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {file.name: Page(file) for file in site.glob("*.html")}


def test_every_document_is_a_page_in_the_navigation(pages):
    sources = [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]
    expected = {f"{source.stem}.html" for source in sources}
    assert len(sources) == len(expected) > 15
    assert expected <= pages.keys()
    # The search page contains only the navigation.
    listed = [link for link in pages["search.html"].links if link in pages]
    assert expected <= set(listed)
    assert next(link for link in listed if link != "index.html") == "quickstart.html"


def test_notebook_page_shows_the_stored_outputs(pages):
    notebook = json.loads((DOCS / "quickstart.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    lines = [
        line.strip() for output in outputs for line in "".join(output.get("text", ())).splitlines()
    ]
    assert lines
    shown = pages["quickstart.html"].text
    assert [line for line in lines if line not in shown] == []
    pictures = sum("image/png" in output.get("data", ()) for output in outputs)
    assert sum("_images/" in url for url in pages["quickstart.html"].loaded) >= pictures


def test_site_loads_nothing_from_the_network(site, pages):
    loaded = {url for page in pages.values() for url in page.loaded}
    texts = [page.text for page in pages.values()]
    sheets = [file.read_text(encoding="utf-8") for file in site.rglob("*.css")]
    assert sheets and any(url.endswith(".png") for url in loaded)
    for text in (*texts, *sheets):
        loaded |= set(re.findall(r"""(?:@import\s*["']|url\(\s*["']?)([^"')]+)""", text))
    elsewhere = [url for url in loaded if urlsplit(url).netloc]
    assert elsewhere == []


def test_every_link_has_a_target(site, pages):
    dead, followed = [], 0
    for page in pages.values():
        for link in (*page.links, *page.loaded):
            to = urlsplit(link)
            if to.scheme:
                continue
            file = (site / unquote(to.path)).resolve() if to.path else page.file
            followed += 1
            exists = file.is_file() and file.is_relative_to(site.resolve())
            if exists and to.fragment:
                exists = file.name in pages and unquote(to.fragment) in pages[file.name].ids
            if not exists:
                dead.append(f"{page.file.name}: {link}")
    assert followed > 1000
    assert dead == []


def test_every_public_name_is_documented_with_types_and_defaults(pages):
    api = pages["api.html"]
    names = {
        f"simclr_tf.{name}" for name in simclr_tf.__all__ if callable(getattr(simclr_tf, name))
    }
    names = names - {"simclr_tf.UserError"} | {"simclr_tf.errors.UserError"}
    for package in PUBLIC:
        module = importlib.import_module(f"simclr_tf.{package}")
        public = (name for name in module.__all__ if callable(getattr(module, name)))
        names |= {f"{module.__name__}.{name}" for name in public}
    assert names - api.ids == set()
    private = re.compile(r"simclr_tf\.(\w+\.)*_\w+$")
    assert [name for name in api.ids if name and private.match(name)] == []

    text = re.sub(r"\s+", " ", api.text)
    for described in (
        "nt_xent( z_a: Tensor, z_b: Tensor, temperature: float = 0.1,",
        "contrastive_loss: Callable[[...], tuple[Tensor, Tensor, Tensor]] = nt_xent,",
        "image_size: int = 224, eval_image_size: int = 0,",
    ):
        assert described in text, described
    # As a flag's help, as a parameter of the config and as a keyword argument of `pretrain`.
    (field,) = (f for f in option_fields(Augmentation) if f.name == "color_jitter_strength")
    assert text.count(f"color_jitter_strength – {field.metadata['help']}") >= 2
