"""Which names are near: begun, misspelt or contained."""

from __future__ import annotations

import pytest

from kaito_catalog.near_names import near_names, nearest

TYPES = (
    "Standard_NC4_A2",
    "Standard_NC24ads_A100_v4",
    "Standard_NC96ads_A100_v4",
    "Standard_ND96asr_A100_v4",
    "Standard_ND96isr_H100_v5",
    "g6.24xlarge",
)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("Standard_NC24", "Standard_NC24ads_A100_v4"),
        ("standard_nc24", "Standard_NC24ads_A100_v4"),
        ("Standard-NC24", "Standard_NC24ads_A100_v4"),
        ("Standard_NC24_A100", "Standard_NC24ads_A100_v4"),
        ("Standard_NC96ads_A100", "Standard_NC96ads_A100_v4"),
        ("g6.24xlrage", "g6.24xlarge"),
        ("Abacus", None),
        ("", None),
        ("S", None),
    ],
)
def test_the_nearest_name(wrong: str, meant: str | None) -> None:
    assert nearest(wrong, TYPES) == meant


def test_all_names_that_begin_so_are_meant() -> None:
    assert near_names("Standard_ND96", TYPES) == ("Standard_ND96asr_A100_v4", "Standard_ND96isr_H100_v5")


def test_at_most_four_names_are_offered() -> None:
    assert near_names("abc", [f"abcd{letter}" for letter in "fghijkl"]) == (
        "abcdf",
        "abcdg",
        "abcdh",
        "abcdi",
    )


def test_part_of_a_name_means_the_names_that_contain_it() -> None:
    gpus = ("NVIDIA A10", "NVIDIA A100 40GB", "NVIDIA A100 80GB")
    assert near_names("a100", gpus) == ("NVIDIA A100 40GB", "NVIDIA A100 80GB")


def test_a_misspelt_name_beats_one_that_contains_it() -> None:
    assert near_names("sizes", ["storage_sizes_of_disks", "size"]) == ("size",)


def test_a_beginning_in_common_decides_between_names_that_are_spelt_alike() -> None:
    assert nearest("max-model-length", ["max-num-length", "max-model-len"]) == "max-model-len"


def test_what_agrees_less_than_is_asked_for_is_not_near() -> None:
    assert nearest("phi-5", ["phi-4"], likeness=0.75) == "phi-4"
    assert nearest("phi-5", ["phi-4"], likeness=0.85) is None


def test_of_names_that_differ_only_in_capitals_the_first_is_taken() -> None:
    assert nearest("PHI", ["Phi", "phi"]) == "Phi"
