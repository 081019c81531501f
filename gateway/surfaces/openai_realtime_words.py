"""What a Realtime client is told of an item that it has said: that it is one, and its words."""

from gateway.errors import GatewayError
from gateway.surfaces.openai_realtime_items import Items
from gateway.surfaces.openai_realtime_line import Line
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_items import Content, Item, Part

_EVENT = "conversation.item.input_audio_transcription"


def commit_item(line: Line, items: Items, id: str, seconds: float) -> Item:  # noqa: A002
    """An item of the input buffer; its words are not known yet."""
    item = Item(id, content=[Content(Part.INPUT_AUDIO)], seconds=seconds)
    before = items.add(item)
    line.emit("input_audio_buffer.committed", previous_item_id=before, item_id=item.id)
    for kind in ("conversation.item.added", "conversation.item.done"):
        line.emit(kind, previous_item_id=before, item=item.shown(line.dialect))
    return item


def tell_delta(line: Line, item: str, text: str) -> None:
    if text:
        line.emit(f"{_EVENT}.delta", item_id=item, content_index=0, delta=text)


def tell_words(line: Line, item: Item, index: int) -> None:
    """They are known."""
    usage = {"type": "duration", "seconds": round(item.seconds, 3)}
    transcript = item.content[index].text
    line.emit(f"{_EVENT}.completed", item_id=item.id, content_index=index, transcript=transcript, usage=usage)


def tell_failure(line: Line, item: Item, index: int, error: GatewayError) -> None:
    """They will never be."""
    item.content[index].text = ""
    failure = wire.failure(error.status, error.code, str(error))
    line.emit(f"{_EVENT}.failed", item_id=item.id, content_index=index, error=failure)
