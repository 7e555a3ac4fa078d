"""The register of hostile cases."""

import dataclasses
import re
from typing import Callable

CASES: dict[str, "Case"] = {}

# RFC 9114 section 8.1 and RFC 9297 section 5.2, as verdicts print them.
FRAME_UNEXPECTED, STREAM_CREATION = "0x105", "0x103"
CLOSED_CRITICAL, SETTINGS_ERROR, MISSING_SETTINGS = "0x104", "0x109", "0x10a"
EXCESSIVE_LOAD, MESSAGE, QPACK = "0x107", "0x10e", "0x200"
DATAGRAM_ERROR = "0x33"
# RFC 9114 section 4.1.2, and RFC 9297 section 3.3 for capsules: a malformed message is a stream error. A stream
# has two directions, and either may tell first.
MALFORMED = rf"(reset|stopped) {MESSAGE}"


@dataclasses.dataclass
class Case:
    run: Callable
    prescribed: str
    # Whether it needs a gateway that issues certificates, and a code.
    invited: bool = False

    def accepts(self, verdict: str) -> bool:
        return re.match(rf"(?:{self.prescribed})(?:$|[ ;,'])", verdict) is not None


def case(prescribed: str, *, invited=False):
    """Registers a function under its name; its verdict must begin with `prescribed`, a regular expression."""

    def register(function):
        CASES[function.__name__] = Case(function, prescribed, invited)
        return function

    return register


# Each module registers its cases when it is imported.
import handshake  # noqa: E402, F401
import requests_h3  # noqa: E402, F401
import capsules  # noqa: E402, F401
import packets  # noqa: E402, F401
import chains  # noqa: E402, F401
import lists  # noqa: E402, F401
import enrolment  # noqa: E402, F401
