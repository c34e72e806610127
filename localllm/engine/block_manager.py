"""Names of the KV blocks: who holds which, and which contents are still good. The bytes live in native/model/kv.c.

A full block is immutable and is named by a key that digests its tokens and everything before them, so a key met
again is the same prefix. Releasing a block does not forget it: it waits, findable by its key, in the order of its
release, until the space is needed. The free list *is* the prefix cache; eviction *is* allocation.
With `prefix_cache` off no block gets a key, hence none is ever found: there is no other difference.
With `prompts_apart` generated tokens differ from the same tokens given in a prompt, as they do in the low bits of a
device that computes each in an arithmetic of its own: an answer is found again by sequences of the same prompt only.
"""

from array import array
from hashlib import blake2b

from localllm.engine.sequence import Sequence


class BlockManager:
    def __init__(self, n_blocks: int, block_size: int, prefix_cache: bool = True, prompts_apart: bool = False) -> None:
        self.n_blocks = n_blocks
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self.prompts_apart = prompts_apart
        self.free: dict[int, None] = dict.fromkeys(range(n_blocks))  # ordered: least recently released first
        self.refs = [0] * n_blocks
        self.key_of: list[bytes | None] = [None] * n_blocks
        self.block_of: dict[bytes, int] = {}

    # ---- blocks ----

    def allocate(self, count: int) -> list[int]:
        """`count` <= len(free) blocks of undefined content, each with one reference."""
        return [self._evict() for _ in range(count)]

    def release(self, blocks: "array[int] | list[int]") -> None:
        """Last block first, so that a prefix outlives its continuations."""
        for block in reversed(blocks):
            self.refs[block] -= 1
            if self.refs[block] == 0:
                self.free[block] = None

    def _evict(self) -> int:
        block = next(iter(self.free))
        del self.free[block]
        self.refs[block] = 1
        if (key := self.key_of[block]) is not None:
            del self.block_of[key]
            self.key_of[block] = None
        return block

    # ---- blocks of a sequence ----

    def lacking(self, seq: Sequence, length: int) -> int:
        """How many blocks it needs beyond its own to have `length` tokens computed."""
        return max(0, -(-length // self.block_size) - len(seq.blocks))

    def share(self, seq: Sequence) -> bytes | None:
        """Give it the cached blocks that go on where its own end; the key of the first that is missing, if one is.

        One token is always left for it to compute, and a block that it has begun is its own to fill.
        """
        self._extend_keys(seq)
        if seq.computed % self.block_size:
            return None
        for key in seq.keys[len(seq.blocks) : (len(seq.tokens) - 1) // self.block_size]:
            if (block := self.block_of.get(key)) is None:
                return key
            self.free.pop(block, None)
            self.refs[block] += 1
            seq.blocks.append(block)
            seq.computed += self.block_size
        return None

    def publish(self, seq: Sequence, start: int) -> None:
        """Make the blocks that tokens[start:computed] filled findable. The first block of a content wins."""
        self._extend_keys(seq)
        for i in range(start // self.block_size, min(seq.computed // self.block_size, len(seq.keys))):
            if seq.keys[i] not in self.block_of:
                self.block_of[seq.keys[i]] = seq.blocks[i]
                self.key_of[seq.blocks[i]] = seq.keys[i]

    def drop(self, seq: Sequence) -> None:
        self.release(seq.blocks)
        del seq.blocks[:]
        seq.computed = 0

    def _extend_keys(self, seq: Sequence) -> None:
        size = self.block_size
        if not self.prefix_cache or len(seq.keys) == len(seq.tokens) // size:
            return
        # The salt takes the place of the first block's parent. It is digested apart, lest a salt imitate a key.
        parent = seq.keys[-1] if seq.keys else blake2b(seq.salt, digest_size=16, person=b"cache salt").digest()
        for i in range(len(seq.keys), len(seq.tokens) // size):
            content = seq.tokens[i * size : (i + 1) * size].tobytes()
            if self.prompts_apart and (i + 1) * size > seq.prompt_length:
                content += max(0, seq.prompt_length - i * size).to_bytes(2)  # how many are of the prompt
            parent = blake2b(parent + content, digest_size=16).digest()
            seq.keys.append(parent)
