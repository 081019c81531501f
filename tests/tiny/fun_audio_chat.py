"""Model folders that Fun-Audio-Chat's own code loads, with random networks of a few thousand parameters.

The vocabulary is bytes and the model's marks; the codes are as many as the published model's. Where the reply is given,
the language model is wired as a chain, as CosyVoice's is in tests.tiny.cosyvoice: no layer adds anything to what it is
given, so that the next token depends on the last one alone. The codes stay random. Needs torch, transformers, and
upstream's source on sys.path.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|sil|>")
_CODES = 6561
_CODE_MARKS = ("<|audio_bos|>", "<|audio_eos|>", "<|audio_pad|>", "<unk>")
_GROUP = 5
_HIDDEN = 16
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN = {
    "model_type": "qwen3", "hidden_size": _HIDDEN, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 8192,
}  # fmt: skip


def build(folder: Path, written: Sequence[str] = (), spoken: Sequence[str] = (), *, endless: bool = False) -> Path:
    """Makes `folder` a model; returns it.

    written, spoken: the pieces of its reply, each a token of its own, where it does not speak and where it does; chance
    writes what is not given. endless: the last spoken piece is said over and over again.
    """
    import torch
    from funaudiochat.configuration_funaudiochat import FunAudioChatConfig
    from funaudiochat.modeling_funaudiochat import FunAudioChatForConditionalGeneration

    text, codes = _text_tokenizer([*written, *spoken]), _code_tokenizer()
    _processor(text, codes).save_pretrained(folder)
    ids = {mark: text.convert_tokens_to_ids(mark) for mark in MARKS}
    audio = {
        "num_mel_bins": 128, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "d_model": _HIDDEN, "output_dim": _HIDDEN, "n_window": 100, "max_source_positions": 1500,
        "codebook_size": _CODES + len(_CODE_MARKS), "bos_token_id": _CODES, "eos_token_id": _CODES + 1,
        "pad_token_id": _CODES + 2, "group_size": _GROUP, "continuous_features_mode": "replace",
        "crq_transformer_config": _QWEN | {"vocab_size": 8, "num_hidden_layers": 1},
        "enable_audio_invert_tower": True,
    }  # fmt: skip
    words = _QWEN | {
        "vocab_size": len(text), "num_hidden_layers": 2, "tie_word_embeddings": False,
        "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
        "audio_bos_index": ids["<|audio_bos|>"], "audio_eos_index": ids["<|audio_eos|>"], "sil_index": ids["<|sil|>"],
    }  # fmt: skip
    torch.manual_seed(0)
    network = FunAudioChatForConditionalGeneration(
        FunAudioChatConfig(
            audio_config=audio,
            text_config=words,
            audio_token_index=ids["<|AUDIO|>"],
            architectures=["FunAudioChatForConditionalGeneration"],
        )
    )
    end, chains = ids["<|im_end|>"], []
    if written:  # behind the line that says whose turn it is
        chains.append([text.convert_tokens_to_ids("Ċ"), *map(text.convert_tokens_to_ids, written), end])
    if spoken:
        said = [ids["<|audio_bos|>"], *map(text.convert_tokens_to_ids, spoken)]
        chains.append([*said, said[-1] if endless else end])
    if chains:
        with torch.no_grad():
            _wire(network.language_model, chains)
    network.save_pretrained(folder)
    return folder


def _wire(language_model: Any, chains: list[list[int]]) -> None:
    """Each token leads to the one after it."""
    import torch

    for layer in language_model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    embedding, head = language_model.model.embed_tokens.weight, language_model.lm_head.weight
    head.zero_()
    links = [link for chain in chains for link in zip(chain, chain[1:], strict=False)]
    assert len(links) <= _HIDDEN, "too many pieces for so small a network"
    for axis, (token, following) in enumerate(links):
        embedding[token] = direction = torch.eye(_HIDDEN)[axis]
        head[following] += 100 * direction


def _text_tokenizer(pieces: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(MARKS))
    made.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _code_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    names = [f"<|audio_{code}|>" for code in range(_CODES)] + list(_CODE_MARKS)
    made = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    # The published one has all of them as added tokens; those of sounds are never written in a prompt.
    made.add_tokens([AddedToken(name, normalized=False) for name in _CODE_MARKS])
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|audio_pad|>", unk_token="<unk>", audio_group_size=_GROUP
    )


def _processor(text: Any, codes: Any) -> Any:
    from funaudiochat.processing_funaudiochat import FunAudioChatProcessor
    from transformers import WhisperFeatureExtractor

    hearing = WhisperFeatureExtractor(feature_size=128)
    return FunAudioChatProcessor(hearing, codes, text, chat_template=_TEMPLATE, audio_group_size=_GROUP)
