"""Which architectures take LoRA adapters, read in the sources of their classes: importing them all takes minutes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_INTERFACE = "SupportsLoRA"
_FLAG = "supports_lora"


def architectures_with_lora(registered: Mapping[str, Any]) -> list[str]:
    """Those whose class implements `SupportsLoRA`, which vLLM's model runner asks for (lora_model_runner_mixin.py).

    Args:
        registered: `ModelRegistry.models`: architecture to its module and class.
    """
    import vllm

    root = Path(vllm.__file__).parents[1]
    found = []
    for architecture, model in registered.items():
        module, name = getattr(model, "module_name", None), getattr(model, "class_name", None)
        if module and name and _supports(root, module, name, 0):
            found.append(architecture)
    return sorted(found)


_DEEPEST = 20


@cache
def _supports(root: Path, module: str, name: str, depth: int) -> bool:
    """Whether a class has the interface among its bases, or the interface's flag in its body."""
    if depth > _DEEPEST:
        return False
    classes, imported = _of_module(root, module)
    if name not in classes:
        other = imported.get(name)
        return other is not None and _supports(root, *other, depth + 1)
    node = classes[name]
    flag = _flag(node)
    if flag is not None:
        return flag
    for base in node.bases:
        written = (
            base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        )
        if written == _INTERFACE or (written and _supports(root, module, written, depth + 1)):
            return True
    return False


def _flag(node: ast.ClassDef) -> bool | None:
    """What the class itself sets the flag to; None where it does not."""
    for statement in node.body:
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        )
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and target.id == _FLAG and isinstance(value, ast.Constant):
                return bool(value.value)
    return None


@cache
def _of_module(root: Path, module: str) -> tuple[dict[str, ast.ClassDef], dict[str, tuple[str, str]]]:
    """The classes of a module, and the names that it imports from others of vLLM."""
    path = root.joinpath(*module.split("."))
    is_package = path.is_dir()
    file = path / "__init__.py" if is_package else path.with_suffix(".py")
    if not file.is_file():
        return {}, {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = module.split(".") if is_package else module.split(".")[:-1]
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.startswith("vllm."):
                for alias in node.names:
                    imported[alias.asname or alias.name] = (source, alias.name)
    return {n.name: n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}, imported
