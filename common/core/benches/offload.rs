//! Cutting and joining: what segmentation costs per byte, beside a plain copy of the same bytes.
//!
//! A packet of nearly 64 KiB is cut into segments of [`SIZE`] payload bytes, and those are joined again: checksums
//! verified, headers made, nothing copied. Run with `cargo bench -p adit-core --bench offload`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use adit_core::offload::coalesce::{Coalescer, Join, MAX_HEADERS};
use adit_core::offload::split::Segments;
use adit_core::offload::{SegmentKind, Segmentation};
use adit_core::wire::checksum::{self, Sum};
use adit_core::wire::ip::{IpPacket, TCP, UDP};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    targets = split, coalesce, plain_copy
}
criterion_main!(benches);

/// A packet as the TUN device gives it becomes packets that fit the tunnel, in memory that is reused.
fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    for (name, kind, v6) in shapes() {
        let packet = packet(kind, v6);
        let mut out = BytesMut::with_capacity(2 * packet.len());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let parsed = IpPacket::parse(black_box(&packet)).expect("a packet");
                let segments = Segments::new(&parsed, segmentation(kind)).expect("segments");
                for index in 0..segments.count() {
                    segments.append(index, &mut out);
                }
                black_box(&mut out);
            });
        });
    }
}

/// Packets out of the tunnel become one that the TUN device takes in one call.
fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    for (name, kind, v6) in shapes() {
        let segments = cut(&packet(kind, v6), kind);
        let mut coalescer = Coalescer::new(Join::TcpAndUdp);
        let mut headers = [0; MAX_HEADERS];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for segment in black_box(&segments) {
                    coalescer.push(segment.clone());
                }
                coalescer.flush();
                let bundle = coalescer.pop().expect("a bundle");
                assert_eq!(bundle.packets().len(), COUNT);
                black_box(bundle.headers(&mut headers));
                coalescer.recycle(bundle);
            });
        });
    }
}

/// The payload copied segment by segment, and nothing else.
fn plain_copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memcpy of segments");
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    let payload = vec![7; PAYLOAD];
    let mut out = BytesMut::with_capacity(PAYLOAD);
    group.bench_function(format!("{COUNT}x{SIZE}"), |bencher| {
        bencher.iter(|| {
            out.clear();
            for segment in black_box(&payload).chunks(SIZE) {
                out.extend_from_slice(segment);
            }
            black_box(&mut out);
        });
    });
}

fn shapes() -> [(&'static str, SegmentKind, bool); 4] {
    [
        ("tcp/v4", SegmentKind::Tcp, false),
        ("tcp/v6", SegmentKind::Tcp, true),
        ("udp/v4", SegmentKind::Udp, false),
        ("udp/v6", SegmentKind::Udp, true),
    ]
}

fn segmentation(kind: SegmentKind) -> Segmentation {
    Segmentation {
        kind,
        size: SIZE as u16,
    }
}

fn cut(packet: &[u8], kind: SegmentKind) -> Vec<Bytes> {
    let parsed = IpPacket::parse(packet).expect("a packet");
    let segments = Segments::new(&parsed, segmentation(kind)).expect("segments");
    let mut out = BytesMut::new();
    (0..segments.count())
        .map(|index| {
            segments.append(index, &mut out);
            out.split().freeze()
        })
        .collect()
}

/// An ordinary packet of a stream, timestamps and all, or of datagrams.
fn packet(kind: SegmentKind, v6: bool) -> Vec<u8> {
    let (protocol, mut transport) = match kind {
        SegmentKind::Tcp => {
            let mut header = vec![0x12, 0x34, 0x01, 0xbb, 0, 0, 0x10, 0, 0, 0, 0, 1];
            header.extend([0x80, 0x10, 0x01, 0xf4, 0, 0, 0, 0]);
            header.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            (TCP, header)
        }
        SegmentKind::Udp => {
            let length = (8 + PAYLOAD) as u16;
            let [high, low] = length.to_be_bytes();
            (UDP, vec![0x12, 0x34, 0x01, 0xbb, high, low, 0, 0])
        }
    };
    transport.resize(transport.len() + PAYLOAD, 7);
    let (source, destination) = if v6 {
        (
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]),
        )
    } else {
        (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]))
    };
    let sum = Sum::pseudo_header(source, destination, protocol, transport.len());
    let sum = sum.bytes(&transport).checksum().to_be_bytes();
    let field = kind.checksum_offset();
    transport[field..field + 2].copy_from_slice(&sum);
    [
        header(source, destination, protocol, transport.len()),
        transport,
    ]
    .concat()
}

fn header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
            header[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum::of(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => unreachable!("a packet has one family"),
    }
}

/// Payload of a segment in a tunnel whose packets have at most 1400 bytes, with timestamps over IPv4.
const SIZE: usize = 1348;
/// Segments of one batch of the outside socket, which is one packet of the device.
const COUNT: usize = 44;
const PAYLOAD: usize = COUNT * SIZE;
/// Short, so that all groups together take a quarter of a minute.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASUREMENT: Duration = Duration::from_secs(1);
