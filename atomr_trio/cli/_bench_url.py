"""A benchmark's target: any server with the OpenAI API."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from atomr_trio.core import BadRequest, InferenceError, NetworkError, Timeout, Unrecoverable

from ._bench_load import Recorder
from ._bench_prompts import Prompt
from ._bench_stats import Sample
from ._bench_wire import ENDPOINTS, Endpoint, base_url, error_of_status, read_event, request_body

if TYPE_CHECKING:
    import httpx2

__all__ = ["Remote", "UrlTarget", "open_url"]


@frozen(kw_only=True)
class Remote:
    """How the server is asked.

    Args:
        url: its address, with or without ``/v1``.
        model: the name; ``None`` takes the first that the server lists.
        api_key: goes into the authorization header.
        endpoint: plain completions (of token ids or text), or chat (of text).
        output_tokens: how many to generate.
        ignore_eos: generate as many even if the model would end sooner.
        timeout: seconds a request may take.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    endpoint: Endpoint = "completions"
    output_tokens: int = 64
    ignore_eos: bool = True
    timeout: float = 600.0


@frozen
class UrlTarget:
    """Asks one model of a server."""

    client: "httpx2.AsyncClient"
    remote: Remote
    model: str

    async def ask(self, prompt: Prompt, /) -> Sample:
        """Stream one answer.

        Raises:
            InferenceError: the server cannot be reached, refuses, fails, or is silent for too long.
        """
        with _typed(self.remote.timeout):
            return await self._ask(prompt)

    async def _ask(self, prompt: Prompt) -> Sample:
        remote, recorder = self.remote, Recorder()
        usage: tuple[int, int, int] | None = None
        failure: InferenceError | None = None
        body = request_body(remote.endpoint, self.model, prompt, remote.output_tokens, ignore_eos=remote.ignore_eos)
        async with self.client.stream("POST", ENDPOINTS[remote.endpoint], content=body) as response:
            await _check(response)
            async for line in response.aiter_lines():
                event = read_event(line)
                if event.news:
                    recorder.chunk()
                if event.choice:
                    recorder.end()
                usage, failure = event.usage or usage, failure or event.failure
        if failure is not None:
            raise failure
        if usage is None:
            return recorder.sample(len(prompt) if isinstance(prompt, tuple) else len(prompt.split()), None)
        return recorder.sample(*usage)


@asynccontextmanager
async def open_url(remote: Remote) -> AsyncGenerator[UrlTarget]:
    """Connect to a server.

    Raises:
        InferenceError: it does not list its models, and none was named.
        Unrecoverable: the HTTP client is not installed.
    """
    try:
        import httpx2
    except ImportError as error:
        raise Unrecoverable("measuring a server takes httpx2: pip install httpx2") from error
    headers = {"content-type": "application/json"}
    if remote.api_key is not None:
        headers["authorization"] = f"Bearer {remote.api_key}"
    # A stream is a connection: the client must not make them wait for one another.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(
        base_url=base_url(remote.url), headers=headers, timeout=remote.timeout, limits=limits
    ) as client:
        yield UrlTarget(client, remote, remote.model or await _first_model(client, remote))


async def _first_model(client: "httpx2.AsyncClient", remote: Remote) -> str:
    with _typed(remote.timeout):
        response = await client.get("models")
        if not response.is_success:
            raise error_of_status(response.status_code, response.content)
    try:
        return str(response.json()["data"][0]["id"])
    except (ValueError, TypeError, LookupError) as error:
        raise BadRequest("the server does not list its models: name one with --model") from error


async def _check(response: "httpx2.Response") -> None:
    if not response.is_success:
        body = await response.aread()
        raise error_of_status(response.status_code, body, response.headers.get("retry-after"))


@contextmanager
def _typed(timeout: float) -> Generator[None]:
    """Bound the time in all, which the client's own limits of one read do not, and type what goes wrong."""
    import httpx2

    started = trio.current_time()
    try:
        with trio.fail_after(timeout):
            yield
    except (httpx2.TimeoutException, trio.TooSlowError) as error:
        raise Timeout(round(1000 * (trio.current_time() - started))) from error
    except httpx2.HTTPError as error:
        raise NetworkError(f"the server cannot be reached: {error or type(error).__name__}") from error
    except httpx2.InvalidURL as error:
        raise BadRequest(f"{error}") from error
