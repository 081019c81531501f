"""Model folders that CosyVoice's own code loads, with random networks of any size.

The speech language model is wired as a chain: the hidden state after token i points at token i + 1, and the last token
at the end, so that a synthesis makes `Size.tokens` tokens and ends by itself, whatever the sampler draws. Upstream
wants 2 to 20 tokens for each token of text: a long text starts the chain again at its first token, and a very short
one breaks it off. Reference audio is heard as the tokens from `Size.tokens` on, all of which lead to its start.

Needs torch, onnx, transformers, CosyVoice's source on sys.path, and its patches installed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.wire.cosyvoice import PRESETS

VERSIONS = ("cosyvoice", "cosyvoice2", "cosyvoice3")
"""1 (CosyVoice-300M, 22050 Hz, 50 tokens a second), 2 and 3 (24000 Hz, 25 tokens a second)."""

SAMPLE_RATE: Mapping[str, int] = {"cosyvoice": 22_050, "cosyvoice2": 24_000, "cosyvoice3": 24_000}
TOKEN_RATE: Mapping[str, int] = {"cosyvoice": 50, "cosyvoice2": 25, "cosyvoice3": 25}

_END_OF_PROMPT = 151_646
"""The id that CosyVoice3 looks for, whatever its tokenizer says."""
_FIRST_SPECIAL = _END_OF_PROMPT - 3
_ADDED_ROWS = 400
"""Room for the tokens that upstream's tokenizers add to a Qwen one."""
_EMBEDDING = 192
"""Numbers that stand for a speaker."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the networks are. Where version 1 has no such part, or the others have not, the number is not used."""

    tokens: int
    """Emitted, before the end."""
    codebook: int
    """Speech tokens; those from `tokens` on are only ever heard."""
    hidden: int = 32
    """Of the language model, as are the next four."""
    inner: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    text_layers: int = 1
    """Of version 1's encoder of text."""
    vocabulary: int = 0
    """Rows for text tokens; 0 for as few as will do."""
    flow_width: int = 32
    """Version 2 has 512 written into its code."""
    flow_inner: int = 32
    flow_layers: int = 1
    flow_heads: int = 2
    estimator_width: int = 32
    estimator_layers: int = 1
    estimator_blocks: int = 1
    """Transformer blocks in each of the layers; of versions 1 and 2."""
    estimator_heads: int = 2
    estimator_head: int = 16
    lookahead: int = 16
    vocoder: int = 16
    vocoder_kernels: tuple[int, ...] = (3,)


TINY: Mapping[str, Size] = {
    "cosyvoice": Size(tokens=256, codebook=512, hidden=192),
    "cosyvoice2": Size(tokens=96, codebook=192, hidden=64),
    "cosyvoice3": Size(tokens=96, codebook=192, hidden=48),
}
_FLOW: dict[str, Any] = {"flow_width": 512, "flow_inner": 2048, "flow_layers": 6, "flow_heads": 8}
_UNET: dict[str, Any] = {"estimator_width": 256, "estimator_layers": 12, "estimator_blocks": 4, "estimator_heads": 8}
_QWEN: dict[str, Any] = {"hidden": 896, "inner": 4864, "layers": 24, "heads": 14, "kv_heads": 2, "vocabulary": 151_936}
_VOCODER: dict[str, Any] = {"vocoder": 512, "vocoder_kernels": (3, 7, 11), "estimator_head": 64, "lookahead": 1024}
FULL: Mapping[str, Size] = {
    "cosyvoice": Size(
        500, 4096, hidden=1024, inner=4096, layers=14, heads=16, text_layers=6, **_FLOW, **_UNET, **_VOCODER
    ),
    "cosyvoice2": Size(250, 6561, **_QWEN, **_FLOW, **_UNET, **_VOCODER),
    "cosyvoice3": Size(250, 6561, **_QWEN, estimator_width=1024, estimator_layers=22, estimator_heads=16, **_VOCODER),
}
"""The published networks' sizes, for benchmarks; 10 s of speech."""


def build(folder: Path, version: str, size: Size | None = None) -> Path:
    """Makes `folder` a model of `version`; returns it."""
    import torch
    from hyperpyyaml import load_hyperpyyaml

    size = size or TINY[version]
    folder.mkdir(parents=True, exist_ok=True)
    if version != "cosyvoice":
        _text_model(folder / "CosyVoice-BlankEN", version, size)
    _onnx_models(folder, version, size)
    path = folder / f"{version}.yaml"
    path.write_text(_YAML[version](size), "utf-8")
    torch.manual_seed(1)
    overrides = {} if version == "cosyvoice" else {"qwen_pretrain_path": str(folder / "CosyVoice-BlankEN")}
    with path.open() as file:
        made = load_hyperpyyaml(file, overrides=overrides)
    with torch.no_grad():
        _wire(made["llm"].eval(), version, size)
    for name in ("llm", "flow", "hift"):
        torch.save(made[name].state_dict(), folder / f"{name}.pt")
    if version == "cosyvoice":
        speakers = {name: {"embedding": torch.randn(1, _EMBEDDING)} for name in PRESETS}
        torch.save(speakers, folder / "spk2info.pt")
    return folder


def seconds(version: str, size: Size | None = None) -> float:
    """How long the speech of a short text is."""
    return (size or TINY[version]).tokens / TOKEN_RATE[version]


def _wire(llm: Any, version: str, size: Size) -> None:
    """Makes a chain of the language model. No layer adds anything to what it is given, so that the hidden state
    depends on the last token alone."""
    import torch

    chain = heard = size.tokens
    directions = torch.nn.functional.normalize(
        torch.randn(chain + 1, size.hidden, generator=torch.Generator().manual_seed(3)), dim=1
    )
    embedding, decoder = llm.speech_embedding.weight, llm.llm_decoder.weight
    embedding[:chain], embedding[chain:] = directions[:chain], directions[heard]
    if version != "cosyvoice3":
        llm.llm_embedding.weight[:] = directions[heard]
        llm.llm_decoder.bias.zero_()
    end = size.codebook + (version == "cosyvoice3")
    after = [*range(1, chain), end, 0]
    hidden = _hidden(llm, version, directions)
    # Version 3's decoder has no bias, and its states need none.
    middle = torch.zeros(size.hidden) if version == "cosyvoice3" else hidden.mean(dim=0)
    apart = hidden - middle
    towards = apart / apart.norm(dim=1, keepdim=True) ** 2
    likeness = float((apart @ towards.T - 2 * torch.eye(chain + 1)).max())
    assert likeness < 0.6, "too many tokens for so small a network"
    # Sharp enough that the sampler, which takes tokens until it has 80 % of the probability, has no choice.
    decoder.zero_()
    decoder[after] = 16 / (1 - 1.5 * likeness) * towards
    # The end is masked while upstream wants more tokens: the next best is to start again.
    decoder[0] += decoder[end] / 2
    never = [row for row in range(len(decoder)) if row not in set(after)]
    if version == "cosyvoice3":
        decoder[never] = -decoder[after].mean(dim=0)
    else:
        llm.llm_decoder.bias[:] = -decoder @ middle
        llm.llm_decoder.bias[never] = -1000.0


def _hidden(llm: Any, version: str, directions: Any) -> Any:
    """[directions, hidden]: the state after each."""
    import torch

    if version == "cosyvoice":
        for layer in llm.llm.encoders:
            for linear in (layer.self_attn.linear_out, layer.feed_forward.w_2):
                linear.weight.zero_()
                linear.bias.zero_()
        nothing = torch.zeros(0, 0, 0, 0)
        return torch.cat([llm.llm.forward_chunk(one[None, None], 0, -1, nothing, nothing)[0][0] for one in directions])
    for layer in llm.llm.model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    return torch.cat(
        [llm.llm.forward_one_step(one[None, None], torch.ones(1, 1, 1, dtype=torch.bool))[0][0] for one in directions]
    )


def _text_model(folder: Path, version: str, size: Size) -> None:
    """A Qwen2 network and a tokenizer of bytes. The ids of version 3's special tokens are those of the real one, so
    that its vocabulary has a hole."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    first = _FIRST_SPECIAL if version == "cosyvoice3" else len(vocabulary)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|endofprompt|>"]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Written into the file: the library prints every id of a hole when it is asked to save one.
    saved = json.loads(tokenizer.to_str())
    saved["model"]["vocab"] |= {token: first + at for at, token in enumerate(specials)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    saved["added_tokens"] = [{"id": first + at, "content": token} | flags for at, token in enumerate(specials)]
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 32_768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=max(size.vocabulary, first + len(specials) + _ADDED_ROWS),
            hidden_size=size.hidden,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=32_768,
            tie_word_embeddings=True,
            bos_token_id=first,
            eos_token_id=first,
        )
    ).save_pretrained(folder)


def _onnx_models(folder: Path, version: str, size: Size) -> None:
    """What makes numbers of a speaker, and tokens of speech."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value), name)

    def save(name: str, nodes: list[Any], inputs: list[Any], output: Any, constants: list[Any]) -> None:
        graph = helper.make_graph(nodes, name, inputs, [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, folder / f"{name}.onnx")

    weights = np.random.default_rng(0).standard_normal((80, _EMBEDDING)).astype("float32")
    save(
        "campplus",
        [
            helper.make_node("ReduceMean", ["input", "frames"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["output"]),
        ],
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", 80])],
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", _EMBEDDING]),
        [constant("frames", np.array([1], "int64")), constant("weights", weights)],
    )
    # 100 frames of 128 mel bands a second -> ids in [tokens, codebook)
    pool = 100 // TOKEN_RATE[version]
    save(
        f"speech_tokenizer_v{version[-1] if version[-1].isdigit() else 1}",
        [
            helper.make_node("ReduceMean", ["feats", "bands"], ["mean"], keepdims=1),
            helper.make_node("AveragePool", ["mean"], ["pooled"], kernel_shape=[pool], strides=[pool]),
            helper.make_node("Mul", ["pooled", "spread"], ["wide"]),
            helper.make_node("Abs", ["wide"], ["positive"]),
            helper.make_node("Mod", ["positive", "ids"], ["bounded"], fmod=1),
            helper.make_node("Cast", ["bounded"], ["whole"], to=TensorProto.INT32),
            # onnxruntime drops an input that nothing uses
            helper.make_node("Mul", ["feats_length", "zero"], ["unused"]),
            helper.make_node("Add", ["whole", "unused"], ["also"]),
            helper.make_node("Add", ["also", "first"], ["indices"]),
        ],
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, 128, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        helper.make_tensor_value_info("indices", TensorProto.INT32, [1, 1, "N"]),
        [
            constant("bands", np.array([1], "int64")),
            constant("spread", np.array([997.0], "float32")),
            constant("ids", np.array([float(size.codebook - size.tokens)], "float32")),
            constant("zero", np.array([0], "int32")),
            constant("first", np.array([size.tokens], "int32")),
        ],
    )


# The configurations hold what upstream's published ones hold, without what only training reads.

_SAMPLING = """\
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
        top_k: 25
        win_size: 10
        tau_r: 0.1
"""
_ENCODER = """\
        dropout_rate: 0.0
        positional_dropout_rate: 0.0
        attention_dropout_rate: 0.0
        pos_enc_layer_type: rel_pos_espnet
        selfattention_layer_type: rel_selfattn
"""


def _flow_matching(kind: str, estimator: str) -> str:
    return f"""\
    decoder: !new:cosyvoice.flow.flow_matching.{kind}
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1.0e-06
                solver: euler
                t_scheduler: cosine
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
                reg_loss_type: l1
        estimator: !new:cosyvoice.flow.{estimator}
            out_channels: 80
"""


def _unet(size: Size, channels: int) -> str:
    return f"""\
            in_channels: 320
            channels: {[size.estimator_width] * channels}
            dropout: 0.0
            attention_head_dim: {size.estimator_head}
            n_blocks: {size.estimator_blocks}
            num_mid_blocks: {size.estimator_layers}
            num_heads: {size.estimator_heads}
            act_fn: gelu
"""


_CHUNKS = """\
            static_chunk_size: 50
            num_decoding_left_chunks: -1
"""


def _vocoder(size: Size, rates: list[int], kernels: list[int], source: list[int], causal: bool) -> str:
    kind = "Causal" if causal else ""
    dilations = [[1, 3, 5]]
    return f"""\
hift: !new:cosyvoice.hifigan.generator.{kind}HiFTGenerator
    in_channels: 80
    base_channels: {size.vocoder}
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: {rates}
    upsample_kernel_sizes: {kernels}
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: {list(size.vocoder_kernels)}
    resblock_dilation_sizes: {dilations * len(size.vocoder_kernels)}
    source_resblock_kernel_sizes: {source}
    source_resblock_dilation_sizes: {dilations * len(source)}
    lrelu_slope: 0.1
    audio_limit: 0.99
{"    conv_pre_look_right: 4" if causal else ""}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.{kind}ConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: {size.vocoder}
"""


def _features(window: int, hop: int, highest: str) -> str:
    return f"""\
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: {window}
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: {hop}
    win_size: {window}
    fmin: 0
    fmax: {highest}
    center: False
allowed_special: all
"""


def _yaml_1(size: Size) -> str:
    encoder = f"""\
{_ENCODER}\
        normalize_before: True
        input_layer: linear
        use_cnn_module: False
        macaron_style: False
"""
    return f"""\
sample_rate: 22050
llm: !new:cosyvoice.llm.llm.TransformerLM
    text_encoder_input_size: {size.hidden // 2}
    llm_input_size: {size.hidden}
    llm_output_size: {size.hidden}
    text_token_size: {size.vocabulary or 51_866}
    speech_token_size: {size.codebook}
    length_normalized_loss: True
    lsm_weight: 0
    spk_embed_dim: {_EMBEDDING}
    text_encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        input_size: {size.hidden // 2}
        output_size: {size.hidden}
        attention_heads: {size.heads}
        linear_units: {size.inner}
        num_blocks: {size.text_layers}
{encoder}\
        use_dynamic_chunk: False
        use_dynamic_left_chunk: False
        static_chunk_size: 1
    llm: !new:cosyvoice.transformer.encoder.TransformerEncoder
        input_size: {size.hidden}
        output_size: {size.hidden}
        attention_heads: {size.heads}
        linear_units: {size.inner}
        num_blocks: {size.layers}
        input_layer: linear_legacy
{_ENCODER}\
        static_chunk_size: 1
{_SAMPLING}
flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: {size.flow_width}
    output_size: 80
    spk_embed_dim: {_EMBEDDING}
    output_type: mel
    vocab_size: {size.codebook}
    input_frame_rate: 50
    only_mask_loss: True
    encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        input_size: {size.flow_width}
        output_size: {size.flow_width}
        attention_heads: {size.flow_heads}
        linear_units: {size.flow_inner}
        num_blocks: {size.flow_layers}
{encoder}\
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: 80
        sampling_ratios: [1, 1, 1, 1]
{_flow_matching("ConditionalCFM", "decoder.ConditionalDecoder")}\
{_unet(size, channels=2)}
{_vocoder(size, [8, 8], [16, 16], [7, 11], causal=False)}
get_tokenizer: !name:whisper.tokenizer.get_tokenizer
    multilingual: True
    num_languages: 100
    language: en
    task: transcribe
{_features(1024, 256, "8000")}"""


def _language_model(kind: str, size: Size) -> str:
    return f"""\
sample_rate: 24000
qwen_pretrain_path: ''
llm: !new:cosyvoice.llm.llm.{kind}
    llm_input_size: {size.hidden}
    llm_output_size: {size.hidden}
    speech_token_size: {size.codebook}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
{_SAMPLING}"""


def _yaml_2(size: Size) -> str:
    return f"""\
{_language_model("Qwen2LM", size)}
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: 512
    output_size: 80
    spk_embed_dim: {_EMBEDDING}
    output_type: mel
    vocab_size: {size.codebook}
    input_frame_rate: 25
    only_mask_loss: True
    token_mel_ratio: 2
    pre_lookahead_len: 3
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        input_size: 512
        output_size: 512
        attention_heads: {size.flow_heads}
        linear_units: {size.flow_inner}
        num_blocks: {size.flow_layers}
        normalize_before: True
        input_layer: linear
        use_cnn_module: False
        macaron_style: False
        static_chunk_size: 25
{_ENCODER}\
{_flow_matching("CausalConditionalCFM", "decoder.CausalConditionalDecoder")}\
{_unet(size, channels=1)}\
{_CHUNKS}
{_vocoder(size, [8, 5, 3], [16, 11, 7], [7, 7, 11], causal=False)}
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
{_features(1920, 480, "8000")}"""


def _yaml_3(size: Size) -> str:
    return f"""\
{_language_model("CosyVoice3LM", size)}
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    input_size: 80
    output_size: 80
    spk_embed_dim: {_EMBEDDING}
    output_type: mel
    vocab_size: {size.codebook}
    input_frame_rate: 25
    only_mask_loss: True
    token_mel_ratio: 2
    pre_lookahead_len: 3
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: 80
        channels: {size.lookahead}
        pre_lookahead_len: 3
{_flow_matching("CausalConditionalCFM", "DiT.dit.DiT")}\
            dim: {size.estimator_width}
            depth: {size.estimator_layers}
            heads: {size.estimator_heads}
            dim_head: {size.estimator_head}
            ff_mult: 2
            mel_dim: 80
            mu_dim: 80
            spk_dim: 80
{_CHUNKS}
{_vocoder(size, [8, 5, 3], [16, 11, 7], [7, 7, 11], causal=True)}
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
    version: cosyvoice3
{_features(1920, 480, "null")}"""


_YAML = {"cosyvoice": _yaml_1, "cosyvoice2": _yaml_2, "cosyvoice3": _yaml_3}
