"""Write a trained demo model as GGUF: matrices in Q8_0, norms in F32, tokenizer, chat template and sampling in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer

from .model import Llama
from .names import permuted, weight_names
from .tokenizer import CHAT_TEMPLATE, END_ID, PAD_ID, PRE, SPECIALS

ABOUT = {
    "demo": ("localllm-demo", "A small model that knows a small world. It comes with localllm."),
    "draft": ("localllm-demo-draft", "A draft of localllm-demo, with the same tokenizer."),
}
TEMPERATURE = 0.2


def write(name: str, model: Llama, tokenizer: Tokenizer, path: Path) -> None:
    """Write the model `name` ("demo" or "draft") to path."""
    writer = GGUFWriter(path, "llama")
    title, description = ABOUT[name]
    writer.add_type("model")
    writer.add_name(title)
    writer.add_description(description)
    writer.add_license("MIT")
    writer.add_float32("general.sampling.temp", TEMPERATURE)
    shape = model.shape
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_tokenizer(writer, tokenizer)
    weights = {key: tensor.detach().float().numpy() for key, tensor in model.state_dict().items()}
    for ours, theirs in weight_names(shape).items():
        values = weights[ours]
        heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(theirs.split(".")[-2], 0)
        values = np.ascontiguousarray(permuted(values, heads) if heads else values)
        if values.ndim == 2:
            q8 = GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """Tokens in the order of their ids, merges, special ids and the chat template."""
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIALS else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(PAD_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_eot_token_id(END_ID)
    writer.add_pad_token_id(PAD_ID)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
