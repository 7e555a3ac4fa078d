//! A session that moves to a new connection of the same client, so that a renewed certificate costs no packet.
//!
//! The gateway's 2xx carries a [`Place`]: where the next connection of this client should begin. The client's
//! next request carries a [`Proof`] that it has the connection before. Both stand in a field of the name
//! `adit-handover`, in hexadecimal; whoever does not know the field ignores it (RFC 9110 §5.1).

use std::fmt;

/// Where a client's next connection should begin: the first bytes of its first destination connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub [u8; 8]);

/// What only who has the connection before can know, and only on this new one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

impl Place {
    /// Reads the value of the field in an answer.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        read(value).map(Self)
    }
}

impl Proof {
    /// Reads the value of the field in a request.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        read(value).map(Self)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, &self.0)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, &self.0)
    }
}

/// Nothing of a proof belongs into a log.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

fn write(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let digit = |&byte: &u8| char::from(byte).to_digit(16);
    if value.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(value.chunks(2)) {
        let (high, low) = (digit(&pair[0])?, digit(&pair[1])?);
        *byte = u8::try_from(16 * high + low).ok()?;
    }
    Some(bytes)
}

/// The name of the field, in either direction.
pub(super) const FIELD: &str = "adit-handover";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let place = Place([0, 1, 0xab, 0xff, 4, 5, 6, 7]);
        assert_eq!(place.to_string(), "0001abff04050607");
        assert_eq!(Place::read(place.to_string().as_bytes()), Some(place));
        let proof = Proof([0xa5; 32]);
        assert_eq!(Proof::read(proof.to_string().as_bytes()), Some(proof));
        for wrong in [
            "",
            "0001abff0405060",
            "0001abff040506070",
            "0001abff0405060g",
            "+1+1+1+1+1+1+1+1",
        ] {
            assert_eq!(Place::read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
