"""A CONNECT-IP client on aioquic: its QUIC, TLS and HTTP/3 are not ours, and neither is this."""

import dataclasses
import json
import select
import socket
import ssl
import time

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from wire import (
    ADDRESS_ASSIGN,
    ROUTE_ADVERTISEMENT,
    Capsules,
    Icmp,
    echo_request,
    frame_types,
    read_addresses,
    read_routes,
)

NAME = "vpn.example.com"
PATH = "/.well-known/masque/ip/*/*/"
# Packets that must never arrive anywhere carry BAD; the test looks for it in the office.
GOOD, BAD = 0x600D, 0x0BAD


@dataclasses.dataclass
class Credentials:
    """PEM files; without certificate the client has none to show."""

    certificate: str | None
    key: str | None
    authority: str


class Peer:
    """One connection, driven by hand: nothing is sent or received except inside `pump`."""

    def __init__(self, gateway, credentials, *, alpn="h3", datagrams=True, frame_size=65536, udp_payload=1400):
        # `datagrams` is the HTTP/3 setting, `frame_size` the QUIC transport parameter.
        # 1400 rather than the minimum of 1200: a DATAGRAM must hold an inner IPv6 packet of 1280 bytes.
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[alpn],
            server_name=NAME,
            max_datagram_frame_size=frame_size,
            max_datagram_size=udp_payload,
            idle_timeout=30.0,
        )
        configuration.load_verify_locations(cafile=credentials.authority)
        configuration.verify_mode = ssl.CERT_REQUIRED
        if credentials.certificate:
            configuration.load_cert_chain(credentials.certificate, credentials.key)
        self.quic = QuicConnection(configuration=configuration)
        self.http = H3Connection(self.quic, enable_webtransport=datagrams)
        self.gateway = gateway
        family = socket.AF_INET6 if ":" in gateway[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.closed = None  # (code, reason)
        self.resets, self.stops = {}, {}
        self.headers, self.bodies, self.ended = {}, {}, set()
        self.capsules = {}
        # The types of the frames on the gateway's control stream, which aioquic does not tell.
        self.control, self.control_frames = b"", []
        self.addresses, self.routes, self.assigns = None, None, []
        self.packets = []
        self.handshaken = False
        self.quic.connect(gateway, now=time.time())

    # Driving -----------------------------------------------------------------------------------

    def pump(self, until=lambda: False, limit=5.0) -> bool:
        """Moves bytes until `until()` holds or the time is over; says whether it holds."""
        deadline = time.time() + limit
        while True:
            now = time.time()
            timer = self.quic.get_timer()
            if timer is not None and timer <= now:
                self.quic.handle_timer(now)
            self.take_events()
            self.transmit()
            if until():
                return True
            if now >= deadline or (self.closed and timer is None):
                return False
            wait = min(deadline, timer if timer is not None else deadline, now + 0.05) - now
            if select.select([self.socket], [], [], max(wait, 0))[0]:
                while True:
                    try:
                        data, _ = self.socket.recvfrom(65536)
                    except (BlockingIOError, ConnectionRefusedError):
                        break
                    self.quic.receive_datagram(data, self.gateway, now=time.time())

    def transmit(self) -> list[int]:
        """Sends what is due and gives the sizes."""
        datagrams = [data for data, _ in self.quic.datagrams_to_send(now=time.time())]
        for data in datagrams:
            try:
                self.socket.sendto(data, self.gateway)
            except OSError:
                pass
        return [len(data) for data in datagrams]

    def take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case events.HandshakeCompleted():
                    self.handshaken = True
                case events.ConnectionTerminated():
                    self.closed = (event.error_code, event.reason_phrase)
                case events.StreamDataReceived(stream_id=3):
                    self.control += event.data
                    self.control_frames = frame_types(self.control)
                case events.StreamReset():
                    self.resets[event.stream_id] = event.error_code
                case events.StopSendingReceived():
                    self.stops[event.stream_id] = event.error_code
            for message in self.http.handle_event(event):
                self.take_message(message)

    def take_message(self, message) -> None:
        match message:
            case HeadersReceived():
                self.headers.setdefault(message.stream_id, {}).update(
                    {name.decode(): value.decode() for name, value in message.headers}
                )
            case DataReceived():
                self.bodies[message.stream_id] = self.bodies.get(message.stream_id, b"") + message.data
                if self.headers.get(message.stream_id, {}).get(":status") == "200":
                    reader = self.capsules.setdefault(message.stream_id, Capsules())
                    for kind, value in reader.push(message.data):
                        self.take_capsule(kind, value)
            case DatagramReceived():
                if message.data[:1] == b"\0":
                    self.packets.append(message.data[1:])
        if getattr(message, "stream_ended", False):
            self.ended.add(message.stream_id)

    def take_capsule(self, kind: int, value: bytes) -> None:
        if kind == ADDRESS_ASSIGN:
            self.assigns.append(read_addresses(value))
            self.addresses = [prefix for _, prefix in self.assigns[-1]]
        elif kind == ROUTE_ADVERTISEMENT:
            self.routes = read_routes(value)

    def close(self) -> None:
        self.quic.close(error_code=0x100)
        self.pump(limit=0.1)
        self.socket.close()

    # Speaking ----------------------------------------------------------------------------------

    def settings(self) -> dict:
        """The gateway's SETTINGS, waited for."""
        assert self.pump(lambda: self.http.received_settings is not None), f"no SETTINGS; closed: {self.closed}"
        return self.http.received_settings

    def request(self, changes=None, *, wait=True) -> int:
        """An extended CONNECT; `changes` maps a field to another value, or to None to leave it out."""
        fields = {
            ":method": "CONNECT",
            ":protocol": "connect-ip",
            ":scheme": "https",
            ":authority": NAME,
            ":path": PATH,
            "capsule-protocol": "?1",
        }
        fields.update(changes or {})
        stream = self.quic.get_next_available_stream_id()
        lines = [(name.encode(), value.encode()) for name, value in fields.items() if value is not None]
        self.http.send_headers(stream, lines)
        if wait:
            self.pump(lambda: self.outcome(stream) is not None)
        return stream

    def outcome(self, stream: int) -> str | None:
        """What became of a request, in words the tests compare."""
        if self.closed:
            return f"closed {self.closed[0]:#x}"
        if stream in self.headers:
            return f"status {self.headers[stream].get(':status')}"
        if stream in self.resets:
            return f"reset {self.resets[stream]:#x}"
        if stream in self.stops:
            return f"stopped {self.stops[stream]:#x}"
        return None

    def aborted(self, stream: int) -> str | None:
        """How an accepted request was ended, or None while it lives."""
        if self.closed:
            return f"closed {self.closed[0]:#x}"
        for name, table in (("reset", self.resets), ("stopped", self.stops)):
            if stream in table:
                return f"{name} {table[stream]:#x}"
        return "ended" if stream in self.ended else None

    def tunnel(self, changes=None) -> int:
        """A working tunnel, or an assertion that says what came instead."""
        self.settings()
        stream = self.request(changes)
        assert self.outcome(stream) == "status 200", f"the request got {self.outcome(stream)} {self.bodies.get(stream)}"
        # IPv6 may follow in a later capsule: it needs a path of 1280 bytes, which is found by probing.
        both = lambda: {":" in prefix for prefix in self.addresses or ()} == {True, False}
        assert self.pump(lambda: both() and self.routes is not None), f"only {self.addresses} and {self.routes}"
        return stream

    def problem(self, stream: int) -> str:
        """The type of an RFC 9457 answer."""
        self.pump(lambda: stream in self.ended, limit=1.0)
        try:
            return json.loads(self.bodies.get(stream, b"{}")).get("type", "")
        except ValueError:
            return ""

    def own(self, version: int) -> str:
        """Our first address of a family."""
        return next(prefix.split("/")[0] for prefix in self.addresses if (":" in prefix) == (version == 6))

    def send(self, stream: int, packet: bytes, context: bytes = b"\0") -> None:
        self.http.send_datagram(stream, context + packet)

    def ping(self, stream: int, destination: str, *, count=3, identifier=GOOD, source=None, limit=3.0) -> int:
        """Echo requests through the tunnel; the number of answers."""
        source = source or self.own(6 if ":" in destination else 4)
        self.packets.clear()
        for sequence in range(count):
            self.send(stream, echo_request(source, destination, identifier, sequence))
            self.pump(limit=0.01)
        found = lambda: len({icmp.sequence for icmp in map(Icmp, self.packets) if icmp.is_reply(identifier)})
        self.pump(lambda: found() >= count, limit)
        return found()

    def answer_to(self, stream: int, packet: bytes, limit=2.0) -> Icmp | None:
        """Sends one packet and gives the ICMP error about it, if one comes."""
        self.packets.clear()
        self.send(stream, packet)
        errors = lambda: [icmp for icmp in map(Icmp, self.packets) if icmp.is_error()]
        self.pump(lambda: bool(errors()), limit)
        return errors()[0] if errors() else None
