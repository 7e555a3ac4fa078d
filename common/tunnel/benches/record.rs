//! Sealing and opening QUIC packets with each record cipher, beside a plain copy of the same bytes.
//!
//! A full packet of 1400 bytes with a short header. The ciphers work in place, so that each round begins with the copy that
//! stands alone at the end. Which library is chosen at run time: `Algorithms::for_this_cpu`.
//! Run with `cargo bench -p adit-tunnel`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use adit_tunnel::tls::{Algorithms, RecordBackend};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls::Side;
use rustls::quic::{DirectionalKeys, Suite, Version};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    targets = seal, open, plain_copy, seal_a_batch
}
criterion_main!(benches);

/// Payload encrypted, header protected.
fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(PACKET as u64));
    for (name, suite) in suites() {
        let keys = suite.keys(&CONNECTION_ID, Side::Client, Version::V1).local;
        let plain = plain_packet();
        let mut packet = plain;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                packet.copy_from_slice(black_box(&plain));
                seal_packet(&keys, &mut packet);
                black_box(&mut packet);
            });
        });
    }
}

/// Header unprotected, payload decrypted and verified.
fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Bytes(PACKET as u64));
    for (name, suite) in suites() {
        let sender = suite.keys(&CONNECTION_ID, Side::Client, Version::V1).local;
        let keys = suite.keys(&CONNECTION_ID, Side::Server, Version::V1).remote;
        let mut sealed = plain_packet();
        seal_packet(&sender, &mut sealed);
        let mut packet = sealed;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                packet.copy_from_slice(black_box(&sealed));
                open_packet(&keys, &mut packet);
                black_box(&mut packet);
            });
        });
    }
}

/// The copy that both of the above contain, and nothing else.
fn plain_copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memcpy of a packet");
    group.throughput(Throughput::Bytes(PACKET as u64));
    let plain = plain_packet();
    let mut packet = plain;
    group.bench_function(format!("{PACKET}"), |bencher| {
        bencher.iter(|| {
            packet.copy_from_slice(black_box(&plain));
            black_box(&mut packet);
        });
    });
}

/// What one send call takes, sealed by one thread, and by two that share the work: whether one session is worth two
/// processors. A second thread that waits in a loop needs a processor for itself; one that sleeps must be woken.
fn seal_a_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal a batch");
    group.throughput(Throughput::Bytes((BATCH * PACKET) as u64));
    let suite = suites().swap_remove(0).1;
    let keys = suite.keys(&CONNECTION_ID, Side::Client, Version::V1).local;
    let seal_all = |packets: &mut [[u8; PACKET]]| {
        for packet in packets {
            seal_packet(&keys, packet);
        }
    };
    let (mut first, second) = (
        vec![plain_packet(); BATCH / 2],
        Mutex::new(vec![plain_packet(); BATCH / 2]),
    );
    group.bench_function("one thread", |bencher| {
        bencher.iter(|| {
            seal_all(&mut first);
            seal_all(&mut second.lock().expect("a batch"));
        });
    });
    for (name, sleeps) in [
        ("two threads, one in a loop", false),
        ("two threads, one asleep", true),
    ] {
        let (asked, done) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let helper = scope.spawn(|| {
                for round in 1.. {
                    while asked.load(Ordering::Acquire) < round {
                        if sleeps {
                            thread::park();
                        } else {
                            std::hint::spin_loop();
                        }
                    }
                    if asked.load(Ordering::Acquire) == u64::MAX {
                        return;
                    }
                    seal_all(&mut second.lock().expect("a batch"));
                    done.store(round, Ordering::Release);
                }
            });
            let mut round = 0;
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    round += 1;
                    asked.store(round, Ordering::Release);
                    helper.thread().unpark();
                    seal_all(&mut first);
                    while done.load(Ordering::Acquire) < round {
                        std::hint::spin_loop();
                    }
                });
            });
            asked.store(u64::MAX, Ordering::Release);
            helper.thread().unpark();
        });
    }
}

fn seal_packet(keys: &DirectionalKeys, packet: &mut [u8; PACKET]) {
    let (header, rest) = packet.split_at_mut(HEADER);
    let (payload, tag) = rest.split_at_mut(PACKET - HEADER - keys.packet.tag_len());
    let sealed = keys.packet.encrypt_in_place(NUMBER, header, payload);
    tag.copy_from_slice(sealed.expect("sealed").as_ref());
    let (first, number, sample) = protected(keys, packet);
    keys.header
        .encrypt_in_place(sample, first, number)
        .expect("protected");
}

fn open_packet(keys: &DirectionalKeys, packet: &mut [u8; PACKET]) {
    let (first, number, sample) = protected(keys, packet);
    keys.header
        .decrypt_in_place(sample, first, number)
        .expect("unprotected");
    let (header, payload) = packet.split_at_mut(HEADER);
    keys.packet
        .decrypt_in_place(NUMBER, header, payload)
        .expect("opened");
}

/// First byte, packet number, and the sample four bytes behind the number's start (RFC 9001 §5.4.2).
fn protected<'a>(
    keys: &DirectionalKeys,
    packet: &'a mut [u8; PACKET],
) -> (&'a mut u8, &'a mut [u8], &'a [u8]) {
    let (header, payload) = packet.split_at_mut(HEADER);
    let (first, rest) = header.split_first_mut().expect("a header");
    let number = &mut rest[CONNECTION_ID.len()..];
    (first, number, &payload[..keys.header.sample_len()])
}

fn plain_packet() -> [u8; PACKET] {
    let mut packet = [7; PACKET];
    // Short header, packet number of four bytes.
    packet[0] = 0x43;
    packet[HEADER - 4..HEADER].copy_from_slice(&(NUMBER as u32).to_be_bytes());
    packet
}

/// Every record cipher of both libraries.
fn suites() -> Vec<(String, Suite)> {
    let mut suites = Vec::new();
    for (library, backend) in [
        ("ring", RecordBackend::Ring),
        ("aws-lc", RecordBackend::AwsLc),
    ] {
        let algorithms = Algorithms {
            backend,
            aes_first: true,
        };
        for suite in algorithms.provider().cipher_suites {
            let name = format!("{library}/{:?}", suite.suite());
            let quic = suite.tls13().and_then(|suite| suite.quic_suite());
            suites.push((name, quic.expect("a suite of QUIC")));
        }
    }
    suites
}

/// What a path of 1500 bytes carries, about.
const PACKET: usize = 1400;
/// Packets in a batch of 64 KiB, about.
const BATCH: usize = 44;
/// First byte, connection id and packet number.
const HEADER: usize = 1 + CONNECTION_ID.len() + 4;
const CONNECTION_ID: [u8; 8] = [7; 8];
const NUMBER: u64 = 0x0102_0304;
/// Short, so that all groups together take a quarter of a minute.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASUREMENT: Duration = Duration::from_secs(1);
