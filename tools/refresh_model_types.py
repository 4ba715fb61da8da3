"""Write `data/model-types.json`: the `model_type`s that each vLLM, and the transformers beside it, can read.

    .venv/bin/python -m tools.refresh_model_types [--check]

Both are read in the sources that `make vllm` has put into `.venv-vllm`, without importing them.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "kaito_catalog" / "data" / "model-types.json"
ENVIRONMENT = ROOT / ".venv-vllm"
VERSIONS = ("0.25.1", "0.32.0")


def _folder(version: str, package: str) -> Path:
    overlay = ENVIRONMENT / "overlays" / f"vllm-{version}"
    return next(
        path
        for path in (overlay / package, *ENVIRONMENT.glob(f"lib/python3*/site-packages/{package}"))
        if path.is_dir()
    )


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _keys(node: ast.AST) -> Iterator[str]:
    """The texts that are keys in a mapping's construction: of displays, pairs and keywords."""
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (
                k.value for k in part.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)
            )
        elif isinstance(part, ast.Tuple) and len(part.elts) == 2:
            first = part.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value
        elif isinstance(part, ast.keyword) and part.arg:
            yield part.arg


def _assigned(tree: ast.Module, name: str) -> Iterator[str]:
    """The keys of a module's mapping, also of those that are added to it."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
                if found == name and statement.value is not None:
                    yield from _keys(statement.value)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="update"))):
                if found == name:
                    yield from _keys(statement.value)


def model_types(version: str) -> dict[str, object]:
    """What one vLLM and its transformers can read."""
    auto = _folder(version, "transformers") / "models" / "auto"
    names = "CONFIG_MAPPING_NAMES"
    of_transformers = {
        *_assigned(_tree(auto / "auto_mappings.py"), names),
        *_assigned(_tree(auto / "configuration_auto.py"), names),
    }
    config = _folder(version, "vllm") / "transformers_utils" / "config.py"
    metadata = next(_folder(version, "transformers").parent.glob("transformers-*.dist-info"))
    return {
        "transformers": metadata.name.removeprefix("transformers-").removesuffix(".dist-info"),
        "transformersTypes": sorted(of_transformers),
        "vllmTypes": sorted(_assigned(_tree(config), "_CONFIG_REGISTRY")),
    }


def content() -> str:
    """The text of the data file."""
    document = {
        "source": "CONFIG_MAPPING_NAMES of transformers/models/auto and _CONFIG_REGISTRY of "
        "vllm/transformers_utils/config.py, read by tools/refresh_model_types.py",
        "vllm": {version: model_types(version) for version in VERSIONS},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the file; with --check, only say whether it would change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    text = content()
    same = DATA.is_file() and DATA.read_text(encoding="utf-8") == text
    if not same and not check:
        DATA.write_text(text, encoding="utf-8")
    print("unchanged" if same else f"{'would change' if check else 'wrote'} {DATA.relative_to(ROOT)}")
    return int(check and not same)


if __name__ == "__main__":
    raise SystemExit(main())
