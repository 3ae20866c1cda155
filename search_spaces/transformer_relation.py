"""What of one transformer another contains, and where its heads and their channels go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.inheritance import Inheritance, judged
from search_spaces.transformer import is_tied

if TYPE_CHECKING:
    from search_spaces.transformer import TransformerSpace, TransformerSpec

NEW = -1


def relation(space: TransformerSpace, old: TransformerSpec, new: TransformerSpec) -> Inheritance:
    """What a child of spec `new` inherits from a parent of spec `old`."""
    return judged(_lacks(space, old, new), _bends(space, old, new))


def has_tied(space: TransformerSpace, spec: TransformerSpec) -> bool:
    """Whether any head reads with the token embedding."""
    return any(is_tied(head, spec, space.vocab) for head in space.heads)


def place_heads(old: TransformerSpec, new: TransformerSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The parent's query head in each of the child's, and its key-value head in each of those; -1 is new.

    A key-value head of the parent is repeated where the child's serve fewer query heads each.
    """
    group, room = old.heads // old.kv_heads, new.heads // new.kv_heads
    queries, keys = [NEW] * new.heads, [NEW] * new.kv_heads
    placed = 0
    for key in range(new.kv_heads):
        if placed == old.heads:
            break
        keys[key] = placed // group
        count = min(room, group - placed % group)
        queries[key * room : key * room + count] = range(placed, placed + count)
        placed += count
    return tuple(queries), tuple(keys)


def place_turns(old: int, new: int) -> tuple[int, ...]:
    """The parent's channel in each of the child's of one rotary head, by the nearest frequency; -1 is new.

    Pair i of n turns with the frequency base^(-i/n): where n grows by a whole factor, all are among the new.
    """
    pairs, new_pairs = old // 2, new // 2
    source = [NEW] * new_pairs
    for index in range(min(pairs, new_pairs)):
        if new_pairs >= pairs:
            source[_nearest(index * new_pairs, pairs)] = index
        else:
            source[index] = _nearest(index * pairs, new_pairs)
    return (*source, *(pair if pair == NEW else pair + pairs for pair in source))


def _nearest(number: int, divisor: int) -> int:
    return (2 * number + divisor) // (2 * divisor)


def _lacks(space: TransformerSpace, old: TransformerSpec, new: TransformerSpec) -> list[str]:
    lacks = [
        f"{name}: {getattr(new, name)}, the parent has {getattr(old, name)}"
        for name in ("depth", "width", "ffn_width", "head_size")
        if getattr(new, name) < getattr(old, name)
    ]
    lacks += [
        f"{name}: {getattr(new, name)}, the parent has {getattr(old, name)}"
        for name in ("ffn_kind", "norm", "position")
        if getattr(new, name) != getattr(old, name) and (old.position, name) != ("none", "position")
    ]
    if old.position == "none" and new.position == "rotary":
        lacks.append("position: rotary, the parent's queries and keys don't turn")
    if max(place_heads(old, new)[0]) < old.heads - 1:
        lacks.append(
            f"heads: {new.heads} with {new.kv_heads} of keys and values, no room for the parent's"
            f" {old.heads} with {old.kv_heads}"
        )
    if has_tied(space, new) and not has_tied(space, old):
        lacks.append("tied: True, the parent reads with weights of its own")
    return lacks


def _bends(space: TransformerSpace, old: TransformerSpec, new: TransformerSpec) -> list[str]:
    bends = []
    is_wider = new.width > old.width and new.width % old.width
    if old.norm == new.norm == "layernorm" and is_wider and has_tied(space, new):
        bends.append(
            f"width: {new.width} is no multiple of the parent's {old.width}, as a layernorm with tied"
            " embeddings needs"
        )
    is_turned = old.position == new.position == "rotary" and 2 < old.head_size < new.head_size
    if is_turned and new.head_size % old.head_size:
        bends.append(
            f"head_size: {new.head_size} is no multiple of the parent's {old.head_size}, as rotary"
            " positions need"
        )
    return bends
