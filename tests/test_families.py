"""Which models are of one family."""

import pytest

from tokbench.families import family_of
from tokbench.names import EMBEDDED_MODELS

FAMILIES = [
    ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"),
    ("deit_tiny_distilled_patch16_224", "deit_small_distilled_patch16_224"),
    ("deit_base_patch16_384",),
    ("deit3_small_patch16_224", "deit3_medium_patch16_224", "deit3_large_patch16_224"),
    ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
    ("vit_small_patch32_224", "vit_base_patch32_224"),
    ("vit_base_patch16_clip_224.openai", "vit_large_patch16_clip_224.openai"),
    ("vit_base_patch16_clip_224.laion2b",),
    ("digits_deit", "digits_deit_32", "digits_deit_16"),
    ("digits_rope",),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_differ_in_size_only_are_one_family(family):
    assert len({family_of(model) for model in family}) == 1


def test_every_embedded_model_is_in_one_of_these_families():
    assert set(EMBEDDED_MODELS) <= {model for family in FAMILIES for model in family}


def test_all_others_are_different_families():
    assert len({family_of(family[0]) for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("model", ["", "base", "my_basement_vit", "vit_so400m_patch14_siglip_224"])
def test_a_name_without_a_size_is_its_own_family(model):
    assert family_of(model) == model
