"""The items of one Realtime conversation, in order; and what of them a reply is made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway import memory, tokens
from gateway.memory import UNANSWERED, Call, Message, Role
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_items import Item, Kind

_HALF_MILLISECOND = 0.0005
"""Clients count in whole ones."""
MOST_ITEMS, MOST_CHARACTERS = 1000, 1_000_000
"""Of one conversation; the oldest go first."""


@dataclass(slots=True)
class Timeline:
    """When the words of a reply sound: how many of its characters were said before some of its seconds."""

    marks: list[tuple[float, int]] = field(default_factory=list)
    seconds: float = 0.0
    letters: int = 0

    def mark(self) -> None:
        """A sentence begins here."""
        self.marks.append((self.seconds, self.letters))

    def heard(self, text: str, seconds: float) -> str:
        """What of `text`, the reply's, was said by then: whole words."""
        seconds += _HALF_MILLISECOND
        begin, end = (0.0, 0), (self.seconds, self.letters)
        for mark in self.marks:
            begin, end = (mark, end) if mark[0] <= seconds else (begin, min(end, mark))
        part = min(1.0, (seconds - begin[0]) / (end[0] - begin[0])) if end[0] > begin[0] else 1.0
        return _whole_words(text, begin[1] + int(part * (end[1] - begin[1])))


class Items:
    """Who deletes an item that a reply still writes to keeps it from everybody but the reply."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.timelines: dict[str, Timeline] = {}
        """Of spoken replies."""

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last(self) -> str | None:
        return self._items[-1].id if self._items else None

    def get(self, id: str, to: str) -> Item:  # noqa: A002
        """to: what it is wanted for, a word of the error's code. Raises Wrong."""
        found = next((one for one in self._items if one.id == id), None)
        if found is None:
            raise Wrong(f"Error: item with id '{id}' does not exist.", f"item_{to}_invalid_item_id", "item_id")
        return found

    def add(self, item: Item, previous: str | None = None) -> str | None:
        """Behind `previous`: "root" is the beginning, None the end. Gives the id of the one before it. Raises Wrong."""
        if any(one.id == item.id for one in self._items):
            raise Wrong(f"Item with id '{item.id}' exists already.", "item_exists", "item.id")
        place = len(self._items) if previous is None else 0
        if previous not in (None, "root"):
            place = self._items.index(self.get(previous or "", "create")) + 1
        self._items.insert(place, item)
        before = self._items[place - 1].id if place else None
        self._forget_old()
        return before

    def before(self, item: Item) -> str | None:
        """The id of the one before it; None where there is none, or it is not here any more."""
        place = next((at for at, one in enumerate(self._items) if one is item), 0)
        return self._items[place - 1].id if place else None

    def delete(self, item: Item) -> None:
        self._items.remove(item)
        self.timelines.pop(item.id, None)

    # Private

    def _forget_old(self) -> None:
        while len(self._items) > 1 and (
            len(self._items) > MOST_ITEMS or sum(map(_characters, self._items)) > MOST_CHARACTERS
        ):
            self.delete(self._items[0])


def newest(items: Sequence[Item], questions: int) -> list[Item]:
    """Those that a reply is made from: the newest questions with all that came of them, as memory.latest has it for
    messages. What the system says stays."""
    kept = [item for item in items if item.role == Role.SYSTEM]
    found, asked, characters, since = list[Item](), 0, sum(map(_characters, kept)), 0
    for item in reversed([item for item in items if item.role != Role.SYSTEM]):
        characters += _characters(item)
        if asked and (asked >= questions or characters > memory.MOST_CHARACTERS):
            break
        found.append(item)
        if item.kind is Kind.MESSAGE and item.role == Role.USER:
            asked, since = asked + 1, len(found)
    wanted = {id(item) for item in (*kept, *found[: since or len(found)])}
    return [item for item in items if id(item) in wanted]


def messages(items: Sequence[Item]) -> tuple[Message, ...]:
    """As chat models want them: what one side says is one message, and behind calls come all their results."""
    results = {item.call_id: item.output for item in items if item.kind is Kind.RESULT}
    found: list[Message] = []
    owed: list[Call] = []
    before = Kind.MESSAGE
    for item in items:
        if item.kind is Kind.MESSAGE or (item.kind is Kind.CALL and before is Kind.RESULT):
            _call(found, owed, results)
            owed = []
        if item.kind is Kind.CALL:
            owed.append(Call(item.call_id, item.name, item.arguments))
        elif item.kind is Kind.MESSAGE:
            _say(found, Role(item.role), item.text)
        before = item.kind
    _call(found, owed, results)
    return tuple(found)


def counted(items: Sequence[Item]) -> tuple[int, int]:
    """Tokens of text and of sound."""
    spoken = [item for item in items if item.seconds]
    written = sum(
        tokens.of_text(item.text) + tokens.of_text(item.name + " " + item.arguments) + tokens.of_text(item.output)
        for item in items
        if not item.seconds
    )
    return written, sum(tokens.of_heard(item.seconds) for item in spoken)


# Private


def _call(found: list[Message], calls: list[Call], results: dict[str, str]) -> None:
    """The calls, joined to what was said just before them, and their results."""
    if calls:
        text = found.pop().text if found and found[-1].role is Role.ASSISTANT and not found[-1].calls else ""
        found.append(Message(Role.ASSISTANT, text, tuple(calls)))
        found += [Message(Role.TOOL, results.get(call.id, UNANSWERED), call=call.id) for call in calls]


def _say(found: list[Message], role: Role, text: str) -> None:
    if not text:
        return
    if found and found[-1].role is role and not found[-1].calls:
        text = f"{found.pop().text}\n{text}"
    found.append(Message(role, text))


def _characters(item: Item) -> int:
    return len(item.text) + len(item.arguments) + len(item.output)


def _whole_words(text: str, letters: int) -> str:
    """At most so many letters of it; a word that is cut was not heard, where blanks part words."""
    if letters >= len(text):
        return text
    cut = text[:letters]
    if cut and _joined(cut[-1]) and _joined(text[letters]):
        cut = cut[: max((at + 1 for at, one in enumerate(cut) if not _joined(one)), default=0)]
    return cut.rstrip()


def _joined(letter: str) -> bool:
    """Whether it is of a word of several letters."""
    return (letter.isalnum() or letter in "'’") and not "\u3040" <= letter <= "\u9fff"
