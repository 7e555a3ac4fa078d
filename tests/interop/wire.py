"""Bytes of CONNECT-IP (RFC 9484), HTTP datagrams (RFC 9297) and IP, written from the RFCs alone."""

import ipaddress
import struct

DATAGRAM, ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT = 0, 1, 2, 3


def varint(value: int) -> bytes:
    for bits, mark, size in ((6, 0, 1), (14, 1, 2), (30, 2, 4), (62, 3, 8)):
        if value < 1 << bits:
            return (mark << (size * 8 - 2) | value).to_bytes(size, "big")
    raise ValueError(value)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6)
    if len(data) < at + size:
        raise IndexError
    return int.from_bytes(data[at : at + size], "big") & ((1 << (size * 8 - 2)) - 1), at + size


def capsule(kind: int, value: bytes) -> bytes:
    return varint(kind) + varint(len(value)) + value


def frame_types(control: bytes) -> list[int]:
    """The types of the whole frames on an HTTP/3 control stream (RFC 9114 section 6.2.1)."""
    found = []
    try:
        _, at = read_varint(control, 0)
        while True:
            kind, at = read_varint(control, at)
            length, at = read_varint(control, at)
            at += length
            if at > len(control):
                return found
            found.append(kind)
    except IndexError:
        return found


def address(request: int, text: str) -> bytes:
    """One entry of ADDRESS_ASSIGN or ADDRESS_REQUEST; host bits are sent as written."""
    interface = ipaddress.ip_interface(text)
    return varint(request) + bytes([interface.version]) + interface.ip.packed + bytes([interface.network.prefixlen])


def route(start: str, end: str, protocol: int = 0) -> bytes:
    first, last = ipaddress.ip_address(start), ipaddress.ip_address(end)
    return bytes([first.version]) + first.packed + last.packed + bytes([protocol])


def read_addresses(value: bytes) -> list[tuple[int, str]]:
    at, found = 0, []
    while at < len(value):
        request, at = read_varint(value, at)
        size = {4: 4, 6: 16}[value[at]]
        ip = ipaddress.ip_address(value[at + 1 : at + 1 + size])
        length = value[at + 1 + size]
        at += size + 2
        # The strict parse refuses host bits, as RFC 9484 section 4.7.1 does.
        found.append((request, str(ipaddress.ip_network(f"{ip}/{length}"))))
    return found


def read_routes(value: bytes) -> list[tuple[int, str, str, int]]:
    at, found, order = 0, [], []
    while at < len(value):
        version = value[at]
        size = {4: 4, 6: 16}[version]
        start = ipaddress.ip_address(value[at + 1 : at + 1 + size])
        end = ipaddress.ip_address(value[at + 1 + size : at + 1 + 2 * size])
        protocol = value[at + 1 + 2 * size]
        at += 2 + 2 * size
        assert start <= end, "a range that ends before it starts"
        found.append((version, str(start), str(end), protocol))
        order.append((version, protocol, int(start), int(end)))
    for before, after in zip(order, order[1:]):
        # RFC 9484 section 4.7.3: by version, then protocol, then strictly ascending without overlap.
        assert before[:2] < after[:2] or (before[:2] == after[:2] and before[3] < after[2]), "unordered ranges"
    return found


class Capsules:
    """Collects DATA bytes and gives whole capsules."""

    def __init__(self) -> None:
        self.buffer = b""

    def push(self, data: bytes) -> list[tuple[int, bytes]]:
        self.buffer += data
        found = []
        while True:
            try:
                kind, at = read_varint(self.buffer, 0)
                length, at = read_varint(self.buffer, at)
            except IndexError:
                return found
            if len(self.buffer) < at + length:
                return found
            found.append((kind, self.buffer[at : at + length]))
            self.buffer = self.buffer[at + length :]


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(source: str, destination: str, identifier: int, sequence: int, payload: int = 56, hops: int = 64) -> bytes:
    src, dst = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    body = struct.pack("!HH", identifier, sequence) + b"\xad" * payload
    if src.version == 4:
        icmp = struct.pack("!BBH", 8, 0, checksum(b"\x08\0\0\0" + body)) + body
        return ipv4(src, dst, 1, icmp, hops)
    pseudo = src.packed + dst.packed + struct.pack("!II", len(body) + 4, 58)
    icmp = struct.pack("!BBH", 128, 0, checksum(pseudo + b"\x80\0\0\0" + body)) + body
    return struct.pack("!IHBB", 6 << 28, len(icmp), 58, hops) + src.packed + dst.packed + icmp


def ipv4(src, dst, protocol: int, body: bytes, hops: int = 64) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, hops, protocol, 0) + src.packed + dst.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


class Icmp:
    """What an IP packet from the gateway says, if it is ICMP."""

    def __init__(self, packet: bytes) -> None:
        self.version = packet[0] >> 4
        if self.version == 4:
            header, protocol = (packet[0] & 15) * 4, packet[9]
            self.source, self.destination = (str(ipaddress.ip_address(packet[at : at + 4])) for at in (12, 16))
        else:
            header, protocol = 40, packet[6]
            self.source, self.destination = (str(ipaddress.ip_address(packet[at : at + 16])) for at in (8, 24))
        message = packet[header:]
        self.is_icmp = protocol in (1, 58) and len(message) >= 8
        self.kind, self.code = (message[0], message[1]) if self.is_icmp else (None, None)
        self.identifier, self.sequence = struct.unpack("!HH", message[4:8]) if self.is_icmp else (None, None)
        self.quoted = message[8:]

    def is_reply(self, identifier: int) -> bool:
        return self.is_icmp and self.kind == (0 if self.version == 4 else 129) and self.identifier == identifier

    def is_error(self) -> bool:
        return self.is_icmp and (self.kind in (3, 11, 12) if self.version == 4 else self.kind < 128)

    def __str__(self) -> str:
        return f"ICMP{'' if self.version == 4 else 'v6'} {self.kind}/{self.code} from {self.source}"
