"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/cosyvoice.py::CosyVoice.inference_*, cosyvoice/utils/file_utils.py
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       every sentence that is spoken is logged at INFO, and short ones at WARNING together with what was said in
              the recording; importing upstream sets the whole process to DEBUG; and each request draws a progress bar
Sent:         not sent, because upstream's servers are meant as examples
Remove when:  upstream logs no text
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import ModuleType

from patches.guard import check

TARGETS = ("cosyvoice.utils.file_utils", "cosyvoice.cli.cosyvoice")
READ_AGAINST = {
    "CosyVoice.inference_sft": "5a2688297aa048126d9cc9095a2bbb56f2a01aa5a2c89d36c0e2a37fefad9a15",
    "CosyVoice.inference_zero_shot": "13533f26c3e7f6557eaf3223e2bed68f8e172855e9f2f6759b7d538ea162934d",
    "CosyVoice.inference_cross_lingual": "24c5b77f6207067e02df2059274dcf85668df1fdbdf02705d10a35000c94dc50",
    "CosyVoice.inference_instruct": "a9225b06e3568caa77dc0ae59fc4a455aa23c1c1f86d3297df8c042661934cd2",
    "CosyVoice2.inference_instruct2": "51e5bc2a0cab266940fa7e0b8385c39deff27f8138c059015530c8f540d013d7",
}
_TEXT = "synthesis text "
_SHORT = " too short than prompt text "


def apply(module: ModuleType) -> None:
    if module.__name__ == "cosyvoice.utils.file_utils":
        root = logging.getLogger()
        root.setLevel(max(root.level, logging.INFO))
        return
    check(module, READ_AGAINST, __file__)
    logger = logging.getLogger(module.__name__)
    logger.addFilter(_without_text)
    module.logging = logger  # type: ignore[attr-defined]
    module.tqdm = _without_bar  # type: ignore[attr-defined]


def _without_text(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if not message.startswith(_TEXT):
        return True
    record.msg, record.args = "the text is much shorter than the prompt's, which may sound bad", ()
    return _SHORT in message


def _without_bar(pieces: Iterable[str]) -> Iterable[str]:
    return pieces
