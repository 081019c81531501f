"""Each fault of upstream's, as it is and as it is patched."""

from pathlib import Path

import pytest

from tests.patches.conftest import START, Outcomes, run

pytestmark = pytest.mark.engine

HUNG = {"hung": True}
FAILED = {"raised": "MemoryError: of the device"}


class TestStateOfARequest:
    """own_state.py"""

    def test_a_streamed_request_changes_nothing_for_those_after_and_beside_it(
        self, upstream: Outcomes, patched: Outcomes
    ) -> None:
        first, second, *_ = upstream["streamed_requests"]
        assert len(first) == 3 and len(second) == 1, "since f26cde5"
        assert patched["streamed_requests"] == [first] * 4

    def test_a_request_whose_consumer_leaves_leaves_nothing_and_stops(
        self, upstream: Outcomes, patched: Outcomes
    ) -> None:
        assert upstream["closed_request"] == [1, 1]
        assert patched["closed_request"] == [0, 0]

    def test_a_request_that_the_vocoder_breaks_stops_its_language_model(
        self, upstream: Outcomes, patched: Outcomes
    ) -> None:
        assert upstream["error_of_the_vocoder"] == ["of the device", 1]
        assert patched["error_of_the_vocoder"] == ["of the device", 0]


class TestErrorsOfTheLanguageModel:
    """llm_errors.py"""

    def test_a_streamed_request_ends_with_it(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert upstream["error_while_streaming"] == HUNG
        assert patched["error_while_streaming"] == FAILED

    def test_half_of_a_speech_is_not_taken_for_all_of_it(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert upstream["error_without_streaming"] == [60 * 960], "60 tokens"
        assert patched["error_without_streaming"] == FAILED


class TestEndOfSequence:
    """end_of_sequence.py"""

    def test_an_utterance_does_not_end_at_its_first_token(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert "Kernel size can't be greater" in upstream["early_end_of_sequence"]["raised"]
        assert patched["early_end_of_sequence"] == [[2 * len("A short sentence.") * 960], [2 * 2 * 960]]

    def test_a_text_in_pieces_does_not_break_off(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert upstream["early_end_of_sequence_of_a_text_in_pieces"] == HUNG
        assert patched["early_end_of_sequence_of_a_text_in_pieces"] > 20_000


class TestPromptAudio:
    """prompt_audio.py"""

    @pytest.mark.parametrize("fault", ["tensor_of_a_server", "tensor_of_other_making"])
    def test_upstreams_own_servers_can_hand_over_what_they_read(
        self, upstream: Outcomes, patched: Outcomes, fault: str
    ) -> None:
        assert upstream[fault]["raised"].startswith("TypeError: Invalid file: tensor(")
        assert patched[fault] == 1

    def test_what_a_server_read_keeps_the_quality_of_its_file(self, patched: Outcomes) -> None:
        assert patched["quality_of_a_tensor"] is True

    def test_a_file_may_go_once_a_request_has_begun(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert "gone.wav" in upstream["file_that_is_gone"]["raised"]
        assert patched["file_that_is_gone"] == 1

    def test_an_open_file_is_read_once_and_from_its_start(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert "Format not recognised" in upstream["open_file"]["raised"]
        assert patched["open_file"] is True

    def test_the_lowest_sample_rate_stays_and_is_named(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert (
            upstream["low_sample_rate"]["raised"] == "AssertionError: wav sample rate 8000 must be greater than 24000"
        )
        assert patched["low_sample_rate"]["raised"].endswith("is 8000; it must be at least 16000")


def test_the_first_version_hears_the_prompt_at_its_own_rate(upstream: Outcomes, patched: Outcomes) -> None:
    """prompt_mel_rate.py"""
    assert upstream["frames_of_the_first_version"] == 3 * 24_000 // 256
    assert patched["frames_of_the_first_version"] == 3 * 22_050 // 256


def test_two_versions_work_in_one_process(upstream: Outcomes, patched: Outcomes) -> None:
    """mel_tables.py"""
    assert upstream["two_versions_in_a_process"]["raised"].startswith("RuntimeError: stft")
    assert patched["two_versions_in_a_process"] == [3 * 50, 3 * 22_050 // 256]


class TestEndOfPrompt:
    """end_of_prompt.py"""

    def test_the_third_version_needs_no_marker_of_its_callers(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert "raised" in upstream["third_without_marker"]
        assert patched["third_without_marker"] == [True] * 6

    def test_a_long_text_is_split_before_it_is_marked(self, patched: Outcomes) -> None:
        assert patched["third_with_a_long_text"] > 1

    def test_the_marker_stands_once_where_each_version_needs_it(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert upstream["markers"][:5] == ["Slowly."] * 5
        assert patched["markers"][:5] == [
            "Slowly.<|endofprompt|>",
            "Slowly.<|endofprompt|>",
            "You are a helpful assistant. Slowly.<|endofprompt|>",
            "You are a helpful assistant.<|endofprompt|>Slowly.",
            "Slowly.",
        ]
        assert patched["markers"][5:] == upstream["markers"][5:] == ["Slowly.<|endofprompt|>"] * 5


def test_a_language_tag_is_for_the_first_version_alone(upstream: Outcomes, patched: Outcomes) -> None:
    """language_tag.py"""
    assert upstream["language_tags"] == [[1, "<|en|>Th"]] * 3
    assert patched["language_tags"] == [[1, "<|en|>Th"], [4, "This sen"], [4, "This sen"]]


def test_a_stream_looks_for_tokens_as_often_as_they_come(upstream: Outcomes, patched: Outcomes) -> None:
    """poll.py"""
    assert (upstream["pause_between_looks"], patched["pause_between_looks"]) == (False, True)


class TestLogs:
    """quiet_text.py"""

    def test_no_text_is_logged(self, upstream: Outcomes, patched: Outcomes) -> None:
        assert upstream["logged_text"] == [True, 10, True]
        assert patched["logged_text"] == [False, 20, True]

    def test_nothing_draws_a_bar(self, outcomes: object, folder: Path) -> None:
        assert "it/s" in (folder / "upstream.log").read_text()
        assert "it/s" not in (folder / "patched.log").read_text()
        assert "recording's own words" not in (folder / "patched.log").read_text()


class TestWhatOnlyTrainingUses:
    """training_only.py"""

    WANTED = "import matcha.models.components.flow_matching, matcha.hifigan.models, cosyvoice.dataset.processor"

    def test_a_model_can_be_loaded_without_it(self, cosyvoice_source: Path) -> None:
        run(["-c", self.WANTED], cosyvoice_source, START)

    def test_without_matcha_the_error_says_what_to_do(self, cosyvoice_source: Path) -> None:
        script = (
            "import importlib.machinery as m\n"
            "real = m.PathFinder.find_spec\n"
            "m.PathFinder.find_spec = lambda name, *more: None if name == 'matcha' else real(name, *more)\n"
            "try: import cosyvoice.cli.cosyvoice\n"
            "except ModuleNotFoundError as exc: print(exc)\n"
        )
        assert "pip install --no-deps matcha-tts==0.0.7.2" in run(["-c", script], cosyvoice_source, START)
