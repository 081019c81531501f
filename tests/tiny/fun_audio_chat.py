"""Model folders that Fun-Audio-Chat's own code loads, with random networks of a few thousand parameters.

The vocabulary is bytes and the model's marks; the codes are as many as the published model's. Needs torch,
transformers, and upstream's source on sys.path.
"""

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


def build(folder: Path, says: str = "") -> Path:
    """Makes `folder` a model; returns it.

    says: the reply in writing, whatever is heard; wired into the language model, as long as no letter comes twice.
    """
    import torch
    from funaudiochat.configuration_funaudiochat import FunAudioChatConfig
    from funaudiochat.modeling_funaudiochat import FunAudioChatForConditionalGeneration

    text, codes = _text_tokenizer(), _code_tokenizer()
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
    written = _QWEN | {
        "vocab_size": len(text), "num_hidden_layers": 2, "tie_word_embeddings": True,
        "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
        "audio_bos_index": ids["<|audio_bos|>"], "audio_eos_index": ids["<|audio_eos|>"], "sil_index": ids["<|sil|>"],
    }  # fmt: skip
    torch.manual_seed(0)
    network = FunAudioChatForConditionalGeneration(
        FunAudioChatConfig(
            audio_config=audio,
            text_config=written,
            audio_token_index=ids["<|AUDIO|>"],
            architectures=["FunAudioChatForConditionalGeneration"],
        )
    )
    network.save_pretrained(folder)
    return folder


def _text_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(MARKS))
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
