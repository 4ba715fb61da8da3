"""What each code of an import means, and how to fix it."""

from __future__ import annotations

IMPORT_CODES: dict[str, str] = {
    "IMP001": "The front matter is missing or is not valid YAML. A proposal starts with title, authors, creation-"
    "date and status between two lines of ---; quote names that start with @ and texts that hold a colon.",
    "IMP002": "There is no requirements table that can be read, so nothing is claimed and no proposal is written. "
    "Add the table of KAITO's template, with the columns Field and Notes.",
    "IMP003": "No revision is named. Write the full commit of the repository in the row Version.",
    "IMP004": "The revision is abbreviated, or is not the one its link leads to. The full commit of the link is "
    "taken where there is one; write all 40 digits.",
    "IMP005": "Several models stand in one file. Each gets its own folder; split the file, the template asks for "
    "one proposal per model.",
    "IMP006": "The status is not one that proposals can have. Write provisional, implemented, deferred, rejected or"
    " withdrawn.",
    "IMP007": "The title in the front matter names another model: it was probably copied from another proposal. "
    "Name the model of this one.",
    "IMP008": "A text or a link names another model than the download site. Correct whichever of them is wrong.",
    "IMP009": "KAITO would refuse the sample manifest, or start nothing with it, or its parts name different "
    "objects. A Workspace has resource and inference at its top, inference.preset.name, and the secret in"
    " inference.preset.presetOptions.modelAccessSecret.",
    "IMP010": "The GPU figures contradict each other: the total is not the count times the memory of each GPU. "
    "Correct the one that is wrong.",
    "IMP011": "A claim that the template asks for is missing. It is left out, and `check` keeps pointing at it; "
    "fill it in.",
    "IMP012": "A date cannot be read, is not in the calendar, or can be read in two ways. Write year-month-day.",
    "IMP013": "The date in the file's name is not the creation date. Rename the file or correct creation-date.",
    "IMP014": "The runtime is not one of vLLM, Hugging Face Transformers or ONNX, or the text takes it back or puts"
    " it off. Name only runtimes that serve the model today.",
    "IMP015": "The download site is not the address of a repository on the Hub. Write "
    "https://huggingface.co/ORG/MODEL.",
    "IMP016": "A figure cannot be read. Its words are kept in requirements.notes; write a number, and a unit for "
    "sizes.",
    "IMP017": "A text has no place in a proposal and is left out. Move what matters into the description.",
    "IMP018": "A section, a table, a row, a cell or a key is not part of the template and is left out. Use the "
    "names of KAITO's template.",
    "IMP019": "A code block is no YAML that can be read, or is of a kind that proposals do not hold, and is left "
    "out. Keep one Workspace, one ConfigMap and one Secret per model.",
    "IMP020": "The licence is not named by a name that is known; its words are kept as a note. Write its SPDX id or"
    " the Hub's own id.",
    "IMP021": "Distributed inference is neither True nor False, or depends on the model. Write one of them.",
    "IMP022": "There is more in the file than is read: one file holds at most 32 models and 300 remarks. Split it.",
    "IMP023": "The file is no model's proposal: a design document, or a template that is not filled in. Nothing is read"
    " of it. A document with headings of its own is read where its title names the models that it adds.",
}
"""Every code of the family IMP: what it means, and how to fix it."""
