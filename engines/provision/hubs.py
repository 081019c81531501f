"""The two hubs: what a model holds, by their own word, and where its files are.

ModelScope  GET /api/v1/models/{id}/repo/files?Revision=&Recursive=True
            {"Data": {"Files": [{"Path", "Type": "blob" | "tree", "Size", "Sha256"}]}}
            GET /api/v1/models/{id}/repo?Revision=&FilePath=
Hugging     GET /api/models/{id}/tree/{revision}?recursive=true, further pages by the Link header
Face        [{"path", "type": "file" | "directory", "size", "oid", "lfs": {"oid", "size"}}]
            GET /{id}/resolve/{revision}/{path}
The digests are theirs: SHA-256 of every file there, here of the large ones, and git's SHA-1 of the small ones.
"""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from engines.provision import web
from engines.provision.lock import HubName, Pin, Place
from engines.provision.refusal import ProvisionError
from engines.provision.web import Url
from engines.settings import Engines

_LISTING_BYTES = 16 * 2**20
_FILES = 2999
"""ModelScope cuts a listing at 3000 without a word; a model of ours has fewer than 50."""
_PAGES = 10
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="next"')


class Hub:
    """One hub, at the address and with the token that the settings give."""

    def __init__(self, name: HubName, settings: Engines) -> None:
        self.name = name
        self._endpoint = settings.modelscope_endpoint if name == "modelscope" else settings.hf_endpoint
        self._private = _private(name, settings)

    @property
    def host(self) -> str:
        return Url(self._endpoint).host

    def file(self, place: Place, path: str) -> Url:
        if self.name == "modelscope":
            query = urlencode({"Revision": place.revision, "FilePath": path})
            return self._url(f"/api/v1/models/{quote(place.id)}/repo?{query}")
        return self._url(f"/{quote(place.id)}/resolve/{quote(place.revision, safe='')}/{quote(path)}")

    def listing(self, place: Place) -> dict[str, Pin]:
        """Every file of the model by its path in it. Raises WebError or ProvisionError."""
        entries = self._modelscope(place) if self.name == "modelscope" else self._hugging_face(place)
        if len(entries) > _FILES:
            raise ProvisionError(f"{self.host} lists more files of {place.id} than a model has")
        return dict(_entry(self.host, entry) for entry in entries if entry.get("type", "") not in ("tree", "directory"))

    # Private

    def _modelscope(self, place: Place) -> list[dict[str, Any]]:
        query = urlencode({"Revision": place.revision, "Recursive": "True"})
        found, _ = self._get(f"/api/v1/models/{quote(place.id)}/repo/files?{query}")
        data = found.get("Data") if isinstance(found, dict) else None
        files = data.get("Files") if isinstance(data, dict) else data
        return [{name.lower(): value for name, value in entry.items()} for entry in _dicts(self.host, files)]

    def _hugging_face(self, place: Place) -> list[dict[str, Any]]:
        path = f"/api/models/{quote(place.id)}/tree/{quote(place.revision, safe='')}"
        query = "recursive=true"
        entries: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            found, link = self._get(f"{path}?{query}")
            entries += _dicts(self.host, found)
            further = _NEXT.search(link)
            if further is None:
                return entries
            query = urlsplit(further[1]).query  # of a mirror's answer, the host may be the one that it mirrors
        raise ProvisionError(f"{self.host} lists more files of {place.id} than a model has")

    def _get(self, path: str) -> tuple[Any, str]:
        body, headers = web.document(self._url(path), _LISTING_BYTES)
        try:
            return json.loads(body), headers.get("Link", "")
        except ValueError:
            raise _nonsense(self.host) from None

    def _url(self, path: str) -> Url:
        return Url(self._endpoint + path, self._private)


# Private


def _private(name: HubName, settings: Engines) -> Mapping[str, str]:
    if name == "huggingface":
        return {"Authorization": f"Bearer {settings.hf_token}"} if settings.hf_token else {}
    token = settings.modelscope_api_token
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}


def _dicts(host: str, found: object) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise _nonsense(host)
    return found


def _entry(host: str, entry: dict[str, Any]) -> tuple[str, Pin]:
    """The keys in small letters, as Hugging Face writes them."""
    path, size = entry.get("path"), entry.get("size")
    large = entry.get("lfs")
    if isinstance(large, dict):
        size, sha256 = large.get("size", size), large.get("sha256") or large.get("oid")
    else:
        sha256 = entry.get("sha256")
    if not _safe(path) or not isinstance(path, str) or not isinstance(size, int) or size < 0:
        raise _nonsense(host)
    # of a large file, git knows the pointer and not the content
    git = "" if isinstance(large, dict) else _hex(_SHA1, entry.get("oid"))
    return path, Pin(size, _hex(_SHA256, sha256), git)


def _hex(form: re.Pattern[str], found: object) -> str:
    text = str(found or "").lower().removeprefix("sha256:")
    return text if form.fullmatch(text) else ""


def _safe(path: object) -> bool:
    """Whether it stays within the model's folder and is no file of ours in it."""
    if not isinstance(path, str) or not 0 < len(path) <= 300 or "\\" in path or not path.isprintable():
        return False
    parts = PurePosixPath(path).parts
    return "/" not in parts and ".." not in parts and not path.startswith(".voxgate") and "//" not in path


def _nonsense(host: str) -> ProvisionError:
    return ProvisionError(f"{host} answers with something that is no listing of a model's files")
