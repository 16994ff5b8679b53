"""Which machines tools may talk to: those of the public internet, and those that the operator allows.

`COMAGENT_HTTP_ALLOW` is a list, separated by commas, of what is allowed besides: `host`, `host:port`, an address, or a
network such as `10.1.0.0/16`, also `[fd00::1]:8080`. A name stands for all addresses that it has, a network or an
address for these addresses under any name. The variable is read at every call.
"""

import asyncio
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from comagent.errors import ComAgentError, InputError

__all__ = ["ALLOW", "AddressRefusedError", "Allowed", "addresses", "allowed"]

ALLOW = "COMAGENT_HTTP_ALLOW"

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^]]+)\]|(?P<plain>[\w./-]+))(?::(?P<port>\d{1,5}))?", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")))
"""Besides what Python knows of: Azure's host, which hands out credentials, and what versions of Python disagree on."""
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_V6 = tuple(map(ipaddress.ip_network, ("2001::/23", "2002::/16", "3fff::/20")))
"""Documentation, and tunnels (Teredo, 6to4), which lead to any IPv4 address."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefusedError(ComAgentError):
    """A tool was to talk to a machine that it must not talk to. Nothing was sent to it."""

    def __init__(self, host: str, problem: str, remedy: str) -> None:
        super().__init__(host, problem, remedy)
        self.host = host
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.host} {self.problem}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows besides the public internet."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[_Network, int | None], ...] = ()
    """Each with the one port that is meant, or None for all."""

    def has_host(self, host: str, port: int) -> bool:
        return (host, port) in self.hosts or (host, None) in self.hosts

    def has_address(self, address: _Address, port: int) -> bool:
        return any(
            address.version == network.version and address in network and only in (None, port)
            for network, only in self.networks
        )


def allowed() -> Allowed:
    """What `COMAGENT_HTTP_ALLOW` says. `InputError` if it cannot be read."""
    hosts: set[tuple[str, int | None]] = set()
    networks: list[tuple[_Network, int | None]] = []
    for entry in filter(None, map(str.strip, os.environ.get(ALLOW, "").split(","))):
        network = _network(entry)
        if network is not None:
            networks.append((network, None))
            continue
        match = _ENTRY.fullmatch(entry)
        port = int(match["port"]) if match and match["port"] else None
        name = (match["bracketed"] or match["plain"]) if match else ""
        network = _network(name)
        if network is not None:
            networks.append((network, port))
        elif not match or match["bracketed"] or "/" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
            raise InputError(f'{ALLOW}: "{entry}" is no host, host:port, address or network such as 10.1.0.0/16')
        else:
            hosts.add((_canonical(name), port))
    return Allowed(frozenset(hosts), tuple(networks))


async def addresses(host: str, port: int, allow: Allowed) -> list[str]:
    """The addresses of a host, each of which may be connected to. The name is looked up once.

    `AddressRefusedError` if any of them must not be; `OSError` if there is none.
    """
    name = _canonical(host)
    literal = _literal(name, host)
    if literal is not None:
        found = [literal]
    else:
        found = await _look_up(name, port)
    if not allow.has_host(name, port):
        for address in found:
            if not allow.has_address(address, port) and (why := _refused(address)):
                shown = f"{host}:{port}"
                raise AddressRefusedError(
                    shown,
                    f"is {why}" if literal is not None else f"has the address {address}, which is {why}",
                    f"If tools are to reach it, add it to {ALLOW} where the agents run.",
                )
    return [str(address) for address in found]


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _canonical(host: str) -> str:
    return host.lower().removesuffix(".")


def _literal(name: str, host: str) -> _Address | None:
    """The address that a host is, if it is no name."""
    try:
        return _unmapped(ipaddress.ip_address(name))
    except ValueError:
        pass
    # What ends in a number is never a name, but the system's resolver takes 2130706433 and 0x7f.1 for 127.0.0.1.
    if not name or ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise AddressRefusedError(
            f'"{host}"', "is neither a name nor an address", "Write an IPv4 address as four decimal numbers."
        )
    return None


async def _look_up(name: str, port: int) -> list[_Address]:
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{name} is no name of a host") from error
    found = [ipaddress.ip_address(answer[4][0]) for answer in answers]
    return list(dict.fromkeys(map(_unmapped, found)))


def _unmapped(address: _Address) -> _Address:
    """The IPv4 address that the system connects to when it is given its IPv6 form."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _refused(address: _Address) -> str:
    """Why an address must not be connected to; empty if it may be."""
    if address.is_unspecified or address.is_loopback:
        return "an address of this machine"
    if address.is_link_local:
        return "a link-local address, where clouds hand out credentials"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, IPv6Address) and address in _NAT64:
        return _refused(IPv4Address(int(address) & 0xFFFFFFFF))
    return "" if _is_public(address) else "not an address of the public internet"


def _is_public(address: _Address) -> bool:
    if not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
