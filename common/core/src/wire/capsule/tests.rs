use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Vec<Capsule>, CapsuleError> {
    let mut reader = CapsuleReader::default();
    reader.push(bytes);
    let mut capsules = Vec::new();
    while let Some(capsule) = reader.next()? {
        capsules.push(capsule);
    }
    reader.finish()?;
    Ok(capsules)
}

fn raw(kind: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(kind, &mut out);
    varint::encode(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn range(start: &str, end: &str, protocol: u8) -> RouteRange {
    RouteRange::new(start.parse().unwrap(), end.parse().unwrap(), protocol).unwrap()
}

#[test]
fn an_assignment_is_encoded_as_the_rfc_draws_it() {
    let capsule = Capsule::AddressAssign(vec![
        AssignedAddress {
            request_id: 1,
            prefix: "192.0.2.11/32".parse().unwrap(),
        },
        AssignedAddress {
            request_id: 0,
            prefix: "2001:db8::/48".parse().unwrap(),
        },
    ]);
    let mut bytes = Vec::new();
    capsule.encode(&mut bytes);
    let mut expected = vec![
        1,
        7 + 19,
        1,
        4,
        192,
        0,
        2,
        11,
        32,
        0,
        6,
        0x20,
        0x01,
        0x0d,
        0xb8,
    ];
    expected.extend([0; 12]);
    expected.push(48);
    assert_eq!(bytes, expected);
    assert_eq!(read(&bytes), Ok(vec![capsule]));
}

#[test]
fn empty_lists_are_valid_where_the_rfc_allows_them() {
    assert_eq!(read(&[1, 0]), Ok(vec![Capsule::AddressAssign(vec![])]));
    assert_eq!(read(&[3, 0]), Ok(vec![Capsule::RouteAdvertisement(vec![])]));
    assert_eq!(read(&[0, 0]), Ok(vec![Capsule::Datagram(Bytes::new())]));
    assert_eq!(read(&[2, 0]), Err(CapsuleError::EmptyRequest));
}

#[test]
fn malformed_addresses_are_refused() {
    let cases: [(&[u8], CapsuleError); 8] = [
        (&[1, 5, 10, 0, 0, 1, 32], CapsuleError::Version(5)),
        (&[1, 4, 10, 0, 0, 1, 33], CapsuleError::PrefixLength(33)),
        (&[1, 4, 10, 0, 0, 1, 24], CapsuleError::HostBits),
        (&[1, 4, 10, 0, 0, 1], CapsuleError::Truncated),
        (&[1, 4, 10, 0, 0], CapsuleError::Truncated),
        (&[1], CapsuleError::Truncated),
        (&[0x40], CapsuleError::Truncated),
        (&[1, 4, 10, 0, 0, 1, 32, 9], CapsuleError::Truncated),
    ];
    for (value, error) in cases {
        assert_eq!(read(&raw(ADDRESS_ASSIGN, value)), Err(error), "{value:?}");
        assert_eq!(read(&raw(ADDRESS_REQUEST, value)), Err(error), "{value:?}");
    }
    let v6 = [&[1, 6][..], &[0; 16], &[129]].concat();
    assert_eq!(
        read(&raw(ADDRESS_ASSIGN, &v6)),
        Err(CapsuleError::PrefixLength(129))
    );
    let zero = [0, 4, 0, 0, 0, 0, 32];
    assert_eq!(
        read(&raw(ADDRESS_REQUEST, &zero)),
        Err(CapsuleError::RequestId)
    );
    assert!(read(&raw(ADDRESS_ASSIGN, &zero)).is_ok());
}

#[test]
fn malformed_routes_are_refused() {
    let backwards = [4, 10, 0, 0, 2, 10, 0, 0, 1, 0];
    assert_eq!(
        read(&raw(ROUTE_ADVERTISEMENT, &backwards)),
        Err(CapsuleError::Range)
    );
    assert_eq!(
        read(&raw(ROUTE_ADVERTISEMENT, &backwards[..9])),
        Err(CapsuleError::Truncated)
    );
    assert_eq!(
        read(&raw(ROUTE_ADVERTISEMENT, &[7; 10])),
        Err(CapsuleError::Version(7))
    );
    let (a, b) = (
        [4, 10, 0, 0, 0, 10, 0, 0, 9, 0],
        [4, 10, 0, 0, 10, 10, 0, 0, 20, 0],
    );
    let (tcp, touching) = (
        [4, 10, 0, 0, 0, 10, 0, 0, 9, 6],
        [4, 10, 0, 0, 9, 10, 0, 0, 20, 0],
    );
    let v6 = [&[6][..], &[0; 32], &[0]].concat();
    for (first, second, valid) in [
        (&a[..], &b[..], true),
        (&b, &a, false),
        (&a, &a, false),
        (&a, &touching, false),
        (&b, &tcp, true),
        (&tcp, &b, false),
        (&a, &v6, true),
        (&v6, &a, false),
    ] {
        let got = read(&raw(ROUTE_ADVERTISEMENT, &[first, second].concat()));
        if valid {
            assert!(got.is_ok(), "{first:?} {second:?} {got:?}");
        } else {
            assert_eq!(got, Err(CapsuleError::Order), "{first:?} {second:?}");
        }
    }
}

#[test]
fn routes_are_brought_into_order_when_they_are_sent() {
    let ordered = vec![
        range("10.0.0.0", "10.0.0.255", 0),
        range("10.2.0.0", "10.2.0.255", 6),
        range("::", "::1", 0),
    ];
    let mut bytes = Vec::new();
    let shuffled = vec![ordered[2], ordered[1], ordered[0]];
    Capsule::RouteAdvertisement(shuffled).encode(&mut bytes);
    assert_eq!(read(&bytes), Ok(vec![Capsule::RouteAdvertisement(ordered)]));
}

#[test]
fn unknown_capsules_are_skipped_without_being_held() {
    let bytes = [
        raw(0x1234, &[7; 100]),
        vec![1, 0],
        raw(0x29, &[]),
        vec![3, 0],
    ]
    .concat();
    assert_eq!(read(&bytes).map(|capsules| capsules.len()), Ok(2));
    let mut head = Vec::new();
    varint::encode(0x1234, &mut head);
    varint::encode(varint::MAX, &mut head);
    let mut reader = CapsuleReader::default();
    reader.push(&head);
    for _ in 0..100 {
        assert_eq!(reader.next(), Ok(None));
        reader.push(&[0; 10_000]);
        assert!(reader.buffer.is_empty());
    }
    assert_eq!(reader.finish(), Err(CapsuleError::Truncated));
}

#[test]
fn an_oversized_known_capsule_is_refused_and_an_oversized_datagram_skipped() {
    let mut head = vec![1];
    varint::encode(MAX_CAPSULE as u64 + 1, &mut head);
    assert_eq!(
        read(&head),
        Err(CapsuleError::TooLong(MAX_CAPSULE as u64 + 1))
    );
    let bytes = [raw(DATAGRAM, &[0; MAX_CAPSULE + 1]), vec![1, 0]].concat();
    assert_eq!(read(&bytes), Ok(vec![Capsule::AddressAssign(vec![])]));
}

#[test]
fn a_stream_that_ends_inside_a_capsule_is_truncated() {
    let bytes = raw(ADDRESS_ASSIGN, &[1, 4, 10, 0, 0, 1, 32]);
    for end in 1..bytes.len() {
        assert_eq!(read(&bytes[..end]), Err(CapsuleError::Truncated));
    }
    assert_eq!(
        read(&raw(0x1234, &[0; 5])[..4]),
        Err(CapsuleError::Truncated)
    );
}

#[test]
fn a_rejection_is_all_zeros_with_full_length() {
    for (wish, none) in [("10.0.0.0/8", "0.0.0.0/32"), ("2001:db8::/32", "::/128")] {
        let request = RequestedAddress {
            request_id: 9,
            prefix: wish.parse().unwrap(),
        };
        let answer = AssignedAddress::rejection(&request);
        assert_eq!(
            answer,
            AssignedAddress {
                request_id: 9,
                prefix: none.parse().unwrap()
            }
        );
        assert!(answer.is_rejection());
    }
    let default = AssignedAddress {
        request_id: 0,
        prefix: "0.0.0.0/0".parse().unwrap(),
    };
    assert!(!default.is_rejection());
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0_u8..=32)
            .prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap().trunc()),
        (any::<[u8; 16]>(), 0_u8..=128)
            .prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap().trunc()),
    ]
}

fn any_capsule() -> impl Strategy<Value = Capsule> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Capsule::Datagram(bytes.into())),
        prop::collection::vec((0..=varint::MAX, any_net()), 0..6).prop_map(|entries| {
            let entry = |(request_id, prefix)| AssignedAddress { request_id, prefix };
            Capsule::AddressAssign(entries.into_iter().map(entry).collect())
        }),
        prop::collection::vec((1..=varint::MAX, any_net()), 1..6).prop_map(|entries| {
            let entry = |(request_id, prefix)| RequestedAddress { request_id, prefix };
            Capsule::AddressRequest(entries.into_iter().map(entry).collect())
        }),
        prop::collection::btree_set(any::<u32>(), 0..12).prop_map(|bounds| {
            let bounds: Vec<_> = bounds.into_iter().map(Ipv4Addr::from).collect();
            let pairs = bounds.chunks_exact(2);
            let ranges =
                pairs.map(|pair| RouteRange::new(pair[0].into(), pair[1].into(), 0).unwrap());
            Capsule::RouteAdvertisement(ranges.collect())
        }),
    ]
}

proptest! {
    #[test]
    fn capsules_read_back_however_the_stream_is_cut(
        capsules in prop::collection::vec(any_capsule(), 0..6),
        cuts in prop::collection::vec(1_usize..30, 1..60),
    ) {
        let mut bytes = Vec::new();
        for capsule in &capsules {
            capsule.encode(&mut bytes);
            bytes.extend(raw(0x29, b"unknown"));
        }
        let mut reader = CapsuleReader::default();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = tail;
            reader.push(piece);
            while let Some(capsule) = reader.next().unwrap() {
                got.push(capsule);
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(got, capsules);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u64..4) {
        let _ = read(&bytes);
        let _ = read(&raw(kind, &bytes));
    }
}
