"""The well-behaved foreign client: gets addresses and routes, and pings the office through the gateway.

Prints one line per step; exit status 0 only when all of them held.
"""

import argparse

from peer import Credentials, Peer
from wire import ADDRESS_REQUEST, address, capsule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--gateway", "--certificate", "--key", "--authority"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--office", nargs="+", required=True)
    arguments = parser.parse_args()

    credentials = Credentials(arguments.certificate, arguments.key, arguments.authority)
    peer = Peer((arguments.gateway, arguments.port), credentials)
    settings = peer.settings()
    # RFC 9220 section 3 and RFC 9297 section 2.1.1: without these two no tunnel may be asked for.
    assert settings.get(0x08) == 1, "no SETTINGS_ENABLE_CONNECT_PROTOCOL"
    assert settings.get(0x33) == 1, "no SETTINGS_H3_DATAGRAM"
    print("settings: extended CONNECT and datagrams")

    stream = peer.tunnel()
    assert peer.headers[stream].get("capsule-protocol") == "?1", peer.headers[stream]
    print("addresses:", ", ".join(peer.addresses))
    print("routes:", ", ".join(f"{start}-{end}" for _, start, end, _ in peer.routes))
    assert {":" in prefix for prefix in peer.addresses} == {True, False}, "not both families"

    # Any address, and the answer must carry our request's number (RFC 9484 section 4.7.2).
    before = len(peer.assigns)
    wanted = address(7, "0.0.0.0/32") + address(8, "::/128")
    peer.http.send_data(stream, capsule(ADDRESS_REQUEST, wanted), False)
    answered = lambda: {7, 8} <= {number for assign in peer.assigns[before:] for number, _ in assign}
    assert peer.pump(answered), f"ADDRESS_REQUEST was not answered: {peer.assigns}"
    print("address request: answered by number")

    for host in arguments.office:
        received = peer.ping(stream, host)
        assert received == 3, f"{received} of 3 pings to {host} came back"
        print(f"ping {host}: 3 of 3")

    peer.http.send_data(stream, b"", True)
    assert peer.pump(lambda: peer.aborted(stream) is not None), "the gateway did not end its side"
    print("end:", peer.aborted(stream))
    peer.close()


if __name__ == "__main__":
    main()
