//! What both ends do with the capsules on the request stream.
//!
//! One piece of the stream may hold thousands of capsules; what comes out of it is bounded, because
//! every list replaces the one before (RFC 9484 §4.7) and packets may be dropped.

use bytes::{Buf, Bytes};
use ipnet::IpNet;

use crate::h3::ErrorCode;
use crate::range::RouteRange;
use crate::wire::capsule::{
    AssignedAddress, Capsule, CapsuleError, CapsuleReader, RequestedAddress,
};
use crate::wire::varint;

/// The capsule side of one tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    capsules: CapsuleReader,
    requests_left: usize,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            capsules: CapsuleReader::default(),
            requests_left: MAX_REQUESTED,
        }
    }
}

/// What a piece of the stream said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The last list of addresses assigned to us, without rejections.
    pub(super) assigned: Option<Vec<IpNet>>,
    /// The last list of routes.
    pub(super) routes: Option<Vec<RouteRange>>,
    /// All addresses that were asked for.
    pub(super) requested: Vec<RequestedAddress>,
    /// IP packets in DATAGRAM capsules, at most [`MAX_PACKETS`].
    pub(super) packets: Vec<Bytes>,
}

/// Why the tunnel must be aborted.
#[derive(Debug)]
pub(super) struct Abort {
    pub(super) code: ErrorCode,
    pub(super) reason: String,
}

impl Tunnel {
    /// Reads a piece of the stream.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Said, Abort> {
        self.capsules.push(bytes);
        let mut said = Said::default();
        while let Some(capsule) = self.capsules.next()? {
            match capsule {
                Capsule::AddressAssign(entries) => {
                    let assigned = entries.iter().filter(|entry| !entry.is_rejection());
                    let mut prefixes: Vec<IpNet> = Vec::new();
                    for entry in assigned {
                        prefixes.push(entry.prefix);
                    }
                    said.assigned = Some(prefixes);
                }
                Capsule::AddressRequest(entries) => {
                    let left = self.requests_left.checked_sub(entries.len());
                    self.requests_left = left.ok_or_else(|| Abort {
                        code: ErrorCode::ExcessiveLoad,
                        reason: format!("the peer asked for more than {MAX_REQUESTED} addresses"),
                    })?;
                    said.requested.extend(entries);
                }
                Capsule::RouteAdvertisement(ranges) => said.routes = Some(ranges),
                Capsule::Datagram(mut payload) => {
                    // RFC 9484 §5: context 0 is an IP packet, others were never registered.
                    if let Some((0, len)) = varint::decode(&payload)
                        && said.packets.len() < MAX_PACKETS
                    {
                        payload.advance(len);
                        said.packets.push(payload);
                    }
                }
            }
        }
        Ok(said)
    }

    /// Says whether the stream may end here.
    pub(super) fn finish(&self) -> Result<(), Abort> {
        Ok(self.capsules.finish()?)
    }
}

impl From<CapsuleError> for Abort {
    fn from(error: CapsuleError) -> Self {
        let code = match error {
            CapsuleError::TooLong(_) => ErrorCode::ExcessiveLoad,
            // RFC 9297 §3.3: the message is malformed.
            _ => ErrorCode::Message,
        };
        Self {
            code,
            reason: error.to_string(),
        }
    }
}

/// The full list of addresses with the answers to these requests (RFC 9484 §4.7.1, §4.7.2).
///
/// Each request gets the address it names if that is in the list, else the next one of its family
/// that answers no other request, else a rejection.
pub(super) fn answer(addresses: &[IpNet], requests: &[RequestedAddress]) -> Capsule {
    let mut entries: Vec<_> = addresses
        .iter()
        .map(|prefix| AssignedAddress {
            request_id: 0,
            prefix: prefix.trunc(),
        })
        .collect();
    for request in requests {
        let v6 = request.prefix.addr().is_ipv6();
        let free =
            |entry: &AssignedAddress| entry.request_id == 0 && entry.prefix.addr().is_ipv6() == v6;
        let place = entries
            .iter()
            .position(|entry| free(entry) && entry.prefix == request.prefix)
            .or_else(|| entries.iter().position(free));
        match place {
            Some(place) => entries[place].request_id = request.request_id,
            None => entries.push(AssignedAddress::rejection(request)),
        }
    }
    Capsule::AddressAssign(entries)
}

/// Addresses that a peer may ask for in the life of a session. Each answer repeats the whole list,
/// so that an unlimited number of requests would be an amplifier; clients ask once for each family.
const MAX_REQUESTED: usize = 256;
/// Packets taken from one piece of the stream; QUIC datagrams are the way for more.
const MAX_PACKETS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn encoded(capsules: &[Capsule]) -> Vec<u8> {
        let mut out = Vec::new();
        capsules.iter().for_each(|capsule| capsule.encode(&mut out));
        out
    }

    fn ids(capsule: &Capsule) -> Vec<(u64, String)> {
        let Capsule::AddressAssign(entries) = capsule else {
            panic!("{capsule:?}")
        };
        entries
            .iter()
            .map(|entry| (entry.request_id, entry.prefix.to_string()))
            .collect()
    }

    #[test]
    fn every_request_is_answered_once_and_every_address_listed_once() {
        let addresses = nets(&["10.0.0.7/32", "fd00::7/128", "10.20.0.0/16"]);
        let wish = RequestedAddress {
            request_id: 4,
            prefix: "10.20.0.0/16".parse().unwrap(),
        };
        let requests = [
            wish,
            RequestedAddress::any(1, false),
            RequestedAddress::any(2, true),
            RequestedAddress::any(3, true),
            RequestedAddress::any(5, false),
        ];
        let expected = [
            (1, "10.0.0.7/32"),
            (2, "fd00::7/128"),
            (4, "10.20.0.0/16"),
            (3, "::/128"),
            (5, "0.0.0.0/32"),
        ];
        assert_eq!(
            ids(&answer(&addresses, &requests)),
            expected.map(|(id, net)| (id, net.to_owned()))
        );
    }

    #[test]
    fn the_last_list_of_a_piece_counts_and_rejections_assign_nothing() {
        let bytes = encoded(&[
            answer(&nets(&["10.0.0.7/32"]), &[]),
            answer(&nets(&["10.0.0.8/32"]), &[RequestedAddress::any(2, true)]),
            Capsule::RouteAdvertisement(Vec::new()),
        ]);
        let said = Tunnel::default().read(&bytes).unwrap();
        assert_eq!(said.assigned, Some(nets(&["10.0.0.8/32"])));
        assert_eq!(said.routes, Some(Vec::new()));
    }

    #[test]
    fn only_packets_of_context_zero_are_taken_and_not_too_many() {
        let datagram = |bytes: &'static [u8]| Capsule::Datagram(Bytes::from_static(bytes));
        let mut tunnel = Tunnel::default();
        let said = tunnel
            .read(&encoded(&[
                datagram(b"\x00ip"),
                datagram(b"\x02x"),
                datagram(b""),
            ]))
            .unwrap();
        assert_eq!(said.packets, [&b"ip"[..]]);
        let flood = encoded(&vec![datagram(b"\x00ip"); 5000]);
        assert_eq!(tunnel.read(&flood).unwrap().packets.len(), MAX_PACKETS);
    }

    #[test]
    fn a_peer_that_asks_without_end_is_aborted() {
        let mut tunnel = Tunnel::default();
        let one = encoded(&[Capsule::AddressRequest(vec![RequestedAddress::any(
            1, false,
        )])]);
        for _ in 0..MAX_REQUESTED {
            assert_eq!(tunnel.read(&one).unwrap().requested.len(), 1);
        }
        assert_eq!(
            tunnel.read(&one).unwrap_err().code,
            ErrorCode::ExcessiveLoad
        );
    }

    #[test]
    fn malformed_and_truncated_capsules_are_message_errors() {
        assert_eq!(
            Tunnel::default().read(&[2, 0]).unwrap_err().code,
            ErrorCode::Message
        );
        let mut tunnel = Tunnel::default();
        assert!(tunnel.read(&[1]).is_ok());
        assert_eq!(tunnel.finish().unwrap_err().code, ErrorCode::Message);
    }
}
