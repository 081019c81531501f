"""Settings: where each one comes from, and what the operator reads when one is wrong."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import (
    SECRETS,
    Settings,
    SettingsError,
    add_flags,
    arguments_of,
    env_example,
    load,
    secrets_of,
)

ROOT = Path(__file__).resolve().parents[1]


def refusal(flags: dict[str, Any] | None = None, **environment: str) -> str:
    """The line that an operator reads."""
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environment)
    line = str(caught.value)
    assert "\n" not in line
    return line


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "voxgate.toml"
    path.write_text(text)
    return str(path)


class TestOrder:
    def test_without_anything_there_are_the_defaults(self) -> None:
        assert load({}, {}) == Settings()
        assert (Settings().port, Settings().avatar_port) == (9090, 8383)

    def test_the_file_wins_over_the_defaults(self, tmp_path: Path) -> None:
        assert load({"config": file(tmp_path, "port = 1")}, {}).port == 1

    def test_the_environment_wins_over_the_file(self, tmp_path: Path) -> None:
        assert load({"config": file(tmp_path, "port = 1")}, {"VOXGATE_PORT": "2"}).port == 2

    def test_the_command_line_wins_over_all(self, tmp_path: Path) -> None:
        assert load({"config": file(tmp_path, "port = 1"), "port": "3"}, {"VOXGATE_PORT": "2"}).port == 3

    def test_each_setting_is_looked_up_by_itself(self, tmp_path: Path) -> None:
        config = file(tmp_path, "port = 1\nspeak_slots = 7\ntranscribe_slots = 8")
        found = load({"port": "3"}, {"VOXGATE_CONFIG": config, "VOXGATE_SPEAK_SLOTS": "2"})
        assert (found.port, found.speak_slots, found.transcribe_slots) == (3, 2, 8)

    def test_the_command_line_names_the_file_before_the_environment_does(self, tmp_path: Path) -> None:
        found = load({"config": file(tmp_path, "port = 1")}, {"VOXGATE_CONFIG": "/nonexistent"})
        assert found.port == 1

    def test_an_empty_variable_is_not_set(self) -> None:
        assert load({}, {"VOXGATE_PORT": "", "VOXGATE_SPEAK_URLS": ""}) == Settings()

    def test_what_others_put_into_the_environment_does_not_matter(self) -> None:
        assert load({}, {"PORT": "1", "voxgate_port": "2", "MY_VOXGATE_PORT": "3"}) == Settings()


class TestValues:
    def test_lists_are_separated_by_commas(self) -> None:
        found = load({}, {"VOXGATE_SPEAK_URLS": "http://a:1, http://b:2/x,", "VOXGATE_PRESETS": "Ann,中文女"})
        assert found.speak_urls == ("http://a:1", "http://b:2/x")
        assert found.presets == ("Ann", "中文女")

    @pytest.mark.parametrize("url", ["http://a", "https://a.b:443/", "http://[::1]:50000/tts", "http://10.0.0.1:1"])
    def test_an_engine_may_be_anywhere(self, url: str) -> None:
        assert load({}, {"VOXGATE_TRANSCRIBE_URLS": url}).transcribe_urls == (url,)

    def test_a_file_may_write_them_as_lists(self, tmp_path: Path) -> None:
        found = load({"config": file(tmp_path, 'presets = ["中文女"]\nspeak_urls = ["http://a:1"]')}, {})
        assert (found.presets, found.speak_urls) == (("中文女",), ("http://a:1",))

    def test_uploads_lie_in_the_data_folder_unless_told_otherwise(self) -> None:
        assert load({}, {"VOXGATE_DATA_DIR": "/d"}).scratch == Path("/d/scratch")
        assert load({}, {"VOXGATE_SCRATCH_DIR": "/s"}).scratch == Path("/s")

    def test_settings_do_not_change(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Settings().port = 1  # type: ignore[misc]


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PORT", "x"),
            ("PORT", "65536"),
            ("PORT", "-1"),
            ("SPEAK_SLOTS", "0"),
            ("SPEAK_QUEUE", "-1"),
            ("HEALTH_INTERVAL", "0"),
            ("HEALTH_INTERVAL", "nan"),
            ("ENGINE_TOTAL_TIMEOUT", "inf"),
            ("SPEAK_URLS", "localhost:50000"),
            ("SPEAK_URLS", "ftp://a"),
            ("SPEAK_URLS", "http://a,b"),
            ("SPEAK_URLS", "http://a?x=1"),
            ("SPEAK_URLS", "http://a:99999"),
            ("SPEAK_URLS", "http://a:b"),
            ("SPEAK_URLS", "http://me:secret@a"),
            ("SPEAK_URLS", ","),
            ("SPEAK_SAMPLE_RATE", "7999"),
            ("CHAT_URL", "http://me:secret@a/v1"),
            ("CHAT_URL", "http://a:99999/v1"),
            ("CHAT_URL", "a/v1"),
            ("LOG_LEVEL", "loud"),
            ("UPLOAD_MAX_BYTES", "1.5"),
        ],
    )
    def test_a_wrong_value_is_one_line_that_names_its_variable(self, name: str, value: str) -> None:
        line = refusal(**{f"VOXGATE_{name}": value})
        assert line.startswith(f"VOXGATE_{name}: ")

    def test_the_line_shows_what_was_written(self) -> None:
        assert refusal(VOXGATE_PORT="nine\nthousand").endswith(r"got 'nine\nthousand'")

    def test_a_wrong_flag_is_named_as_one(self) -> None:
        assert refusal({"port": "x"}, VOXGATE_PORT="1").startswith("port: ")

    def test_a_wrong_value_of_a_file_is_named(self, tmp_path: Path) -> None:
        assert refusal({"config": file(tmp_path, 'port = "x"')}).startswith("port: ")

    def test_an_unknown_variable_is_named(self) -> None:
        assert refusal(VOXGATE_PROT="1") == "unknown setting: VOXGATE_PROT"

    def test_an_unknown_name_in_a_file_is_named_with_the_file(self, tmp_path: Path) -> None:
        config = file(tmp_path, "prot = 1")
        assert refusal({"config": config}) == f"config file {config}: unknown setting: prot"

    def test_an_unknown_flag_is_named(self) -> None:
        assert refusal({"prot": "1"}) == "unknown setting: prot"

    @pytest.mark.parametrize("text", ["port", "port = ", "[port", "\x00", "port = 1\nport = 2"])
    def test_a_file_that_is_not_toml_is_named(self, tmp_path: Path, text: str) -> None:
        config = file(tmp_path, text)
        assert refusal({"config": config}).startswith(f"config file {config}: ")

    def test_a_file_that_is_not_utf8_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "voxgate.toml").write_bytes(b'host = "\xff"')
        assert "voxgate.toml: " in refusal({"config": str(tmp_path / "voxgate.toml")})

    def test_a_file_that_is_not_there_is_named(self) -> None:
        assert refusal({}, VOXGATE_CONFIG="/nonexistent/x.toml").startswith("config file /nonexistent/x.toml: ")


class TestFlags:
    def parsed(self, *arguments: str) -> dict[str, Any]:
        parser = argparse.ArgumentParser()
        add_flags(parser)
        return vars(parser.parse_args(arguments))

    def test_every_setting_has_a_flag(self) -> None:
        for name in Settings.model_fields:
            assert self.parsed(f"--{name.replace('_', '-')}", "x")[name] == "x"

    def test_flags_not_given_say_nothing(self) -> None:
        assert self.parsed() == {"config": None}

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"port": "0", "speak_urls": "http://a:1,http://b:2"},
            {"presets": "", "cors_origins": "", "ffmpeg": ""},
            {"data_dir": "/a b/c", "health_interval": "0.25", "log_level": "debug"},
            {"speak_sample_rate": "22050", "scratch_dir": "/s"},
            {"chat_url": "http://a:1/v1", "chat_key": "sk-hidden"},
        ],
    )  # fmt: skip
    def test_flags_and_variables_for_another_process_give_it_the_same_settings(self, given: dict[str, str]) -> None:
        settings = load(given, {})
        assert load(self.parsed(*arguments_of(settings)), secrets_of(settings)) == settings


class TestSecrets:
    def test_they_are_no_part_of_a_command_line(self) -> None:
        assert {"chat_key", "database_url", "webhook_secret"} == SECRETS
        settings = load({}, {"VOXGATE_CHAT_KEY": "sk-hidden", "VOXGATE_PORT": "1"})
        assert not [part for part in arguments_of(settings) if "sk-hidden" in part or "chat-key" in part]
        assert secrets_of(settings) == {"VOXGATE_CHAT_KEY": "sk-hidden"}

    def test_they_are_not_shown(self) -> None:
        assert "sk-hidden" not in repr(load({"chat_key": "sk-hidden"}, {}))

    @pytest.mark.parametrize("key", ["sk hidden", "sk\r\nhidden: 1", "sk-hiddén", "hidden\x00"])
    def test_a_wrong_one_is_refused_without_being_shown(self, key: str) -> None:
        line = refusal(VOXGATE_CHAT_KEY=key)
        assert line.startswith("VOXGATE_CHAT_KEY: ")
        assert "hidd" not in line

    def test_a_wrong_one_of_a_file_is_not_shown_either(self, tmp_path: Path) -> None:
        assert "4711" not in refusal({"config": file(tmp_path, "chat_key = 4711")})


class TestExample:
    def test_the_example_in_deploy_is_the_printed_one(self) -> None:
        """`make env > deploy/env.example` renews it."""
        assert (ROOT / "deploy" / "env.example").read_text() == env_example()

    def test_every_setting_is_in_it_with_words_of_its_own(self) -> None:
        for name, field in Settings.model_fields.items():
            assert f"#VOXGATE_{name.upper()}=" in env_example()
            assert field.description, name

    def test_the_example_uncommented_is_the_defaults(self) -> None:
        lines = (line.removeprefix("#") for line in env_example().splitlines() if line.startswith("#VOXGATE_"))
        assert load({}, dict(line.split("=", 1) for line in lines)) == Settings()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"VOXGATE_DEFAULT_VOICE": "nonesuch"}, "default_voice 'nonesuch' is not one of presets"),
        ({"VOXGATE_REFERENCE_KEEP_SECONDS": "0.5"}, "reference_keep_seconds is less than"),
    ],
)
def test_settings_that_do_not_agree_stop_the_start(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load({}, environment)


class TestOpenAiVoices:
    def test_each_of_openai_s_stands_for_a_preset(self) -> None:
        found = Settings().openai_presets
        names = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar"
        assert set(found) == set(names.split())
        assert set(found.values()) <= set(Settings().presets)

    def test_a_preset_that_there_is_not_is_the_default_one(self) -> None:
        found = load(environment={"VOXGATE_PRESETS": "英文女,Tom", "VOXGATE_DEFAULT_VOICE": "Tom"}).openai_presets
        assert (found["nova"], found["alloy"]) == ("英文女", "Tom")

    def test_they_can_be_chosen(self) -> None:
        assert load(environment={"VOXGATE_OPENAI_VOICES": "sky = 英文女,alloy=日语男"}).openai_presets == {
            "sky": "英文女",
            "alloy": "日语男",
        }

    @pytest.mark.parametrize("value", ["alloy", "alloy=", "=中文女", "alloy=Nobody", "a=b=c"])
    def test_one_that_cannot_be_is_refused(self, value: str) -> None:
        with pytest.raises(SettingsError, match="openai_voices|OPENAI_VOICES"):
            load(environment={"VOXGATE_OPENAI_VOICES": value})

    def test_alibabas_are_chosen_in_the_same_way(self) -> None:
        assert set(Settings().nls_presets.values()) <= set(Settings().presets)
        assert load(environment={"VOXGATE_NLS_VOICES": "xiaoyun=英文女"}).nls_presets == {"xiaoyun": "英文女"}
        with pytest.raises(SettingsError, match="nls_voices|NLS_VOICES"):
            load(environment={"VOXGATE_NLS_VOICES": "xiaoyun=Nobody"})
