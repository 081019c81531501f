"""Which addresses lie in the public network, and which in somebody's own."""

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_OWN = [
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # the services of clouds, at addresses that look public
        "192.0.0.0/24",
        "192.88.99.0/24",  # from here on, what leads to another address that is written in it
        "2002::/16",
        "2001::/23",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "::/96",
        "::ffff:0:0/96",
        "fec0::/10",
    )
]
"""Besides what Python knows as private, shared, reserved, local or multicast."""


def is_public(address: Address) -> bool:
    local = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not local and not any(address in network for network in _OWN)


def is_network(place: str) -> bool:
    """Whether it is an address or a network (10.9.0.0/16), and no name."""
    try:
        ip_network(place, strict=False)
    except ValueError:
        return False
    return True
