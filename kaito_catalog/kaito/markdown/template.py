"""KAITO's template for Markdown proposals: its sections, tables and rows, and the keys that they become."""

from __future__ import annotations

import re

from kaito_catalog.kaito.markdown import words

PROPOSAL_API_VERSION = "catalog.kaito.sh/v1alpha1"
OVERLAY_SECTION = "For kaito-catalog"
SAMPLES_SECTION = "Sample manifests"
MAX_MODELS = 32
SIZE_CLAIMS = ("storageSize", "totalGPUMemory", "perGPUMemory")
COUNT_CLAIMS = ("gpuCount", "contextLength")
CLAIMS = {
    "familyName": "Family name",
    "type": "Type",
    "downloadSite": "Download site",
    "version": "Version",
    "storageSize": "Storage size",
    "gpuCount": "GPU count",
    "totalGPUMemory": "Total GPU memory",
    "perGPUMemory": "Per GPU memory",
    "contextLength": "Context length",
}
ROWS = {words.label(text): key for key, text in CLAIMS.items()}
RUNTIME_ROWS = ("runtime", "distributedinference", "customconfigurations", "trustremotecode")
SECTIONS = ("title", "glossary", "summary", "requirements", "runtimes", "history")
# Sentences of the template itself, and lead-ins to the samples.
BOILERPLATE = re.compile(
    r"(?:(?:the following table describes|this section describes how) [^.]{0,300}\.?\Z"
    r"|sam[a-z]{1,4} (?:yaml|manifests?)\W*\Z"
    r"|n/?a\.?\Z)",
    re.IGNORECASE,
)
# The keys of a proposal in the order of the design.
KEY_ORDER: dict[str, tuple[str, ...]] = {
    "": (
        "apiVersion",
        "kind",
        "metadata",
        "glossary",
        "summary",
        "requirements",
        "runtimes",
        "deployment",
        "history",
        "waivers",
    ),
    "metadata": (
        "name",
        "title",
        "heading",
        "authors",
        "reviewers",
        "creationDate",
        "lastUpdated",
        "status",
        "templateStatus",
    ),
    "summary": ("description", "usage", "license"),
    "requirements": (*CLAIMS, "notes", "figures"),
    "deployment": (
        "instanceType",
        "nodeCount",
        "partition",
        "performanceMode",
        "adapters",
        "modelAccessSecret",
        "configMap",
        "kvCacheCPUMemoryUtilization",
        "maxProbeSteps",
    ),
}
