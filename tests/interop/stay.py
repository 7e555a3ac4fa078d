"""The foreign client that stays where it is: told in time, served until its session maximum, then closed.

Prints one line per step; exit status 0 only when all of them held.
"""

import argparse
import time

from peer import Credentials, Peer

GOAWAY = 0x07
# The row "session-maximum" of the table of refusals.
SESSION_MAXIMUM = 0xAD170000 + 36


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--gateway", "--certificate", "--key", "--authority", "--office"):
        parser.add_argument(name, required=True)
    parser.add_argument("--maximum", type=float, required=True)
    arguments = parser.parse_args()

    peer = Peer((arguments.gateway, 443), Credentials(arguments.certificate, arguments.key, arguments.authority))
    stream = peer.tunnel()
    begin = time.time()
    assert peer.pump(lambda: GOAWAY in peer.control_frames, limit=arguments.maximum), "no GOAWAY"
    told = time.time() - begin
    print(f"GOAWAY after {told:.1f} s")
    assert arguments.maximum / 2 - 2 < told < arguments.maximum * 3 / 4 + 2, told

    # RFC 9114 section 5.2: what is open goes on.
    received = peer.ping(stream, arguments.office)
    assert received == 3, f"{received} of 3 pings came back after GOAWAY"
    print("ping: 3 of 3")

    peer.pump(lambda: peer.closed is not None, limit=arguments.maximum)
    assert peer.closed, "it was not closed"
    code, reason = peer.closed
    print(f"closed after {time.time() - begin:.1f} s: {code:#x} {reason!r}")
    assert code == SESSION_MAXIMUM and "session maximum" in reason, peer.closed
    assert time.time() - begin > arguments.maximum - 3, "too early"
    peer.socket.close()


if __name__ == "__main__":
    main()
