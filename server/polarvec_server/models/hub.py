"""Talks to the model hub: names a revision's commit, lists its files, fetches them with checks and resumption.

huggingface_hub's snapshot_download throws a half-fetched file away when it is interrupted (seen with 2.4), which for
2 GB of weights means starting again; so this uses the library's own parts one by one and keeps what has arrived.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from polarvec_server.models.store import ModelStoreError

# What a folder needs, at its top or in a module's own folder ("1_Pooling/"); no pickles, no other frameworks' weights.
_WANTED = re.compile(
    r"(\d+_\w+/)?(config|tokenizer|tokenizer_config|special_tokens_map|sentence_bert_config"
    r"|model\.safetensors\.index)\.json"
    r"|modules\.json|config_sentence_transformers\.json|README\.md|LICENSE(\.\w+)?"
    r"|(\d+_\w+/)?model(-\d+-of-\d+)?\.safetensors"
)
_UNKNOWN = "There is no model {model_id} at {endpoint}, or it is private; check the name, or set HF_TOKEN."
# huggingface_hub waits for ever by default, also for a hub that takes the connection and says nothing.
_FIRST_ANSWER_S = 30.0
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a revision.

    Attributes:
        name: Its path in the repository.
        byte_count: Its size.
        sha256: Of its bytes, for large files; empty for others.
        blob_id: Git's id of it, which is the SHA-1 of a header and its bytes, unless `sha256` is there.
    """

    name: str
    byte_count: int
    sha256: str
    blob_id: str

    def is_intact(self, path: Path) -> bool:
        """Says whether the bytes in `path` are this file's."""
        if path.stat().st_size != self.byte_count:
            return False
        digest = hashlib.sha256() if self.sha256 else _git_digest(self.byte_count)
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest() == (self.sha256 or self.blob_id)


class Hub:
    """One hub."""

    def __init__(self, endpoint: str | None = None) -> None:
        """Talks to `endpoint`, or where huggingface_hub itself would (HF_ENDPOINT, or the public hub)."""
        self._endpoint = endpoint
        self._api = HfApi(endpoint=endpoint)

    def commit(self, model_id: str, revision: str) -> str:
        """Returns the full commit of a branch, tag, commit or the first digits of one; empty means the main branch.

        Raises:
            ModelStoreError: There is no such model or revision, or the hub does not answer.
        """
        with _one_sentence(model_id, revision, self._api.endpoint):
            try:
                commit = self._api.model_info(model_id, revision=revision or None, timeout=_FIRST_ANSWER_S).sha
            except RevisionNotFoundError:
                # The hub itself takes only full commits.
                if not _ABBREVIATED.fullmatch(revision):
                    raise
                ids = [entry.commit_id for entry in self._api.list_repo_commits(model_id)]
                matches = [commit_id for commit_id in ids if commit_id.startswith(revision)]
                if len(matches) != 1:
                    raise
                commit = matches[0]
        if not commit:
            raise ModelStoreError(f"{self._api.endpoint} names no commit of {model_id}; is it a model hub?")
        return commit

    def files(self, model_id: str, commit: str) -> list[HubFile]:
        """Returns the files of a revision that a model folder needs, small ones first.

        Raises:
            ModelStoreError: The hub does not answer.
        """
        with _one_sentence(model_id, commit, self._api.endpoint):
            tree = [
                entry
                for entry in self._api.list_repo_tree(model_id, revision=commit, recursive=True)
                if isinstance(entry, RepoFile) and _WANTED.fullmatch(entry.path)
            ]
        files = [
            HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id) for entry in tree
        ]
        return sorted(files, key=lambda file: (file.byte_count, file.name))

    def fetch(self, model_id: str, commit: str, files: Sequence[HubFile], folder: Path) -> None:
        """Fetches files into a folder; what an earlier call left there, whole files or parts, is not fetched again.

        Raises:
            ModelStoreError: The hub does not answer, the disk is full, or a file arrives damaged.
        """
        with _one_sentence(model_id, commit, self._api.endpoint):
            for file in files:
                target = folder / file.name
                if target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.part")
                self._fetch_part(model_id, commit, file, part)
                if not file.is_intact(part):
                    part.unlink()
                    raise ModelStoreError(f"{file.name} of {model_id} arrived damaged; run the same command again.")
                part.rename(target)

    def _fetch_part(self, model_id: str, commit: str, file: HubFile, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have > file.byte_count:
            part.unlink()
            have = 0
        if shutil.disk_usage(part.parent).free < file.byte_count - have:
            raise OSError(errno.ENOSPC, "No space left on device")
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(model_id, file.name, revision=commit, endpoint=self._endpoint),
                stream,
                resume_size=have,
                headers=build_hf_headers(library_name="polarvec"),
                expected_size=file.byte_count,
                displayed_filename=file.name,
            )


def _git_digest(byte_count: int) -> "hashlib._Hash":
    return hashlib.sha1(b"blob %d\0" % byte_count, usedforsecurity=False)


@contextmanager
def _one_sentence(model_id: str, revision: str, endpoint: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into one sentence that says what to do."""
    try:
        yield
    except GatedRepoError:
        raise ModelStoreError(
            f"{model_id} is gated: accept its terms at {endpoint} and set HF_TOKEN to a token that reads it."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelStoreError(_UNKNOWN.format(model_id=model_id, endpoint=endpoint)) from None
    except RevisionNotFoundError:
        raise ModelStoreError(
            f"{model_id} has no revision {revision}; name a branch, a tag or a commit after the @."
        ) from None
    except OfflineModeIsEnabled:
        raise ModelStoreError(
            f"HF_HUB_OFFLINE forbids asking a hub for {model_id}; unset it, or use e5-small, which needs none."
        ) from None
    except HfHubHTTPError as error:
        # huggingface_hub takes a bare 401 for a missing model only where the hub speaks https.
        if error.response.status_code in (401, 404):
            raise ModelStoreError(_UNKNOWN.format(model_id=model_id, endpoint=endpoint)) from None
        raise ModelStoreError(
            f"The hub {endpoint} answered {error.response.status_code} for {model_id}; try again later."
        ) from None
    except httpx2.HTTPError as error:
        raise ModelStoreError(
            f"The hub {endpoint} cannot be reached ({type(error).__name__}); check the network and run the "
            "same command again: what has arrived is kept. The model e5-small needs no hub."
        ) from None
    except OSError as error:
        # huggingface_hub says so, without a number, when a file ends early or late.
        if error.errno is not None:
            raise
        raise ModelStoreError(f"A file of {model_id} arrived incomplete; run the same command again.") from None
