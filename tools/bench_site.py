"""What a catalog costs to turn into a site, in CPU seconds, and whether that grows with the models alone.

    python -m tools.bench_site [--models N]
    python -m tools.bench_site --whole N [--keep DIR]
    python -m tools.bench_site --paste

Catalogs of N models and of four times as many are copies of this one's entries. Where the cost of a model stays the
same, a thousand models take what the last column says. `--whole` builds the site of N models, each with a shape of its
own (tools.synthetic), in one run of `kaito-catalog generate`: its time, its memory, and how large the site is.
`--paste` says what the calculator loads when somebody pastes a config.json, and how long the first and the next
answers take in a headless Chromium, which it needs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.site import build, python_bundle
from tools.bench_scale import cost
from tools.synthetic import write_catalog

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print one row for each stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=30, help="models of the smaller catalog (default: 30)")
    parser.add_argument("--whole", type=int, metavar="N", help="build the whole site of so many models")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to leave that site")
    parser.add_argument("--paste", action="store_true", help="pasting a config.json into the calculator")
    options = parser.parse_args()
    if options.paste:
        with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
            paste(Path(folder))
        return
    if options.whole:
        with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
            whole(options.whole, Path(folder), options.keep or Path(folder) / "build")
        return
    smaller = options.models
    catalog = read_catalog(ROOT / "catalog")
    costs = [measured(grown(catalog, count)) for count in (smaller, 4 * smaller)]
    print(f"| stage | {smaller} models | {4 * smaller} models | growth per model | 1,000 models |")
    print("|---|---|---|---|---|")
    for stage, few, many in zip(("pages, plans, API", "mkdocs"), *costs, strict=True):
        growth = many / 4 / few
        print(
            f"| {stage} | {few:.1f} s | {many:.1f} s | × {growth:.2f} | {many / smaller / 4 * 1000:.0f} s |"
        )


def whole(count: int, folder: Path, output: Path) -> None:
    """Build the site of `count` models and print what it took and how large it is."""
    write_catalog(folder / "catalog", count)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    arguments = ["generate", "--catalog", str(folder / "catalog"), "--output", str(output)]
    took = cost(["-m", "kaito_catalog", *arguments])
    site = output / build.SITE
    files = [path for path in site.rglob("*") if path.is_file()]
    print(f"`generate` of {count:,} models and their site: {took.cpu_seconds:.0f} s CPU, ", end="")
    print(f"{took.wall_seconds:.0f} s, {took.peak_bytes / 2**20:,.0f} MiB of memory")
    print(f"{len(files):,} files, {sum(path.stat().st_size for path in files) / 2**20:,.0f} MiB\n")
    print("| file | bytes | compressed by gzip |")
    print("|---|---|---|")
    model = min(path.name for path in (site / "models").iterdir())
    for name in (*LARGE, f"models/{model}/index.html"):
        content = (site / name).read_bytes()
        print(f"| {name} | {len(content):,} | {len(gzip.compress(content)):,} |")


def paste(output: Path) -> None:
    """Print what is loaded for a pasted configuration, and seconds from pasting it to its verdict."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Page  # type: ignore[import-not-found, unused-ignore]

    catalog = read_catalog(ROOT / "catalog")
    made = generate.build(catalog, hand_written=generate.read_pages(ROOT / "docs"))
    generate.write(output, made.files)
    build.build_site(ROOT / "mkdocs.yml", output)
    print("| file | bytes | compressed by gzip |")
    print("|---|---|---|")
    for name in (python_bundle.RUNTIME, python_bundle.SCRIPT):
        content = (output / build.SITE / "assets" / name).read_bytes()
        print(f"| assets/{name} | {len(content):,} | {len(gzip.compress(content)):,} |")
    print("\n| pasted | seconds to the verdict |")
    print("|---|---|")
    configurations = sorted((ROOT / "tests" / "configs").glob("*.json"))
    with Page() as page:
        page.open((output / build.SITE / "calculator" / "index.html").as_uri())
        for number, path in enumerate(configurations):
            text = json.dumps(path.read_text(encoding="utf-8"))
            seconds = page.run(_PASTE.replace("TEXT", text)) / 1000
            first = " (the first, with all that is loaded)" if number == 0 else ""
            print(f"| {path.stem}{first} | {seconds:.2f} |")


_PASTE = """new Promise((done) => {
  const [form, output] = [".kc-calculator", ".kc-answer"].map((name) => document.querySelector(name));
  const start = performance.now();
  form.elements.model.value = "";
  form.elements.config.value = TEXT;
  form.elements.config.dispatchEvent(new Event("input", { bubbles: true }));
  const look = () => (output.getAttribute("aria-busy") ? setTimeout(look, 1) : done(performance.now() - start));
  look();
})"""

LARGE = ("index.html", "hardware/index.html", "assets/plan-data.js", "search/search_index.json")
"""What grows with the number of models."""


def grown(catalog: Catalog, count: int) -> Catalog:
    """A catalog of so many models, copies of `catalog`'s under names of their own."""
    return replace(
        catalog,
        entries=tuple(
            copy(catalog.entries[i % len(catalog.entries)], i // len(catalog.entries)) for i in range(count)
        ),
    )


def copy(entry: Entry, number: int) -> Entry:
    """The entry with `number` in its names; the first is itself."""
    if number == 0 or entry.proposal is None:
        return entry
    name = f"{entry.name}-{number}"
    metadata = entry.proposal.metadata.model_copy(update={"name": name})
    return replace(entry, name=name, proposal=entry.proposal.model_copy(update={"metadata": metadata}))


def measured(catalog: Catalog) -> tuple[float, float]:
    """CPU seconds of the texts, and of mkdocs over them."""
    begin = time.process_time()
    made = generate.build(catalog, hand_written=generate.read_pages(ROOT / "docs"))
    texts = time.process_time() - begin
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        generate.write(Path(folder), made.files)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        build.build_site(ROOT / "mkdocs.yml", Path(folder))
        return texts, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


if __name__ == "__main__":
    main()
