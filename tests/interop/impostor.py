"""A gateway that is none: aioquic with a certificate that is good for something else.

    impostor.py KIND --listen ADDRESS --gateway-directory …    serves until it is killed; says "listening" when it does

KIND is who signed the certificate that it shows for the gateway's name: `online`, the intermediate for clients only, whose
key is on the gateway; `client`, a client's own key; `stranger`, an authority nobody knows.
"""

import argparse
import asyncio
import pathlib
import tempfile

from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography.x509.oid import ExtendedKeyUsageOID

from credentials import Forge
from peer import NAME

GATEWAY = dict(emails=(), hosts=(NAME,), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))


def shown(kind: str, forge: Forge, gateway_directory: pathlib.Path):
    match kind:
        case "online":
            return forge.client("impostor", under=forge.signer(gateway_directory / "issuing", shown=True), **GATEWAY)
        case "client":
            # As it is: its name and purpose are a client's.
            return forge.client("impostor", unit="staff")
        case "stranger":
            return forge.client("impostor", impostor=True, **GATEWAY)
    raise ValueError(kind)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--gateway-directory", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        gateway_directory = pathlib.Path(arguments.gateway_directory)
        forge = Forge(gateway_directory / "ca", pathlib.Path(directory))
        credentials = shown(arguments.kind, forge, gateway_directory)
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
        configuration.load_cert_chain(credentials.certificate, credentials.key)
        await serve(arguments.listen, arguments.port, configuration=configuration)
        print("listening", flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main())
