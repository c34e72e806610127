"""Blocks by themselves: names, references, and the free list that is the prefix cache."""

from __future__ import annotations

from array import array
from hashlib import blake2b

from localllm.engine.block_manager import BlockManager
from localllm.engine.sequence import Sequence
from localllm.params import SamplingParams


def sequence(tokens: list[int], salt: bytes = b"") -> Sequence:
    return Sequence(array("i", tokens), SamplingParams(), max_length=1000, salt=salt)


def compute(blocks: BlockManager, seq: Sequence) -> list[int]:
    """All of a sequence's tokens at once; the blocks it came to hold."""
    blocks.share(seq)
    seq.blocks.extend(blocks.allocate(blocks.lacking(seq, len(seq.tokens))))
    start, seq.computed = seq.computed, len(seq.tokens)
    blocks.publish(seq, start)
    return seq.blocks.tolist()


def test_an_equal_prefix_is_held_twice_but_stored_once() -> None:
    blocks = BlockManager(8, 4)
    first = compute(blocks, sequence(list(range(10))))
    second = compute(blocks, sequence([*range(8), 50, 51]))
    assert second[:2] == first[:2]
    assert second[2] != first[2]
    assert [blocks.refs[b] for b in first] == [2, 2, 1]


def test_one_token_is_always_left_to_compute() -> None:
    blocks = BlockManager(8, 4)
    compute(blocks, sequence(list(range(8))))
    again = sequence(list(range(8)))
    assert blocks.share(again) is None
    assert (again.computed, len(again.blocks)) == (4, 1)


def test_released_blocks_are_found_until_their_space_is_needed() -> None:
    blocks = BlockManager(4, 4)
    seq = sequence(list(range(16)))
    held = compute(blocks, seq)
    blocks.drop(seq)
    assert len(blocks.free) == 4
    assert blocks.allocate(1) == [held[3]], "the end of a text goes before its beginning"
    again = sequence(list(range(17)))
    missing = blocks.share(again)
    assert again.blocks.tolist() == held[:3]
    assert missing == again.keys[3]


def test_the_oldest_release_goes_first() -> None:
    blocks = BlockManager(3, 4)
    seqs = [sequence([n] * 4) for n in range(3)]
    held = [compute(blocks, seq)[0] for seq in seqs]
    for n in (1, 0, 2):
        blocks.drop(seqs[n])
    assert blocks.allocate(3) == [held[1], held[0], held[2]]


def test_a_prefix_matches_only_from_the_start() -> None:
    blocks = BlockManager(8, 4)
    compute(blocks, sequence([1, 2, 3, 4, 5, 6, 7, 8]))
    shifted = sequence([5, 6, 7, 8, 9])
    blocks.share(shifted)
    assert not shifted.blocks


def test_salts_do_not_share() -> None:
    blocks = BlockManager(8, 4)
    compute(blocks, sequence(list(range(8)), b"a"))
    for salt in (b"", b"b"):
        other = sequence(list(range(8)), salt)
        blocks.share(other)
        assert not other.blocks
    same = sequence(list(range(8)), b"a")
    blocks.share(same)
    assert len(same.blocks) == 1


def test_a_salt_cannot_imitate_the_key_of_a_block() -> None:
    blocks = BlockManager(8, 4)
    secret = sequence(list(range(8)))
    compute(blocks, secret)
    thief = sequence([4, 5, 6, 7, 0], salt=secret.keys[0])
    blocks.share(thief)
    assert not thief.blocks


def test_keys_are_the_documented_digest() -> None:
    seq = sequence(list(range(9)), b"salt")
    BlockManager(8, 4).share(seq)
    root = blake2b(b"salt", digest_size=16, person=b"cache salt").digest()
    one = blake2b(root + array("i", [0, 1, 2, 3]).tobytes(), digest_size=16).digest()
    assert seq.keys == [one, blake2b(one + array("i", [4, 5, 6, 7]).tobytes(), digest_size=16).digest()]


def test_an_answer_apart_from_prompts_is_no_prefix_of_a_prompt() -> None:
    """Blocks of the prompt alone are anyone's; those with a generated token are the sequence's own."""
    blocks = BlockManager(16, 4, prompts_apart=True)
    seq = sequence(list(range(6)))
    seq.tokens.extend(range(6, 17))
    held = compute(blocks, seq)
    blocks.drop(seq)
    turn = sequence(list(range(18)))
    blocks.share(turn)
    assert turn.blocks.tolist() == held[:1]
    shorter = sequence(list(range(5)))
    shorter.tokens.extend(range(5, 17))
    blocks.share(shorter)
    assert shorter.blocks.tolist() == held[:1], "the same tokens, of which one less was given"
    blocks.share(seq)
    assert seq.blocks.tolist() == held[:4]


def test_switched_off_nothing_has_a_name() -> None:
    blocks = BlockManager(8, 4, prefix_cache=False)
    seq = sequence(list(range(10)))
    compute(blocks, seq)
    blocks.drop(seq)
    again = sequence(list(range(10)))
    assert blocks.share(again) is None
    assert (again.keys, again.blocks.tolist(), blocks.block_of) == ([], [], {})


def test_the_first_of_two_equal_blocks_keeps_the_name() -> None:
    blocks = BlockManager(8, 4)
    twins = [sequence([1, 2, 3, 4]), sequence([1, 2, 3, 4])]
    held = [compute(blocks, twin)[0] for twin in twins]
    assert list(blocks.block_of.values()) == [held[0]]
    assert blocks.key_of[held[1]] is None
