"""Where a webhook may lead: out into the internet, and nowhere near this machine unless a setting says so."""

import asyncio
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from flows.contract.addresses import is_public, literal_address

# A look-up can't be ended. Of the loop's own threads, which look up Prefect as well, slow ones take all.
_LOOK_UPS = ThreadPoolExecutor(4, "webhook-address")


class WebhookAddressRefused(Exception):
    """A webhook may not lead there; the message says why."""


def check_url(url: str, private_hosts: Collection[str]) -> None:
    """Refuses at once what is wrong with the URL itself. Raises `WebhookAddressRefused`.

    Names are not looked up: whoever asked would learn which there are in our network, and
    a name may lead elsewhere by the time that it is used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None:
        raise WebhookAddressRefused("The URL of a webhook must not hold a user or a password.")
    if host in private_hosts:
        return
    if parts.scheme != "https":
        raise WebhookAddressRefused("A webhook must be https.")
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise WebhookAddressRefused("A webhook must not lead to a private address.")


async def public_addresses(host: str, port: int, private_hosts: Collection[str]) -> Sequence[str]:
    """The addresses of the host, to connect to and look up no more: the next answer may be another.

    Raises `WebhookAddressRefused` if one of them is private, and `OSError` if there is none.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if host not in private_hosts and not all(is_public(ip_address(address)) for address in addresses):
        raise WebhookAddressRefused("The webhook's host leads to a private address.")
    return addresses
