"""`voxgate say | transcribe | talk`: what they take, and which module does it."""

import argparse

DEFAULT = "http://127.0.0.1:9090"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    say = commands.add_parser("say", help="speak a text: to the loudspeaker, or to a WAV file with -o")
    say.add_argument("text")
    say.add_argument("--voice", default="default", help="a preset's name, or the id of a registered voice")
    say.add_argument("--device-id", default="", help="whose voice that is")
    say.add_argument("--speed", type=float, default=1.0)
    transcribe = commands.add_parser("transcribe", help="print what is said in recordings")
    transcribe.add_argument("files", nargs="+", metavar="FILE")
    talk = commands.add_parser("talk", help="a conversation: through the microphone, or each FILE a turn")
    talk.add_argument("files", nargs="*", metavar="FILE")
    talk.add_argument("--voice", default="", help="a preset's name")
    talk.add_argument("--resume", default="", help="token of an earlier conversation")
    talk.add_argument(
        "--hands-free",
        action="store_true",
        help="let the gateway tell when a turn of a file ends (as with a microphone)",
    )
    for parser in (say, transcribe, talk):
        parser.add_argument("--url", default=DEFAULT, help=f"where the gateway is [{DEFAULT}]")
        parser.add_argument("--wait", type=float, default=600.0, help="seconds to wait for its engines [600]")
    for parser in (transcribe, talk):
        parser.add_argument("--language", default="", help='what is spoken, such as "en" or "中文"')
    for parser in (say, talk):
        parser.add_argument("-o", "--output", metavar="WAV", default="", help="write here what is said, play nothing")


COMMANDS = ("say", "transcribe", "talk")


def run(command: str, asked: argparse.Namespace) -> int:
    """Exit status. Raises Stopped."""
    from gateway.cli import say, talk, transcribe  # what they need takes time to import

    works = {"say": say.main, "transcribe": transcribe.main, "talk": talk.main}
    try:
        return works[command](asked)
    except KeyboardInterrupt:
        return 130
