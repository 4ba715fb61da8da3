"""What KAITO chooses by itself, against the tables and unit tests of its release."""

from __future__ import annotations

from test_release import ILLEGAL_PAIRS, V0_12, illegal_pairs

from conformance.kaito_tree import KaitoTree
from kaito_catalog import quantity
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.kaito import estimator


def test_the_illegal_pairs_are_those_of_kaitos_own_tables(tree: KaitoTree, catalog: Catalog) -> None:
    names = {sku.name for sku in tree.skus}
    assert {pair for pair in illegal_pairs(tree.rows, catalog) if pair[1] in names} == ILLEGAL_PAIRS


def test_the_maps_are_kaitos(tree: KaitoTree) -> None:
    theirs, mine = tree.maps, V0_12
    assert mine.tool_call_parser.prefixes == theirs["toolCallParserModeNamePrefixMap"]
    assert mine.tool_call_parser.architectures == theirs["toolCallParserArchMap"]
    assert mine.reasoning_parser.prefixes == theirs["reasoningParserModeNamePrefixMap"]
    assert mine.reasoning_parser.architectures == theirs["reasoningParserArchMap"]
    assert mine.reasoning_parser.never == theirs["nonReasoningModels"].keys()
    assert mine.by_prefix["chat-template"] == theirs["chatTemplatePrefixMap"]
    assert mine.by_prefix["tokenizer-mode"] == theirs["tokenizerModePrefixMap"]
    assert mine.by_prefix["kv-cache-dtype"] == theirs["vllmKVCacheDtypePrefixMap"]
    assert mine.by_prefix["gdn-prefill-backend"] == theirs["vllmGdnPrefillBackendPrefixMap"]


def test_the_limits_of_a_start_are_those_of_kaitos_unit_tests(tree: KaitoTree) -> None:
    assert len(tree.start_up_limits) >= 8
    for text, minutes in tree.start_up_limits:
        try:
            size: int | None = quantity.parse(text).bytes
        except ValueError:
            size = None
        assert estimator.startup_minutes(size) == minutes, text
