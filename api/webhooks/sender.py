"""Sends a message to a receiver; connects to checked addresses only."""

import ssl
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

import anyio
import httpx
from standardwebhooks import Webhook as Signer

from api.webhooks.addresses import WebhookAddressRefused, check_url, public_addresses
from api.webhooks.messages import Message

ANSWER_SECONDS = 10.0


class Outcome(StrEnum):
    """The outcome of one attempt."""

    DELIVERED = "delivered"
    """Answered with 2xx."""
    FAILED = "failed"
    """To be retried."""
    REFUSED = "refused"
    """Not to be retried: the receiver is gone (410), or its address is not allowed."""


class Sender:
    """A client for webhooks. Use it as an asynchronous context manager."""

    def __init__(
        self, signer: Signer, private_hosts: frozenset[str], ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._signer = signer
        self._private_hosts = private_hosts
        self._client = httpx.AsyncClient(
            verify=ssl_context or ssl.create_default_context(),
            # No proxy from the environment: it would connect to unchecked addresses.
            trust_env=False,
            follow_redirects=False,
            timeout=ANSWER_SECONDS,
            # No reuse: connections are pooled by address, but a certificate was checked for one name.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def send(self, url: str, message: Message) -> tuple[Outcome, str]:
        """The outcome and its reason, which does not contain the URL."""
        try:
            # Checked again: users of Prefect can change the label that contains the URL.
            check_url(url, self._private_hosts)
            with anyio.fail_after(ANSWER_SECONDS):
                status = await self._post(httpx.URL(url), message)
        except WebhookAddressRefused as error:
            return Outcome.REFUSED, str(error)
        except TimeoutError:
            return Outcome.FAILED, f"no answer within {ANSWER_SECONDS:g} seconds"
        except (httpx.HTTPError, OSError) as error:
            return Outcome.FAILED, type(error).__name__
        except (httpx.InvalidURL, ValueError) as error:  # an impossible host name is a UnicodeError
            return Outcome.REFUSED, type(error).__name__
        if 200 <= status < 300:
            return Outcome.DELIVERED, f"answered {status}"
        return (Outcome.REFUSED if status == httpx.codes.GONE else Outcome.FAILED), f"answered {status}"

    async def _post(self, url: httpx.URL, message: Message) -> int:
        """The status of the answer, whose body is not read."""
        host = url.raw_host.decode()
        port = url.port or (443 if url.scheme == "https" else 80)
        headers = {**message.headers(self._signer, datetime.now(UTC)), "Host": url.netloc.decode()}
        addresses = await public_addresses(host, port, self._private_hosts)
        for address in addresses:
            request = self._client.build_request(
                "POST",
                url.copy_with(host=address),
                headers=headers,
                content=message.body,
                # The certificate must be valid for the name.
                extensions={"sni_hostname": host},
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx.ConnectError:
                if address == addresses[-1]:
                    raise
            else:
                await response.aclose()
                return response.status_code
        raise OSError(f"{host} has no address")
