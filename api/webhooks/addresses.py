"""Checks the address of a webhook: public hosts only, unless a setting allows a private one."""

import asyncio
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from flows.contract.addresses import is_public, literal_address

# A DNS look-up can't be cancelled. Slow ones would use up the event loop's own threads, which Prefect's
# address needs too.
_LOOK_UPS = ThreadPoolExecutor(4, "webhook-address")


class WebhookAddressRefused(Exception):
    """The webhook may not be sent to this address. The message says why."""


def check_url(url: str, private_hosts: Collection[str]) -> None:
    """Checks the URL itself. Raises `WebhookAddressRefused`.

    Names are not resolved: the answer would disclose names of the internal network, and a name may
    resolve to another address later.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None:
        raise WebhookAddressRefused("The URL of a webhook must not contain a user name or password.")
    if host in private_hosts:
        return
    if parts.scheme != "https":
        raise WebhookAddressRefused("The URL of a webhook must begin with https://.")
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise WebhookAddressRefused("The URL of a webhook must not be a private address.")


async def public_addresses(host: str, port: int, private_hosts: Collection[str]) -> Sequence[str]:
    """The checked addresses of the host. Connect to them: another look-up may give other addresses.

    Raises `WebhookAddressRefused` if one of them is private, and `OSError` if there is none.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if host not in private_hosts and not all(is_public(ip_address(address)) for address in addresses):
        raise WebhookAddressRefused("The host of the webhook resolves to a private address.")
    return addresses
