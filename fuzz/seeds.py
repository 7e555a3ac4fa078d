#!/usr/bin/env python3
"""Writes the seeds in corpus/: small inputs per target, valid ones and hostile ones.

Only the standard library, and the same bytes at every run. A finding of the fuzzer is not added
here but put beside these files under a name that says what it broke.
"""

import base64
import ipaddress
import pathlib


def varint(value):
    """RFC 9000, section 16."""
    for bits, mark in ((6, 0), (14, 1), (30, 2), (62, 3)):
        if value < 1 << bits:
            return (mark << bits | value).to_bytes((bits + 2) // 8, "big")
    raise ValueError(value)


def frame(kind, payload=b""):
    return varint(kind) + varint(len(payload)) + payload


def address(text):
    return ipaddress.ip_address(text).packed


# --- capsules, RFC 9297 section 3.2 and RFC 9484 section 4.7 ---

ASSIGN, REQUEST, ROUTES = 1, 2, 3


def entry(request, prefix):
    at, length = prefix.split("/")
    packed = address(at)
    return varint(request) + bytes([4 if len(packed) == 4 else 6]) + packed + bytes([int(length)])


def route(start, end, protocol=0):
    packed = address(start)
    return bytes([4 if len(packed) == 4 else 6]) + packed + address(end) + bytes([protocol])


both = entry(0, "10.99.0.7/32") + entry(0, "fd00:ad17::7/128")
v4_route, v6_route = route("10.0.0.0", "10.0.255.255"), route("fd00:1::", "fd00:1::ffff")
capsule = {
    "assign": frame(ASSIGN, both),
    "assign-nothing": frame(ASSIGN),
    "assign-site": frame(ASSIGN, entry(1, "10.20.0.0/16")),
    "assign-host-bits": frame(ASSIGN, entry(1, "10.20.0.1/16")),
    "assign-prefix-too-long": frame(ASSIGN, entry(1, "10.20.0.1/33")),
    "assign-version-5": frame(ASSIGN, b"\0\5\n\0\0\1\x20"),
    "assign-cut-entry": frame(ASSIGN, both[:-1]),
    "assign-many": frame(ASSIGN, both * 40),
    "request": frame(REQUEST, entry(1, "0.0.0.0/32") + entry(2, "::/128")),
    "request-nothing": frame(REQUEST),
    "request-id-zero": frame(REQUEST, entry(0, "0.0.0.0/32")),
    "request-id-largest": frame(REQUEST, entry((1 << 62) - 1, "::/0")),
    "request-id-repeated": frame(REQUEST, entry(7, "0.0.0.0/32") * 2),
    "routes": frame(ROUTES, v4_route + v6_route),
    "routes-nothing": frame(ROUTES),
    "routes-everything": frame(ROUTES, route("0.0.0.0", "255.255.255.255") + route("::", "f" * 4 + ":ffff" * 7)),
    "routes-protocols": frame(ROUTES, v4_route + route("10.1.0.0", "10.1.0.0", 6) + route("10.1.0.0", "10.1.0.0", 17)),
    "routes-protocol-overlaps-any": frame(ROUTES, v4_route + route("10.0.0.0", "10.0.0.0", 6)),
    "routes-reversed": frame(ROUTES, v6_route + v4_route),
    "routes-overlap": frame(ROUTES, v4_route + route("10.0.255.255", "10.1.0.0")),
    "routes-start-after-end": frame(ROUTES, route("10.0.0.2", "10.0.0.1")),
    "routes-cut": frame(ROUTES, v4_route[:-1]),
    "datagram": frame(0, b"\0payload"),
    "unknown-skipped": frame(0x29 * 41 + 0x17, b"grease") + frame(ASSIGN, both),
    "unknown-endless": varint(0x1234) + varint((1 << 62) - 1) + b"only this",
    "known-endless": varint(ASSIGN) + varint((1 << 62) - 1) + b"\0",
    "known-over-the-cap": varint(ROUTES) + varint(70_000),
    "several": frame(ASSIGN, both) + frame(ROUTES, v4_route) + frame(ASSIGN),
    "long-varints": b"\xc0\0\0\0\0\0\0\1\x80\0\0\0",
    "cut-in-type": b"\x80\0",
    "empty": b"",
}

# --- HTTP/3 frames, RFC 9114 section 7; the first byte of the target picks the kind of stream ---

CONTROL, AT_GATEWAY, AT_CLIENT = b"\0", b"\1", b"\2"
settings = frame(4, b"\x08\x01\x33\x01\x01\x00\x07\x00")
headers = frame(1, b"\0\0\xd1")
h3_frame = {
    "control": CONTROL + settings + frame(7, b"\0") + frame(0x21, b"grease"),
    "control-without-settings": CONTROL + frame(7, b"\0"),
    "control-settings-twice": CONTROL + settings * 2,
    "control-settings-http2": CONTROL + frame(4, b"\x02\x00"),
    "control-settings-duplicate": CONTROL + frame(4, b"\x08\x01\x08\x01"),
    "control-settings-bad-value": CONTROL + frame(4, b"\x33\x02"),
    "control-settings-cut": CONTROL + frame(4, b"\x08"),
    "control-settings-large": CONTROL + varint(4) + varint(1 << 40),
    "control-data": CONTROL + settings + frame(0, b"data"),
    "control-goaway-trailing": CONTROL + settings + frame(7, b"\0\0"),
    "control-goaway-empty": CONTROL + settings + frame(7),
    "request": AT_GATEWAY + headers + frame(0, b"capsules") + frame(0) + frame(0, b"more"),
    "request-data-first": AT_GATEWAY + frame(0, b"data"),
    "request-push": AT_GATEWAY + headers + frame(5, b"\0\0\0"),
    "request-settings": AT_GATEWAY + settings,
    "request-http2-priority": AT_GATEWAY + frame(2, b"\0" * 5),
    "request-headers-large": AT_GATEWAY + varint(1) + varint((1 << 62) - 1),
    "request-data-endless": AT_GATEWAY + headers + varint(0) + varint((1 << 62) - 1) + b"x",
    "request-cut": AT_GATEWAY + headers[:-1],
    "response": AT_CLIENT + headers + frame(0x40, b"skipped") + frame(0, b"capsules"),
    "response-push": AT_CLIENT + headers + frame(5, b"\0\0\0"),
    "response-trailers": AT_CLIENT + headers + frame(0, b"data") + headers,
}

# --- QPACK field sections, RFC 9204 section 4.5 ---


def literal(name, value):
    """Section 4.5.6, names of up to six bytes and values of up to 126."""
    return bytes([0x20 | len(name)]) + name + bytes([len(value)]) + value


def named(index, value):
    """Section 4.5.4 with the static table, the index below fifteen."""
    return bytes([0x50 | index, len(value)]) + value


# :method CONNECT, :scheme https, :authority, :path; the protocol and capsule-protocol as literals.
connect = b"\xcf\xd7" + named(0, b"vpn.example.com") + named(1, b"/.well-known/masque/ip/*/*/")
protocol = b"\x27\x02:protocol\x0aconnect-ip"
capsules = b"\x27\x09capsule-protocol\x02?1"
qpack = {
    "connect-ip": b"\0\0" + connect + protocol + capsules,
    "status-200": b"\0\0\xd9" + capsules,
    "status-403": b"\0\0\xff\x05",
    "huffman-value": b"\0\0\x50\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    "huffman-bad-padding": b"\0\0\x50\x81\x18",
    "huffman-padding-too-long": b"\0\0\x50\x83\x1c\xff\xff",
    "huffman-end-of-string": b"\0\0\x50\x84\xff\xff\xff\xff",
    "huffman-empty": b"\0\0\x50\x80",
    "dynamic-required": b"\2\0\x80",
    "dynamic-indexed": b"\0\0\x80",
    "dynamic-post-base": b"\0\0\x10",
    "dynamic-name": b"\0\0\x40\x01a",
    "dynamic-post-base-name": b"\0\0\x00\x01a",
    "static-beyond-the-table": b"\0\0\xff\x24",
    "integer-overflow": b"\0\0\xff" + b"\xff" * 10 + b"\x7f",
    "integer-cut": b"\0\0\xff\x80",
    "length-beyond-the-section": b"\0\0\x51\x7f\xff\xff\xff\xff\x0f",
    "name-in-capitals": b"\0\0" + literal(b"Upper", b"case"),
    "name-empty": b"\0\0" + literal(b"", b"value"),
    "value-with-newline": b"\0\0" + literal(b"name", b"a\r\nb"),
    "pseudo-after-regular": b"\0\0" + literal(b"name", b"value") + connect,
    "pseudo-twice": b"\0\0" + connect * 2,
    "pseudo-unknown": b"\0\0" + literal(b":bad", b"1"),
    "many-fields": b"\0\0" + b"\xd1" * 300,
    "no-prefix": b"\0",
}

# --- control sessions: steps of an operation, a stream, a length and bytes ---

BYTES, END, RESET, STOPPED, PASS, ADMIT, REFUSE, SHUTDOWN = range(8)


def step(operation, stream=0, data=b"", length=None):
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    head = b"".join(bytes([BYTES, stream, len(piece)]) + piece for piece in pieces[:-1])
    last = pieces[-1]
    return head + bytes([operation, stream, len(last) if length is None else length]) + last


def asked(path=b"/.well-known/masque/ip/*/*/", form=b"connect-ip"):
    fields = b"\0\0\xcf\xd7" + named(0, b"vpn.example.com") + named(1, path)
    return frame(1, fields + b"\x27\x02:protocol" + bytes([len(form)]) + form + capsules)


def text(name, value):
    return b"\x27" + bytes([len(name) - 7]) + name + bytes([len(value)]) + value


def posted(path, body=b"request", more=b""):
    fields = b"\0\0\xd4\xd7" + named(0, b"vpn.example.com") + named(1, path)
    fields += text(b"content-type", b"application/pkcs10") + more
    return frame(1, fields) + frame(0, body)


# What a client sends arrives on streams 0 and 2, what a gateway sends on 0 and 3.
from_client = step(BYTES, 2, b"\0" + settings)
from_gateway = step(BYTES, 3, b"\0" + settings)
request = frame(0, capsule["request"])
lists = frame(0, capsule["assign"] + capsule["routes"])
session = {
    "gateway-admits": from_client + step(BYTES, 0, asked() + request) + step(ADMIT) + step(END, 0, request),
    "gateway-refuses-twice": from_client + step(BYTES, 0, asked()) + step(REFUSE) + step(BYTES, 4, asked()) + step(REFUSE),
    "gateway-second-request": from_client + step(BYTES, 0, asked()) + step(ADMIT) + step(BYTES, 4, asked()),
    "gateway-wrong-path": step(BYTES, 0, asked(b"/other")),
    "gateway-scope": step(BYTES, 0, asked(b"/.well-known/masque/ip/10.0.0.0%2F8/6/")) + step(ADMIT),
    "gateway-bad-scope": step(BYTES, 0, asked(b"/.well-known/masque/ip/10.0.0.1%2F8/256/")),
    "gateway-websocket": step(BYTES, 0, asked(form=b"websocket")),
    "gateway-get": step(END, 0, frame(1, b"\0\0\xd1\xd7\xc1" + named(0, b"vpn"))),
    "gateway-malformed-capsule": step(BYTES, 0, asked()) + step(ADMIT) + step(BYTES, 0, frame(0, capsule["request-nothing"])),
    "gateway-fin-inside-capsule": step(BYTES, 0, asked()) + step(ADMIT) + step(END, 0, frame(0, b"\1")),
    "gateway-many-requests": step(BYTES, 0, asked()) + step(ADMIT) + step(BYTES, 0, request) * 20,
    "gateway-nobody-asks": from_client + step(PASS, length=60),
    "gateway-shuts-down": from_client + step(SHUTDOWN) + step(BYTES, 0, asked()),
    "gateway-control-stream-ends": from_client + step(END, 2),
    "gateway-control-stream-twice": from_client + step(BYTES, 6, b"\0"),
    "gateway-push-stream": step(BYTES, 2, b"\1"),
    "gateway-encoder-inserts": step(BYTES, 2, b"\2\xc0\1a"),
    "gateway-decoder-acknowledges": step(BYTES, 2, b"\3\x80"),
    "gateway-is-stopped": from_client + step(STOPPED, 3, length=1),
    "gateway-request-reset": step(BYTES, 0, asked()) + step(ADMIT) + step(RESET, 0, length=12),
    "gateway-bidirectional": step(BYTES, 1, b"\0"),
    "gateway-enrols": from_client + step(END, 0, posted(b"/.well-known/adit/enroll", more=text(b"authorization", b"Bearer secret") + text(b"user-agent", b"adit"))) + step(ADMIT),
    "gateway-enrols-no-code": from_client + step(END, 0, posted(b"/.well-known/adit/enroll")) + step(REFUSE),
    "gateway-enrols-trailers": from_client + step(END, 0, posted(b"/.well-known/adit/enroll", more=text(b"authorization", b"Bearer secret")) + frame(1, b"\0\0")) + step(ADMIT),
    "gateway-enrols-much": from_client + step(BYTES, 0, posted(b"/.well-known/adit/enroll", b"a" * 200, text(b"authorization", b"Bearer secret"))) + step(BYTES, 0, frame(0, b"a" * 250)) * 70,
    "gateway-enrols-short": from_client + step(END, 0, posted(b"/.well-known/adit/enroll", more=text(b"authorization", b"Bearer secret") + text(b"content-length", b"99"))),
    "gateway-renews": from_client + step(BYTES, 0, asked()) + step(ADMIT) + step(END, 4, posted(b"/.well-known/adit/renew")) + step(ADMIT),
    "gateway-renews-refused": from_client + step(BYTES, 0, asked()) + step(ADMIT) + step(END, 4, posted(b"/.well-known/adit/renew")) + step(REFUSE),
    "gateway-renews-reset": from_client + step(BYTES, 0, asked()) + step(ADMIT) + step(BYTES, 4, posted(b"/.well-known/adit/renew")) + step(RESET, 4, length=12),
    "client-enrols": from_gateway + step(END, 0, frame(1, qpack["status-200"] + text(b"content-type", b"application/json")) + frame(0, b'{"certificate":"c","authorities":"a"}')),
    "client-enrols-html": from_gateway + step(END, 0, frame(1, qpack["status-200"]) + frame(0, b"<html>")),
    "client-renews": from_gateway + step(BYTES, 0, frame(1, qpack["status-200"]) + lists) + step(ADMIT) + step(END, 4, frame(1, qpack["status-403"]) + frame(0, b'{"type":"urn:adit:refusal:certificate-refused"}')),
    "client-established": from_gateway + step(BYTES, 0, frame(1, qpack["status-200"]) + lists) + step(END),
    "client-refused": from_gateway + step(END, 0, frame(1, qpack["status-403"]) + frame(0, b'{"type":"urn:adit:refusal:no-access"}')),
    "client-answered-early": step(BYTES, 0, frame(1, qpack["status-200"])),
    "client-no-datagrams": step(BYTES, 3, b"\0" + frame(4, b"\x08\1")),
    "client-status-204": from_gateway + step(BYTES, 0, frame(1, b"\0\0\xff\1")),
    "client-headers-in-tunnel": from_gateway + step(BYTES, 0, frame(1, qpack["status-200"]) * 2),
    "client-asked-for-addresses": from_gateway + step(BYTES, 0, frame(1, qpack["status-200"]) + request),
    "client-goaway": from_gateway + step(BYTES, 3, frame(7, b"\0")),
    "client-goaway-grows": from_gateway + step(BYTES, 3, frame(7, b"\0") + frame(7, b"\4")),
    "client-no-answer": from_gateway + step(PASS, length=60),
    "client-finishes": from_gateway + step(SHUTDOWN) + step(BYTES, 0, frame(1, qpack["status-200"])),
}

# --- HTTP datagrams, RFC 9297 section 2.1 and RFC 9484 section 6 ---

http_datagram = {
    "first-stream": b"\0\0packet",
    "third-stream": varint(2) + varint(0),
    "unknown-context": b"\0" + varint(70_000) + b"packet",
    "long-varints": b"\x80\0\0\0\xc0\0\0\0\0\0\0\0packet",
    "largest-stream": varint((1 << 60) - 1) + b"\0",
    "beyond-the-largest-stream": varint(1 << 60) + b"\0",
    "no-context": b"\0",
    "cut": b"\x40",
}

# --- inside packets, RFC 791 and RFC 8200 ---

TCP, UDP = 6, 17
udp = b"\x30\x39\0\x35\0\x0c\0\0data"
ports = b"\xc0\1\1\xbb\1\2\3\4\0\0\0\0"
mss = b"\2\4\5\xb4\4\2\1\3\3\7\0\0"


def syn(options=mss, flags=2):
    return ports + bytes([(20 + len(options)) * 4, flags]) + b"\xff\xff\0\0\0\0" + options


def v4(protocol, payload, options=b"", fragment=0, ttl=64, source="10.99.0.7"):
    header = bytes([0x45 + len(options) // 4, 0]) + (20 + len(options) + len(payload)).to_bytes(2, "big")
    header += b"\x12\x34" + fragment.to_bytes(2, "big") + bytes([ttl, protocol, 0, 0])
    return header + address(source) + address("10.0.0.1") + options + payload


def v6(following, payload, hops=64, source="fd00::7"):
    header = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([following, hops])
    return header + address(source) + address("fd00:1::1") + payload


def skip(following, length=8):
    return bytes([following, length // 8 - 1]) + b"\0" * (length - 2)


ip_packet = {
    "v4-udp": v4(UDP, udp),
    "v4-syn": v4(TCP, syn()),
    "v4-syn-odd-mss": v4(TCP, syn(b"\1\2\4\5\xb4\0\0\0")),
    "v4-syn-two-mss": v4(TCP, syn(b"\2\4\5\xb4\2\4\xff\xff")),
    "v4-syn-option-of-no-length": v4(TCP, syn(b"\2\0\5\xb4")),
    "v4-syn-offset-beyond": v4(TCP, ports + b"\xf2\2\xff\xff\0\0\0\0"),
    "v4-syn-cut": v4(TCP, ports + b"\x50\2"),
    "v4-ack": v4(TCP, syn(flags=16)),
    "v4-icmp-echo": v4(1, b"\x08\0\0\0\0\1\0\1"),
    "v4-icmp-error": v4(1, b"\3\4\0\0\0\0\5\x84" + v4(UDP, udp)),
    "v4-first-fragment": v4(UDP, udp, fragment=0x2000),
    "v4-later-fragment": v4(UDP, udp, fragment=0x0001),
    "v4-dont-fragment": v4(UDP, udp, fragment=0x4000),
    "v4-router-alert": v4(UDP, udp, options=b"\x94\4\0\0"),
    "v4-source-route": v4(UDP, udp, options=b"\x83\7\4\n\0\0\x09\0"),
    "v4-option-beyond": v4(UDP, udp, options=b"\7\x28\4\0"),
    "v4-hop-limit-zero": v4(UDP, udp, ttl=0),
    "v4-from-multicast": v4(UDP, udp, source="224.0.0.251"),
    "v4-header-only": v4(59, b""),
    "v4-header-length-4": b"\x44" + v4(UDP, udp)[1:],
    "v4-longer-than-it-says": v4(UDP, udp) + b"\0",
    "v6-udp": v6(UDP, udp),
    "v6-syn": v6(TCP, syn()),
    "v6-echo": v6(58, b"\x80\0\0\0\0\1\0\1"),
    "v6-too-big": v6(58, b"\2\0\0\0\0\0\5\0" + v6(UDP, udp)),
    "v6-all-headers": v6(0, skip(60) + skip(43) + skip(44, 24) + b"\x33\0\0\1\0\0\0\7" + b"\6\1" + b"\0" * 10 + syn()),
    "v6-later-fragment": v6(44, b"\x3c\0\0\x08\0\0\0\7\1\2\3"),
    "v6-atomic-fragment": v6(44, b"\x11\0\0\0\0\0\0\7" + udp),
    "v6-fragment-twice": v6(44, b"\x2c\0\0\1\0\0\0\7\x11\0\0\1\0\0\0\7" + udp),
    "v6-hop-by-hop-twice": v6(0, skip(0) + skip(UDP) + udp),
    "v6-routing-0": v6(43, b"\x11\2\0\1\0\0\0\0" + address("fd00:2::1") + udp),
    "v6-endless-headers": v6(60, skip(60) * 30),
    "v6-header-beyond": v6(60, b"\x11\xff\0\0\0\0\0\0"),
    "v6-nothing-follows": v6(59, b""),
    "v6-jumbogram": v6(0, b"\x3b\0\xc2\4\0\1\0\0")[:4] + b"\0\0" + v6(0, b"\x3b\0\xc2\4\0\1\0\0")[6:],
    "v6-from-loopback": v6(UDP, udp, source="::1"),
    "version-5": b"\x55" + v4(UDP, udp)[1:],
}



def checksum(data):
    """The internet checksum, RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def sealed(packet, protocol):
    """The packet with its checksums, which a joined one must have."""
    if packet[0] >> 4 == 4:
        packet = packet[:10] + b"\0\0" + packet[12:]
        packet = packet[:10] + checksum(packet[:20]) + packet[12:]
        start, ends = 20, packet[12:20]
    else:
        start, ends = 40, packet[8:40]
    field = start + (16 if protocol == TCP else 6)
    packet = packet[:field] + b"\0\0" + packet[field + 2 :]
    pseudo = ends + bytes([0, protocol]) + (len(packet) - start).to_bytes(2, "big")
    return packet[:field] + checksum(pseudo + packet[start:]) + packet[field + 2 :]


def segment(number, flags=16, payload=b"a" * 40, make=None):
    header = b"\xc0\1\1\xbb" + (1000 + number * 40).to_bytes(4, "big") + b"\0\0\0\1"
    packet = (make or v4)(TCP, header + bytes([0x50, flags]) + b"\xff\xff\0\0\0\0" + payload)
    if make is None:
        packet = packet[:4] + (0x1234 + number).to_bytes(2, "big") + packet[6:]
    return sealed(packet, TCP)


def datagrams(number):
    return sealed(v6(UDP, b"\x30\x39\0\x35\0\x30\0\0" + bytes([number]) * 40), UDP)


def behind_lengths(*packets, size=100):
    return size.to_bytes(2, "big") + b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)


offload = {
    "stream": behind_lengths(*(segment(number) for number in range(4))),
    "stream-v6": behind_lengths(*(segment(number, make=v6) for number in range(4))),
    "stream-with-push": behind_lengths(segment(0), segment(1, 24), segment(2)),
    "stream-with-fin": behind_lengths(segment(0), segment(1), segment(2, 17)),
    "stream-with-a-gap": behind_lengths(segment(0), segment(2), segment(3)),
    "stream-with-a-short-end": behind_lengths(segment(0), segment(1, payload=b"b"), segment(2)),
    "stream-with-damage": behind_lengths(segment(0), segment(1)[:-1] + b"x", segment(2)),
    "datagrams": behind_lengths(*(datagrams(number) for number in range(4))),
    "two-flows": behind_lengths(segment(0), datagrams(0), segment(1), datagrams(1)),
    "fragment-between": behind_lengths(segment(0), v4(TCP, b"later", fragment=5), segment(1)),
    "large": behind_lengths(segment(0, payload=b"c" * 3000), size=1000),
    "no-packets": b"\0\1\0\0\0\1",
}


def between(source, destination, payload=udp, protocol=UDP, hops=64):
    """A packet for the verdicts: 10.99.0.7 and fd00::7 are a laptop's, the rest of 10.99.0.0/24 a site's."""
    make, at = (v4, 12) if ":" not in source else (v6, 8)
    packet = make(protocol, payload, **{"ttl" if make is v4 else "hops": hops})
    ends = address(source) + address(destination)
    return packet[:at] + ends + packet[at + len(ends) :]


quoted = b"\3\4\0\0\0\0\5\x84" + between("10.99.0.7", "10.1.0.1")
quoted_v6 = b"\2\0\0\0\0\0\5\0" + between("fd00::7", "fd00:1::1")
dataplane = {
    "v4-laptop-to-inside": between("10.99.0.7", "10.1.0.1"),
    "v4-inside-to-laptop": between("10.1.0.1", "10.99.0.7"),
    "v4-laptop-to-site": between("10.99.0.7", "10.99.0.9"),
    "v4-laptop-to-site-last-hop": between("10.99.0.7", "10.99.0.9", hops=1),
    "v4-laptop-to-itself": between("10.99.0.7", "10.99.0.7"),
    "v4-stranger": between("192.0.2.1", "10.1.0.1"),
    "v4-prohibited": between("10.99.0.7", "192.0.2.1"),
    "v4-multicast": between("10.99.0.7", "224.0.0.251"),
    "v4-too-big": between("10.1.0.1", "10.99.0.7", b"\0" * 1400),
    "v4-router-reports": between("192.0.2.1", "10.99.0.7", quoted, 1),
    "v4-router-reports-cut": between("192.0.2.1", "10.99.0.7", quoted[:24], 1),
    "v4-router-reports-others": between("192.0.2.1", "10.99.0.9", quoted, 1),
    "v6-laptop-to-inside": between("fd00::7", "fd00:1::1"),
    "v6-laptop-to-site": between("fd00::7", "fd00::9"),
    "v6-link-local": between("fe80::1", "fd00::7"),
    "v6-too-big": between("fd00:1::1", "fd00::7", b"\0" * 1400),
    "v6-router-reports": between("2001:db8::1", "fd00::7", quoted_v6, 58),
}

# --- flows: packets one after the other ---

BACK, MINUTE, RELOAD, SWEEP = 1, 4, 8, 16


def one(packet, what=0):
    """A packet and how it comes."""
    return bytes([what]) + len(packet).to_bytes(2, "big") + packet


def segment(source, destination, flags):
    header = b"\xc0\0\1\xbb" if source == "10.99.0.7" else b"\1\xbb\xc0\0"
    return between(source, destination, header + b"\0" * 8 + bytes([0x50, flags]) + b"\0" * 6, 6)


def part(place, more, payload):
    """A part of a UDP packet from the laptop."""
    packet = bytearray(between("10.99.0.7", "10.1.0.1", payload))
    packet[4:8] = b"\0\7" + (place // 8 | more << 13).to_bytes(2, "big")
    return bytes(packet)


def to_and_fro(*flags):
    """Segments in turn, the first from the laptop."""
    ends = ("10.99.0.7", "10.1.0.1")
    turns = enumerate(flags)
    return b"".join(one(segment(*(ends[::-1] if n % 2 else ends), flag), n % 2) for n, flag in turns)


asked = one(between("10.99.0.7", "10.1.0.1"))
FIN, SYN, RST, ACK = 1, 2, 4, 16
flows = {
    "datagram-and-answer": asked + one(between("10.1.0.1", "10.99.0.7", udp[2:4] + udp[:2] + udp[4:]), BACK),
    "answer-first": one(between("10.1.0.1", "10.99.0.7"), BACK) + asked,
    "answer-too-late": asked + one(between("10.1.0.1", "10.99.0.7", udp[2:4] + udp[:2] + udp[4:]), BACK | MINUTE),
    "connection": to_and_fro(SYN, SYN | ACK, ACK, ACK, FIN | ACK, FIN | ACK, ACK),
    "connection-reset": to_and_fro(SYN, RST | ACK, SYN, SYN | ACK, RST),
    "connection-from-before": to_and_fro(ACK, ACK, SYN, ACK),
    "connection-denied-later": to_and_fro(SYN, SYN | ACK, ACK) + one(segment("10.99.0.7", "10.1.0.1", ACK), RELOAD),
    "denied-and-allowed-again": asked + one(between("10.99.0.7", "10.1.0.1"), RELOAD) * 2,
    "router-reports": asked + one(between("192.0.2.1", "10.99.0.7", quoted, 1), BACK),
    "router-reports-cut": asked + one(between("192.0.2.1", "10.99.0.7", quoted[:30], 1), BACK),
    "router-reports-unasked": one(between("192.0.2.1", "10.99.0.7", quoted, 1), BACK),
    "v6-router-reports": one(between("fd00::7", "fd00:1::1")) + one(between("2001:db8::1", "fd00::7", quoted_v6, 58), BACK),
    "fragments": one(part(0, True, udp + b"\0" * 16)) + one(part(24, False, b"rest")),
    "fragments-overlap": one(part(0, True, udp + b"\0" * 16)) + one(part(8, False, b"rest")),
    "fragments-reversed": one(part(24, False, b"rest")) + one(part(0, True, udp + b"\0" * 16)),
    "fragments-tiny": one(part(0, True, udp[:4])) + one(part(8, False, udp)),
    "fragments-denied-later": one(part(0, True, udp)) + one(part(8 * 4, False, b"rest"), RELOAD),
    "swept": asked + one(between("10.99.0.7", "10.1.0.2"), MINUTE | SWEEP),
    "cut": asked[:-1],
}

# --- client certificates, RFC 5280; nobody checks their signatures here ---


def der(tag, *contents):
    body = b"".join(contents)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def oid(*arcs):
    body = bytes([arcs[0] * 40 + arcs[1]])
    for arc in arcs[2:]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return der(0x06, body)


def name(*attributes):
    """Pairs of the last arc of 2.5.4 (3 is CN, 11 is OU) and a string."""
    return der(0x30, *(der(0x31, der(0x30, oid(2, 5, 4, arc), text)) for arc, text in attributes))


def utf8(text):
    return der(0x0C, text.encode())


def extension(arc, value, critical=False):
    flag = der(0x01, b"\xff") if critical else b""
    return der(0x30, oid(2, 5, 29, arc), flag, der(0x04, value))


def san(*names):
    """Pairs of a tag (1 email, 2 DNS, 6 URI, 7 address) and its content."""
    return extension(17, der(0x30, *(der(0x80 | tag, content) for tag, content in names)))


def purposes(*last_arcs):
    return extension(37, der(0x30, *(oid(1, 3, 6, 1, 5, 5, 7, 3, arc) for arc in last_arcs)))


ECDSA = der(0x30, oid(1, 2, 840, 10045, 4, 3, 2))
KEY = der(0x30, der(0x30, oid(1, 2, 840, 10045, 2, 1), oid(1, 2, 840, 10045, 3, 1, 7)), der(0x03, b"\0\4" + b"\x11" * 64))
ALICE = name((11, utf8("eng")), (11, utf8("ops")), (3, utf8("Alice")))
EMAIL = (1, b"alice@example.com")


def leaf(*extensions, subject=ALICE, serial=b"\x12\x34", not_after=b"271231235959Z"):
    validity = der(0x30, der(0x17, b"260101000000Z"), der(0x17, not_after))
    issuer = name((3, utf8("Example CA")))
    body = [der(0xA0, der(0x02, b"\2")), der(0x02, serial), ECDSA, issuer, validity, subject, KEY]
    if extensions:
        body.append(der(0xA3, der(0x30, *extensions)))
    return der(0x30, der(0x30, *body), ECDSA, der(0x03, b"\0" + der(0x30, der(0x02, b"\1"), der(0x02, b"\1"))))


def wide(text):
    return der(0x1E, text.encode("utf-16-be"))


good = leaf(san(EMAIL), purposes(2))
certificate = {
    "client": good,
    "server": leaf(san((2, b"vpn.example.com")), purposes(1)),
    "both-purposes": leaf(san(EMAIL), purposes(1, 2)),
    "no-extensions": leaf(),
    "no-purpose": leaf(san(EMAIL)),
    "purpose-twice": leaf(san(EMAIL), purposes(1), purposes(2)),
    "names-twice": leaf(san(EMAIL), san((1, b"bob@example.com")), purposes(2)),
    "two-emails": leaf(san(EMAIL, (1, b"bob@example.com")), purposes(2)),
    "email-and-dns": leaf(san(EMAIL, (2, b"laptop.example.com")), purposes(2)),
    "email-with-zero": leaf(san((1, b"alice@example.com\0.evil.example")), purposes(2)),
    "email-not-ascii": leaf(san((1, "älice@example.com".encode())), purposes(2)),
    "email-empty": leaf(san((1, b"")), purposes(2)),
    "email-long": leaf(san((1, b"a" * 300 + b"@example.com")), purposes(2)),
    "dns-wildcard": leaf(san((2, b"*.example.com")), purposes(2)),
    "uri-spiffe": leaf(san((6, b"spiffe://example.com/group/eng/alice")), purposes(2)),
    "uri-bad": leaf(san((6, b"://\xff")), purposes(2)),
    "address": leaf(san((7, b"\x0a\0\0\1")), purposes(2)),
    "address-of-three-bytes": leaf(san((7, b"\x0a\0\0")), purposes(2)),
    "no-subject": leaf(san(EMAIL), purposes(2), subject=name()),
    "two-common-names": leaf(purposes(2), subject=name((3, utf8("alice")), (3, utf8("bob")))),
    "group-in-utf-16": leaf(san(EMAIL), purposes(2), subject=name((11, wide("eng")))),
    "group-not-utf-8": leaf(san(EMAIL), purposes(2), subject=name((11, der(0x0C, b"\xff\xfe")))),
    "serial-of-21-bytes": leaf(san(EMAIL), purposes(2), serial=b"\x7f" * 21),
    "serial-empty": leaf(san(EMAIL), purposes(2), serial=b""),
    "date-out-of-range": leaf(san(EMAIL), purposes(2), not_after=b"279931235959Z"),
    "date-rubbish": leaf(san(EMAIL), purposes(2), not_after=b"whenever"),
    "trailing-bytes": good + b"\0",
    "cut": good[:-20],
    "length-beyond": good[:2] + b"\xff\xff" + good[4:],
    "length-indefinite": b"\x30\x80" + good[4:] + b"\0\0",
}

# --- certificate requests, RFC 2986; the first one has a right signature, of Ed25519 ---

signed = base64.b64decode(
    "MIIBBjCBuQIBADAqMRowGAYDVQQDDBFhbGljZUBleGFtcGxlLmNvbTEMMAoGA1UECwwDZW5nMCowBQYDK2VwAyEAiyHPb/Vo"
    "Hwy5HAiDE8dhDwkKrA+2h45k502OBEHc9gegXDBaBgkqhkiG9w0BCQ4xTTBLMBwGA1UdEQQVMBOBEWFsaWNlQGV4YW1wbGUu"
    "Y29tMBMGA1UdJQQMMAoGCCsGAQUFBwMCMAsGA1UdDwQEAwIHgDAJBgNVHRMEAjAAMAUGAytlcANBADdV4GP+umVCZzQ0faql"
    "a56gcqQwAFNIwpRaHu+39ccpP17nVi8/yQGOo1tm2Mv8Ea6yUdhQlCVhi9yhgDPc2A4="
)


def request(*extensions, subject=ALICE, key=KEY, more=b""):
    wanted = der(0x30, oid(1, 2, 840, 113549, 1, 9, 14), der(0x31, der(0x30, *extensions)))
    body = der(0x30, der(0x02, b"\0"), subject, key, der(0xA0, wanted, more))
    return der(0x30, body, ECDSA, der(0x03, b"\0" + der(0x30, der(0x02, b"\1"), der(0x02, b"\1"))))


RSA = der(0x30, der(0x30, oid(1, 2, 840, 113549, 1, 1, 1), der(0x05)), der(0x03, b"\0" + b"\x30\x06\2\1\5\2\1\3"))
certificate_request = {
    "signed": signed,
    "signed-pem": b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.b64encode(signed) + b"\n-----END CERTIFICATE REQUEST-----\n",
    "signed-changed": signed.replace(b"alice", b"alicf", 1),
    "signed-trailing-bytes": signed + b"\0",
    "signed-cut": signed[:-1],
    "unsigned": request(san(EMAIL), purposes(2)),
    "authority": request(extension(19, der(0x30, der(0x01, b"\xff")), critical=True)),
    "both-purposes": request(purposes(1, 2)),
    "all-key-usages": request(extension(15, der(0x03, b"\x07\xff\x80"))),
    "unknown-extension": request(extension(99, b"")),
    "names-of-every-kind": request(san(EMAIL, (2, b"a.example"), (6, b"spiffe://a/b"), (7, b"\x0a\0\0\1"), (8, b"\x2a\3"))),
    "names-with-control-characters": request(san((1, b"a\x1b[2J@example.com"))),
    "address-of-three-bytes": request(san((7, b"\x0a\0\0"))),
    "broken-extension": request(extension(17, b"\x30\x05\x81")),
    "obsolete-extensions": request(more=der(0x30, oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 14), der(0x31, der(0x30)))),
    "challenge-password": request(more=der(0x30, oid(1, 2, 840, 113549, 1, 9, 7), der(0x31, utf8("secret")))),
    "rsa": request(key=RSA),
    "subject-not-utf-8": request(subject=name((3, der(0x0C, b"\xff\xfe")))),
    "long": request(san((1, b"a" * 17000))),
    "length-indefinite": b"\x30\x80" + signed[4:] + b"\0\0",
}

# --- policy files ---

policy_file = {
    "whole": b"""[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[groups]
eng = ["alice@example.com"]

[[allow]]
who = ["group:eng", "bob@example.com", "*"]
to = ["10.0.0.0/16", "fd00:1::/64"]

[[principal]]
name = "bob@example.com"
addresses = ["10.99.0.50", "fd00:ad17::50"]

[[site]]
principal = "branch1.example.com"
networks = ["10.20.0.0/16"]
""",
    "language": b"""timezone = "Europe/Berlin"

[groups]
hr = ["erin@example.com", "group:contractors"]

[networks]
customer-db = ["10.1.2.0/28", "net:other"]
other = ["fd00:1::/64"]

[[allow]]
name = "office"
who = ["group:hr", "domain:*.branch.example.com", "domain:*@example.com", "authority:fuzz"]
to = ["10.0.0.0/8", "net:other"]
ports = ["tcp/443", "tcp/8000-8100", "udp", "icmp", "sctp/7", "proto/47"]
direction = "both"
hours = ["mon-fri 08:00-18:00", "sat 22:00-02:00", "00:00-24:00"]
from = 1969-12-31
until = 2036-12-31T18:00:00
rate = "10 Mbit/s"

[[deny]]
name = "customer data"
who = ["alice@example.com"]
to = ["net:customer-db"]

[[allow]]
who = ["alice@example.com"]
to = ["10.1.2.3"]

[[test]]
who = "alice@example.com"
groups = ["eng"]
authority = "fuzz"
to = "10.1.2.1"
port = "tcp/5432"
direction = "in"
at = 2026-03-29T02:30:00
expect = "deny"
rule = "customer data"
""",
    "groups-in-a-circle": b'[groups]\na = ["group:b"]\nb = ["group:c"]\nc = ["group:a"]\n',
    "networks-in-a-circle": b'[networks]\na = ["net:b"]\nb = ["net:a"]\n',
    "denied-whole": b'[[allow]]\nwho = ["*"]\nto = ["0.0.0.0/0"]\n[[deny]]\nwho = ["*"]\nto = ["0.0.0.0/0"]\ndirection = "both"\n',
    "hours-wrong": b'[[allow]]\nwho = ["*"]\nto = ["::/0"]\nhours = ["sun 24:00-24:00"]\n',
    "dates-at-the-edge": b'[[allow]]\nwho = ["*"]\nto = ["::/0"]\nfrom = 0000-01-01\nuntil = 9999-12-31T23:59:60Z\n',
    "rate-too-large": b'[[allow]]\nwho = ["*"]\nto = ["::/0"]\nrate = "18446744073709551615 GB/s"\n',
    "ports-without-end": b'[[deny]]\nwho = ["*"]\nto = ["::/0"]\nports = ["tcp/0-65535", "tcp/-", "proto/"]\n',
    "empty": b"",
    "pool-only": b'[pool]\nv4 = "10.99.0.0/30"\n',
    "pool-tiny": b'[pool]\nv4 = "10.99.0.0/32"\nv6 = "fd00::/128"\n',
    "pool-everything": b'[pool]\nv4 = "0.0.0.0/0"\nv6 = "::/0"\n',
    "pool-host-bits": b'[pool]\nv4 = "10.99.0.1/24"\n',
    "pool-other-family": b'[pool]\nv4 = "fd00::/64"\n',
    "unknown-key": b'[pool]\nv5 = "10.0.0.0/8"\n',
    "unknown-group": b'[[allow]]\nwho = ["group:none"]\nto = ["10.0.0.0/8"]\n',
    "to-everything": b'[[allow]]\nwho = ["*"]\nto = ["0.0.0.0/0", "::/0"]\n',
    "to-nothing": b'[[allow]]\nwho = []\nto = []\n',
    "who-rubbish": '[[allow]]\nwho = ["group:", "", "\u00e4@b", "a b", "\u202e"]\nto = ["10.0.0.0/8"]\n'.encode(),
    "group-with-itself": b'[groups]\na = ["group:a"]\n',
    "principal-twice": b'[[principal]]\nname = "a@b.c"\naddresses = []\n[[principal]]\nname = "a@b.c"\naddresses = []\n',
    "address-twice": b'[[principal]]\nname = "a@b.c"\naddresses = ["10.0.0.1"]\n[[principal]]\nname = "d@b.c"\naddresses = ["10.0.0.1"]\n',
    "sites-overlap": b'[[site]]\nprincipal = "a.b"\nnetworks = ["10.0.0.0/8"]\n[[site]]\nprincipal = "c.d"\nnetworks = ["10.1.0.0/16"]\n',
    "wrong-type": b"pool = 1\nallow = 2\n",
    "number-too-large": b"[pool]\nv4 = 99999999999999999999\n",
    "not-utf-8": b'[pool]\nv4 = "\xff"\n',
    "not-closed": b'[pool\nv4 = "10',
    "error-on-the-last-line": b"[groups]\r\n\r\n\xc3\xa4",
    "nested": b"a = " + b"[" * 200 + b"]" * 200,
}

TARGETS = {
    "capsule": capsule,
    "h3_frame": h3_frame,
    "qpack": qpack,
    "session": session,
    "http_datagram": http_datagram,
    "ip_packet": ip_packet,
    "offload": offload,
    "dataplane": dataplane,
    "flows": flows,
    "certificate": certificate,
    "certificate_request": certificate_request,
    "policy_file": policy_file,
}

for target, seeds in TARGETS.items():
    folder = pathlib.Path(__file__).parent / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for seed, data in seeds.items():
        (folder / seed).write_bytes(data)
