"""What somebody asks or tells a collector in, its answer over HTTP out — or why there is none."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

_TIMEOUT_SECONDS = 30.0

# Any: JSON.
Answer = dict[str, Any]


class ClientError(Exception):
    """The collector could not be asked, or did not do what it was told; the text names key, value and remedy."""


class Client:
    """Speaks with the API of one collector. Raises ClientError; ValueError for a token that cannot be read."""

    def __init__(self, url: str, token_file: Path | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--url {url} must begin with http:// or https://")
        self._url = url.rstrip("/")
        headers = {} if token_file is None else {"authorization": f"Bearer {_token(token_file)}"}
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **parameters: str | None) -> Answer:
        """An answer; parameters that are None are left out."""
        return _json(self._call("GET", path, params=_given(parameters)))

    def file(self, path: str, **parameters: str | None) -> bytes:
        """A file."""
        return self._call("GET", path, params=_given(parameters)).content

    def tell(self, path: str, **body: str | float | bool | None) -> Answer:
        """The answer to a call that changes something; what is None is left out."""
        given = {key: value for key, value in body.items() if value is not None}
        return _json(self._call("POST", path, json=given))

    def send(self, path: str, data: bytes) -> Answer:
        """The answer to a file."""
        headers = {"content-type": "application/zip"}
        return _json(self._call("POST", path, content=data, headers=headers))

    def delete(self, path: str) -> Answer:
        """The answer to the wish that something goes."""
        return _json(self._call("DELETE", path))

    # Any: what httpx takes, by keyword.
    def _call(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"{self._url}/api/v1/{path}", **rest)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = (
                f"--url {self._url} does not answer ({error}): give the address of a collector that runs"
            )
            raise ClientError(problem) from error
        if answer.is_success:
            return answer
        raise ClientError(_problem(answer))


def _given(parameters: dict[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in parameters.items() if value is not None}


def _json(answer: httpx.Response) -> Answer:
    try:
        found: Answer = answer.json()
    except ValueError as error:  # no JSON, or not even a text
        raise ClientError(
            f"{answer.url} does not answer with JSON: give the address of a collector"
        ) from error
    return found


def _problem(answer: httpx.Response) -> str:
    try:
        problem = answer.json()["error"]
        return f"{problem['key']} = {problem['value']!r}: {problem['remedy']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}: give the address of a collector of this version"


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {file} cannot be read: {error}") from error
    if not (token.isascii() and token.isprintable() and token):
        raise ValueError(
            f"--token-file {file} must hold a token of printable ASCII"
        )  # not repeated: a secret
    return token
