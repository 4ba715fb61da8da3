"""kaito-catalog: proposals of models for KAITO as data, with the tooling that proves every entry.

The public names are those of `__all__`; each is imported when it is first used, so that `import kaito_catalog` costs
nothing. Everything else may change between releases.
"""

import importlib

__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kaito_catalog.api import check_models as check_models
    from kaito_catalog.api import compare_instance_types as compare_instance_types
    from kaito_catalog.api import load_catalog as load_catalog
    from kaito_catalog.api import plan_model as plan_model
    from kaito_catalog.catalog.entries import Catalog as Catalog
    from kaito_catalog.catalog.entries import Entry as Entry
    from kaito_catalog.checks.engine import Report as Report
    from kaito_catalog.diagnostics import Diagnostic as Diagnostic
    from kaito_catalog.errors import CatalogError as CatalogError
    from kaito_catalog.memory.values import Fit as Fit
    from kaito_catalog.memory.values import Plan as Plan
    from kaito_catalog.plans.instance_types import InstanceTypePlan as InstanceTypePlan

_MODULES = {
    "Catalog": "catalog.entries",
    "CatalogError": "errors",
    "Diagnostic": "diagnostics",
    "Entry": "catalog.entries",
    "Fit": "memory.values",
    "InstanceTypePlan": "plans.instance_types",
    "Plan": "memory.values",
    "Report": "checks.engine",
    "check_models": "api",
    "compare_instance_types": "api",
    "load_catalog": "api",
    "plan_model": "api",
}
__all__ = [  # noqa: RUF022 - functions first
    "load_catalog", "plan_model", "compare_instance_types", "check_models",
    "Catalog", "Entry", "Plan", "InstanceTypePlan", "Fit", "Report", "Diagnostic", "CatalogError", "__version__",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(importlib.import_module(f"kaito_catalog.{_MODULES[name]}"), name)
        raise AttributeError(f"module 'kaito_catalog' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
