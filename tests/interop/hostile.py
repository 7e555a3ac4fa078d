"""The hostile sibling: every case does one forbidden thing and checks that the answer is the prescribed one.

    hostile.py --list            the names, one per line; behind it "invited" if the case needs a code
    hostile.py CASE --gateway …  runs it; prints the verdict as JSON; exit status 0 when it is prescribed

The cases are in handshake.py, chains.py, lists.py, enrolment.py, requests_h3.py, capsules.py and packets.py, by what they
attack.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import traceback


class World:
    """What a case may use."""

    def __init__(self, arguments, directory: pathlib.Path) -> None:
        from credentials import Forge

        self.gateway = (arguments.gateway, arguments.port)
        self.gateway_directory = pathlib.Path(arguments.gateway_directory)
        self.forge = Forge(self.gateway_directory / "ca", directory)
        self.neighbour = arguments.neighbour
        self.office = arguments.office
        self.denied = arguments.denied
        self.code = arguments.code

    def mallory(self):
        """A certificate that is admitted: what follows is about behaviour."""
        return self.forge.client("mallory", emails=("mallory@example.com",), unit="staff")

    def peer(self, credentials=None, **options):
        from peer import Peer

        return Peer(self.gateway, credentials or self.mallory(), **options)


def main() -> int:
    from cases import CASES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--gateway", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--gateway-directory", default=".")
    parser.add_argument("--office", nargs="*", default=[], help="addresses that may be reached, v4 and v6")
    parser.add_argument("--denied", nargs="*", default=[], help="addresses no policy allows, v4 and v6")
    parser.add_argument("--code", help="an invitation of guest@example.com in the group staff")
    parser.add_argument("--neighbour", nargs="*", default=[], help="addresses of the session beside, v4 and v6")
    arguments = parser.parse_args()
    if arguments.list:
        for name, attack in CASES.items():
            print(f"{name} invited" if attack.invited else name)
        return 0
    attack = CASES[arguments.case]
    with tempfile.TemporaryDirectory() as directory:
        try:
            verdict = attack.run(World(arguments, pathlib.Path(directory)))
        except Exception as error:  # the verdict of a case that could not be carried out
            traceback.print_exc()
            verdict = f"{type(error).__name__}: {error}"
    ok = attack.accepts(verdict)
    print(json.dumps({"case": arguments.case, "verdict": verdict, "prescribed": attack.prescribed, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
