"""`voxgate say | transcribe | talk | keys`: what they take, and which module does it."""

import argparse

from gateway.settings import client_key

DEFAULT = "http://127.0.0.1:9090"
_SCOPES = "speak,transcribe,converse,animate"


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
        parser.add_argument("--key", default="", help="where it asks for one; better in VOXGATE_KEY")
        parser.add_argument("--wait", type=float, default=600.0, help="seconds to wait for its engines [600]")
    for parser in (transcribe, talk):
        parser.add_argument("--language", default="", help='what is spoken, such as "en" or "中文"')
    for parser in (say, talk):
        parser.add_argument("-o", "--output", metavar="WAV", default="", help="write here what is said, play nothing")


def add_key_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    works = commands.add_parser("keys", help="make, list and revoke keys").add_subparsers(dest="work", required=True)
    create = works.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("name", nargs="?", default="", help="for people: whose it is")
    create.add_argument("--tenant", default="", help="whose voices and chats its bearer sees; keys may share one")
    create.add_argument("--scopes", default=_SCOPES, metavar="…", help=f"of {_SCOPES},admin [all but admin]")
    create.add_argument("--rate", type=int, metavar="N", help="requests in a minute")
    create.add_argument("--sessions", type=int, metavar="N", help="requests and connections at a time")
    create.add_argument("--day", type=float, metavar="SECONDS", help="of audio in a day, UTC")
    create.add_argument("--month", type=float, metavar="SECONDS", help="of audio in a calendar month, UTC")
    create.add_argument("--expires", metavar="WHEN", help="such as 90d, 12h or 2030-01-31 (UTC)")
    create.add_argument("--appkey", default="", help="what NLS clients must send beside it (FunSpeech's APPKEY)")
    create.add_argument(
        "--token", default="", help="a key of your own, such as FunSpeech's APPTOKEN; - reads it from standard input"
    )
    listed = works.add_parser("list", help="show all keys and what was used, but not the keys themselves")
    revoke = works.add_parser("revoke", help="end keys for good; running gateways follow within seconds")
    revoke.add_argument("ids", nargs="+", metavar="ID")
    for parser in (create, listed, revoke):
        parser.add_argument("--data-dir", default=argparse.SUPPRESS, metavar="…", help="the gateway's [data]")
        parser.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="the gateway's TOML file")
        parser.add_argument("--json", action="store_true", help="for programs")


COMMANDS = ("say", "transcribe", "talk")


def run(command: str, asked: argparse.Namespace) -> int:
    """Exit status. Raises Stopped."""
    from gateway.cli import say, talk, transcribe  # what they need takes time to import

    asked.key = asked.key or client_key()
    works = {"say": say.main, "transcribe": transcribe.main, "talk": talk.main}
    try:
        return works[command](asked)
    except KeyboardInterrupt:
        return 130
