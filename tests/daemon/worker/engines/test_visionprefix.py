"""Names of a prompt's positions: as exact as its keys and values."""

from typing import Any

import mlx.core as mx
import pytest

from daemon.worker.engines.visionprefix import position_names, rest_of, usable

TOKENS = (5, 9, 7, 7, 7, 9, 7, 7, 4)
AT_PICTURES = (2, 3, 4, 6, 7)
PLAIN = mx.random.normal((1, len(TOKENS), 6), key=mx.random.key(0))


def given(seeds: tuple[int, int] = (1, 2), dtype: mx.Dtype = mx.float32) -> dict[str, Any]:
    """What a language model is given for two pictures of three and two positions."""
    embeds = mx.array(PLAIN)
    embeds[:, 2:5] = mx.random.normal((1, 3, 6), key=mx.random.key(seeds[0]))
    embeds[:, 6:8] = mx.random.normal((1, 2, 6), key=mx.random.key(seeds[1]))
    return {"inputs_embeds": embeds.astype(dtype)}


def names(embedded: dict[str, Any], plain: mx.array | None = PLAIN) -> list[int]:
    found = position_names(TOKENS, plain, embedded)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_tokens_name_themselves_and_pictures_are_below_zero(dtype: mx.Dtype) -> None:
    found = names(given(dtype=dtype), PLAIN.astype(dtype))
    for position, name in enumerate(found):
        if position in AT_PICTURES:
            assert -(2**31) <= name < 0
        else:
            assert name == TOKENS[position]
    assert found == names(given(dtype=dtype), PLAIN.astype(dtype))
    assert len({found[position] for position in AT_PICTURES}) == len(AT_PICTURES)


def test_a_prompt_of_words_is_its_tokens() -> None:
    assert names({"inputs_embeds": PLAIN}, None) == list(TOKENS)
    assert names({"inputs_embeds": PLAIN}) == list(TOKENS)


def test_another_picture_has_another_name_at_each_of_its_places_and_nowhere_else() -> None:
    one, other = names(given()), names(given((1, 3)))
    different = [i for i, pair in enumerate(zip(one, other, strict=True)) if len(set(pair)) == 2]
    assert different == [6, 7]


def test_one_changed_number_changes_the_whole_picture() -> None:
    embedded = given()
    embedded["inputs_embeds"][0, 4, 5] += 1e-3
    pairs = zip(names(given()), names(embedded), strict=True)
    assert [i for i, (one, other) in enumerate(pairs) if one != other] == [2, 3, 4]


def test_the_same_picture_at_other_coordinates_is_another_one() -> None:
    """A plain white picture looks the same lying or standing; its rotary positions do not."""
    lying = mx.broadcast_to(mx.arange(len(TOKENS)), (3, 1, len(TOKENS)))
    standing = mx.array(lying)
    standing[1, 0, 3] = 17
    one = names({**given(), "position_ids": lying})
    other = names({**given(), "position_ids": standing})
    assert one[:2] == other[:2]
    assert all(one[i] != other[i] for i in (2, 3, 4))


@pytest.mark.parametrize("key", ["attention_mask_4d", "cross_attention_states", "pos_hw"])
def test_what_may_depend_on_what_follows_has_no_names(key: str) -> None:
    assert position_names(TOKENS, PLAIN, {**given(), key: mx.zeros((1,))}) is None


def test_what_belongs_to_pictures_as_a_whole_is_not_divided() -> None:
    found = names(given())
    assert not usable(found, 0, {"inputs_embeds"})
    assert usable(found, 3, {"inputs_embeds", "image_grid_thw"})
    assert not usable(found, 3, {"inputs_embeds", "deepstack_visual_embeds"})
    assert usable(found, 8, {"inputs_embeds", "deepstack_visual_embeds"})


def test_the_rest_of_a_prompt_is_cut_where_its_tokens_are() -> None:
    positions = mx.broadcast_to(mx.arange(len(TOKENS)), (3, 1, len(TOKENS)))
    grid = mx.array([[1, 4, 6]])
    rest = rest_of(
        {
            **given(),
            "position_ids": positions,
            "rope_deltas": mx.array([[3]]),
            "image_grid_thw": grid,
            "visual_pos_masks": mx.ones((1, len(TOKENS))),
            "deepstack_visual_embeds": mx.ones((1, 5, 6)),
        },
        8,
    )
    assert rest.keys() == {"inputs_embeds", "position_ids", "rope_deltas", "image_grid_thw"}
    assert rest["inputs_embeds"].tolist() == given()["inputs_embeds"][:, 8:].tolist()
    assert rest["position_ids"].tolist() == [[[8]], [[8]], [[8]]]
    assert rest["rope_deltas"].tolist() == [[3]]
    assert rest["image_grid_thw"].tolist() == grid.tolist()
