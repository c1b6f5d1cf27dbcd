"""Port `ModelOrigin` over a Hugging Face hub, or any server that speaks like one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get

from easel_kit.errors import DependencyDown, Forbidden, NotFound
from gpu_worker.domain.layout import RemoteFile
from gpu_worker.domain.source import HubSource
from gpu_worker.ports import Listing

_ANSWER_S = 15.0
"""Seconds that the hub may take to answer a question about a repository or a file."""


class HubOrigin:
    """Reads public repositories, and with a token those that it opens."""

    def __init__(self, *, endpoint: str, token: str) -> None:
        """Asks nothing yet.

        Args:
            endpoint: the hub's address; empty: huggingface.co.
            token: empty: none is sent, not even one that is stored on this machine.
        """
        self._endpoint = endpoint or None
        self._token: str | bool = token or False

    def list(self, source: HubSource) -> Listing[HubSource]:
        """See the port; the revision becomes the commit that it means now."""
        with _translated(source):
            info = HfApi(endpoint=self._endpoint, token=self._token).model_info(
                source.repo, revision=source.revision, files_metadata=True, timeout=_ANSWER_S
            )
        files = tuple(_file(sibling) for sibling in info.siblings or ())
        return Listing(replace(source, revision=info.sha or source.revision), files)

    def download(
        self,
        source: HubSource,
        file: RemoteFile,
        target: Path,
        stopped: Callable[[], bool],
    ) -> None:
        """See the port; over plain HTTP, which goes on where it was cut and needs no other folder.

        `hf_hub_download` does neither: it begins anew, and keeps caches below the home folder.
        """
        url = hf_hub_url(source.repo, file.name, revision=source.revision, endpoint=self._endpoint)
        with target.open("ab") as out, _translated(source):
            if out.tell() > file.size_bytes:
                out.truncate(0)
            http_get(
                url,
                out,
                resume_size=out.tell(),
                headers={"authorization": f"Bearer {self._token}"} if self._token else {},
                expected_size=file.size_bytes,
                tqdm_class=cast("Any", functools.partial(_Watch, stopped)),
            )


class _Watch:
    """Instead of a progress bar: the one thing that the library calls between two chunks."""

    def __init__(self, stopped: Callable[[], bool], **_: object) -> None:
        self._stopped = stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: float) -> None:
        """Ends the fetch once it shall stop."""
        if self._stopped():
            raise DependencyDown("the worker stops")


def _file(sibling: Any) -> RemoteFile:  # noqa: ANN401 (a RepoSibling, whose fields are optional)
    if sibling.lfs is not None:
        digest = f"sha256:{sibling.lfs.sha256}"
    else:
        digest = f"git-sha1:{sibling.blob_id}" if sibling.blob_id else ""
    return RemoteFile(sibling.rfilename, sibling.size or 0, digest, sibling.blob_id or "")


@contextmanager
def _translated(source: HubSource) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise Forbidden(f"{source} wants a token of somebody who accepted its terms") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise NotFound("repository, revision or file", str(source)) from error
    except OfflineModeIsEnabled as error:
        raise DependencyDown(
            "the hub is switched off by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code in {401, 403}:
            raise Forbidden(f"the hub refuses {source}: it wants another token") from error
        raise DependencyDown(f"the hub answered {error.response.status_code}") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise DependencyDown("the hub does not answer") from error
    except OSError as error:
        if error.errno is not None:
            raise  # of this machine's disk
        raise DependencyDown("the hub sent a file that is not whole") from error
