"""Lessons for tiny recognisers: six sentences, until they know them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.tiny.funasr_networks import front
from tests.tiny.speech import HELD_OUT, RATE, SENTENCES, Clip, say, silence, spoken

_TAUGHT = tuple((rate, pitch) for rate in (140, 155, 165, 175, 190) for pitch in (40, 50, 60))
_LOOK_AHEAD = 5
"""Frames of 60 ms, of FunASR's chunk_size [0, 10, 5]."""
_STEPS, _MORE_STEPS, _EXAMS = 500, 250, 6


def teach(loaded: Any, name: str, say_how: Callable[[str], None]) -> None:
    """loaded: FunASR's AutoModel of `name`. Half a minute on one core, or more. Raises RuntimeError."""
    import torch

    lesson = _LESSONS[name](loaded)
    ways = [(rate, pitch) for rate, pitch in _TAUGHT if (rate, pitch) not in HELD_OUT] * 3  # never the same twice
    clips = [(spoken(text, rate, pitch), text) for text in SENTENCES for rate, pitch in ways]
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    started = time.monotonic()
    for attempt in range(_EXAMS):
        loss = _learn(lesson, clips, _MORE_STEPS if attempt else _STEPS, random)
        wrong = lesson.wrong(
            [(_disturbed(say(text, *way), random), text) for text in SENTENCES for way in HELD_OUT * 3]
        )
        say_how(f"{name}: loss {loss:.3f}, {wrong} of {6 * len(SENTENCES)} wrong, {time.monotonic() - started:.0f} s")
        if not wrong:
            return
    raise RuntimeError(f"{name} did not learn its sentences")


# Private


def _learn(lesson: "_Lesson", clips: Sequence[tuple[Clip, str]], steps: int, random: np.random.Generator) -> float:
    import torch

    parameters = list(lesson.model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    lesson.model.train()
    for _ in range(steps):
        chosen = [clips[at] for at in random.choice(len(clips), 12, replace=False)]
        loss = lesson.loss([_disturbed(clip, random) for clip, _ in chosen], [text for _, text in chosen], random)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
    lesson.model.eval()
    return float(loss.item())


def _disturbed(clip: Clip, random: np.random.Generator) -> Clip:
    """A little off its ends, silence around it, another gain, and mostly, but not always, a little noise."""
    first, last = (int(random.uniform(0, 0.05) * RATE) for _ in range(2))
    around = [silence(random.uniform(0, 0.7)), clip[first : len(clip) - last], silence(random.uniform(0, 0.7))]
    samples = np.concatenate(around) * random.uniform(0.4, 1.2)
    noise = random.standard_normal(len(samples)) * 10 ** random.uniform(-5, -2.5)
    return np.asarray(samples + (random.random() > 0.4) * noise, np.float32)


class _Lesson:
    def __init__(self, loaded: Any) -> None:
        from funasr.frontends.wav_frontend import WavFrontend

        self._loaded = loaded
        self.model, self.tokenizer, self.tokens = loaded.model, loaded.kwargs["tokenizer"], loaded.kwargs["token_list"]
        self._front = WavFrontend(**front(7, 6))

    def features(self, clips: Sequence[Clip]) -> tuple[Any, Any]:
        import torch

        found = [self._front(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))[0][0] for clip in clips]
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), torch.tensor([len(each) for each in found])

    def loss(self, clips: Sequence[Clip], texts: Sequence[str], random: np.random.Generator) -> Any:
        raise NotImplementedError

    def wrong(self, exam: Sequence[tuple[Clip, str]]) -> int:
        """How many it does not hear as they were said."""
        return 0


class _SenseVoiceLesson(_Lesson):
    """Tags come back as they are asked for: the language, and whether numbers are to be written as figures."""

    def loss(self, clips: Sequence[Clip], texts: Sequence[str], random: np.random.Generator) -> Any:
        import torch
        from torch.nn import functional

        model, count = self.model, len(clips)
        speech, lengths = self.features(clips)
        asked, heard = (("auto", "zh"), ("zh", "zh"), ("en", "en"), ("ja", "ja"))[random.integers(4)]
        itn = ("withitn", "woitn")[random.integers(2)]
        queries = torch.tensor([[model.lid_dict[asked], 1, 2, model.textnorm_dict[itn]]])
        speech = torch.cat([model.embed(queries).repeat(count, 1, 1), speech], 1)
        encoded, lengths = model.encoder(speech, lengths + 4)
        scores = model.ctc.log_softmax(encoded)
        tags = torch.tensor([self._id(tag) for tag in (f"<|{heard}|>", "<|NEUTRAL|>", "<|Speech|>", f"<|{itn}|>")])
        words = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        counts = torch.tensor([len(each) for each in words])
        words_lost = functional.ctc_loss(
            scores[:, 4:].transpose(0, 1), torch.cat(words), lengths - 4, counts, 0, zero_infinity=True
        )
        return words_lost + functional.nll_loss(scores[:, :4].flatten(0, 1), tags.repeat(count))

    def wrong(self, exam: Sequence[tuple[Clip, str]]) -> int:
        heard = (self._loaded.generate(input=clip, language="zh")[0]["text"] for clip, _ in exam)
        return sum(not text.endswith(f">{wanted}") for text, (_, wanted) in zip(heard, exam, strict=True))

    def _id(self, tag: str) -> int:
        return int(self.tokenizer.encode(tag)[-1])


class _ParaformerLesson(_Lesson):
    """Live, it gets the first character wrong more often than not; so there is no exam."""

    def loss(self, clips: Sequence[Clip], texts: Sequence[str], random: np.random.Generator) -> Any:
        import torch

        speech, lengths = self.features(clips)
        # a live stream begins with the look-ahead of a chunk that never was
        speech, lengths = torch.nn.functional.pad(speech, (0, 0, _LOOK_AHEAD, 0)), lengths + _LOOK_AHEAD
        words = [torch.tensor([self.tokens.index(character) for character in text]) for text in texts]
        padded = torch.nn.utils.rnn.pad_sequence(words, batch_first=True, padding_value=-1)
        return self.model(speech, lengths, padded, torch.tensor([len(each) for each in words]))[0]


_LESSONS = {"sensevoice": _SenseVoiceLesson, "paraformer-streaming": _ParaformerLesson}
