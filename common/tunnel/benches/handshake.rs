//! What a full mutual-TLS connection costs the gateway, from the client's first packet to a session with its lease.
//!
//! Certificates on P-256, key exchange X25519MLKEM768. Only the time inside the gateway counts (front desk and engine, on one
//! thread), not the client's; elements per second are connections per second and core. Beside it stands the arithmetic that
//! none of them can do without: key exchange, one signature made, two verified. Run with `cargo bench -p adit-tunnel`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/simulation/house.rs"]
#[allow(dead_code, unreachable_pub)]
mod house;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::admission::Admission;
use adit_core::identity::{AuthorityRule, GroupSource, PrincipalSource};
use adit_core::policy::Policy;
use adit_tunnel::tls::{
    self, Algorithms, Authorities, Authority, ClientAuth, Credentials, GatewayVerifier,
    HandshakeFacts, QuicClient,
};
use adit_tunnel::{
    Client, ClientConfig, ClientEvent, Datagram, EngineKeys, Epoch, GatewayConfig, InsideAddresses,
    Limits, ReceptionConfig, SecondConnection,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::NamedGroup;
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::time_provider::DefaultTimeProvider;

use house::{Disk, House};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT).sample_size(SAMPLES);
    targets = connection, arithmetic
}
criterion_main!(benches);

/// Everything the gateway does for one connection.
fn connection(criterion: &mut Criterion) {
    let pki = Pki::new();
    let mut world = World::new(&pki);
    let (_, facts) = world.connect();
    println!("negotiated: {:?}, {:?}", facts.cipher, facts.group);
    assert_eq!(facts.group, Some(NamedGroup::X25519MLKEM768));
    let mut group = criterion.benchmark_group("connection");
    group.throughput(Throughput::Elements(1));
    group.bench_function("the gateway's part", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| world.connect().0).sum());
    });
}

/// What of it no program can leave out.
fn arithmetic(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connection");
    group.throughput(Throughput::Elements(1));
    let provider = Algorithms::for_this_cpu().provider();
    let hybrid: &dyn SupportedKxGroup = *provider
        .kx_groups
        .iter()
        .find(|group| group.name() == NamedGroup::X25519MLKEM768)
        .expect("the provider has the hybrid");
    let theirs = hybrid.start().expect("a key share");
    let random = SystemRandom::new();
    let pkcs8 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .expect("a key")
        .serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).expect("a key");
    let public =
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
    let message = [7; 130];
    let signature = key.sign(&random, &message).expect("signed");
    group.bench_function("its arithmetic alone", |bencher| {
        bencher.iter(|| {
            black_box(
                hybrid
                    .start_and_complete(theirs.pub_key())
                    .expect("a secret"),
            );
            black_box(key.sign(&random, black_box(&message)).expect("signed"));
            // The authority's on the client's certificate, and the client's on the handshake.
            for _ in 0..2 {
                public
                    .verify(black_box(&message), signature.as_ref())
                    .expect("verified");
            }
        });
    });
}

/// A gateway, and the one principal that connects again and again.
struct World {
    house: House,
    tls: Arc<QuicClient>,
    now: Instant,
    connections: u64,
}

impl World {
    fn new(pki: &Pki) -> Self {
        let now = Instant::now();
        let algorithms = Algorithms::for_this_cpu();
        let provider = Arc::new(algorithms.provider());
        let rule = AuthorityRule {
            name: "example".to_owned(),
            principal: vec![PrincipalSource::Email, PrincipalSource::Dns],
            groups: GroupSource::Ou,
            trust_domain: None,
        };
        let authority = Authority::new(rule, vec![pki.anchor()], &provider).expect("an authority");
        let authorities = Arc::new(Authorities::new(vec![authority], ClientAuth::Mandatory));
        let tls = tls::gateway_config(
            algorithms,
            pki.leaf("vpn.example.com", ExtendedKeyUsagePurpose::ServerAuth),
            &authorities,
            Arc::new(DefaultTimeProvider),
        )
        .expect("the gateway's TLS");
        let policy = Arc::new(Policy::parse(POLICY, "policy.toml").expect("a policy"));
        let unix = time::OffsetDateTime::now_utc().unix_timestamp();
        let epoch = Epoch::new(now, unix);
        let reception = ReceptionConfig {
            keys: keys(0),
            limits: limits(None),
            engines: 1,
            tls,
            authorities,
            admission: Admission::new(policy, &[]),
            tunnel_mtu: 1400,
            second_connection: SecondConnection::Replace,
            epoch,
        };
        let inside = InsideAddresses {
            v4: Some([10, 99, 0, 1].into()),
            v6: None,
        };
        let engine = GatewayConfig {
            engine: 0,
            engines: 1,
            inside,
            epoch,
        };
        let house = House::new(reception, vec![engine], Disk::default(), 0);
        let verifier = GatewayVerifier::new(vec![pki.anchor()], &provider).expect("a verifier");
        let credentials = pki.leaf("alice@example.com", ExtendedKeyUsagePurpose::ClientAuth);
        let tls = tls::client_config(
            algorithms,
            credentials,
            verifier,
            Arc::new(DefaultTimeProvider),
        );
        Self {
            house,
            tls: tls.expect("the client's TLS"),
            now,
            connections: 0,
        }
    }

    /// One connection until the client has its addresses: the time that took inside the gateway.
    fn connect(&mut self) -> (Duration, HandshakeFacts) {
        self.connections += 1;
        let mut client = Client::new(
            self.now,
            ClientConfig {
                keys: keys(self.connections),
                limits: limits(Some(Duration::from_secs(10))),
                tls: Arc::clone(&self.tls),
                server_name: "vpn.example.com".to_owned(),
                authority: "vpn.example.com".to_owned(),
                user_agent: None,
                tunnel_mtu: 1400,
            },
        );
        client.set_gateways(self.now, vec![GATEWAY.parse().expect("an address")]);
        let mut spent = Duration::ZERO;
        let facts = 'connected: loop {
            spent += self.exchange(&mut client);
            while let Some(event) = client.poll_event() {
                match event {
                    ClientEvent::Assigned(_) => break 'connected client.facts(),
                    ClientEvent::Lost { refusal, .. } | ClientEvent::Stopped(refusal) => {
                        panic!("{refusal}")
                    }
                    _ => {}
                }
            }
        };
        // It goes, and is forgotten, on nobody's time.
        client.shutdown(self.now);
        self.exchange(&mut client);
        self.now += LONG_GONE;
        self.exchange(&mut client);
        assert_eq!(self.house.census().sessions, 0, "the client has left");
        (spent, facts.expect("a connection has facts"))
    }

    /// What the client has to say, and the gateway's answer; the time the gateway took.
    fn exchange(&mut self, client: &mut Client) -> Duration {
        let (now, mut batch) = (self.now, Vec::new());
        let mut inbox = Vec::new();
        client.handle_timeout(now);
        while let Some(transmit) = client.poll_transmit(now, &mut batch) {
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            inbox.extend(batch[..transmit.size].chunks(segment).map(BytesMut::from));
        }
        let mut outbox = Vec::new();
        let begin = Instant::now();
        for data in inbox {
            self.house.handle_udp(now, datagram(CLIENT, data));
        }
        self.house.handle_timeout(now);
        while let Some(transmit) = self.house.poll_transmit(now, &mut batch) {
            outbox.push((transmit.segment_size, batch[..transmit.size].to_vec()));
        }
        while self.house.poll_event().is_some() {}
        let spent = begin.elapsed();
        for (segment, bytes) in outbox {
            for data in bytes.chunks(segment.unwrap_or(bytes.len()).max(1)) {
                client.handle_udp(now, datagram(GATEWAY, BytesMut::from(data)));
            }
        }
        client.handle_timeout(now);
        spent
    }
}

fn datagram(from: &str, data: BytesMut) -> Datagram {
    let remote: SocketAddr = from.parse().expect("an address");
    Datagram {
        remote,
        local_ip: None,
        ecn: None,
        data,
    }
}

/// A throw-away authority.
struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Example");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("an authority"),
        }
    }

    fn anchor(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn leaf(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Credentials {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![if name.contains('@') {
            SanType::Rfc822Name(name.try_into().expect("a name"))
        } else {
            SanType::DnsName(name.try_into().expect("a name"))
        }];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

fn keys(number: u64) -> EngineKeys {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    EngineKeys {
        cid_key: seed,
        reset_key: seed,
        seed,
    }
}

fn limits(keep_alive: Option<Duration>) -> Limits {
    Limits {
        max_udp_payload: 1472,
        idle_timeout: Duration::from_secs(30),
        keep_alive,
    }
}

const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/24"

[[allow]]
who = ["alice@example.com"]
to = ["10.0.0.0/16"]
"#;

const GATEWAY: &str = "203.0.113.1:443";
const CLIENT: &str = "198.51.100.1:40000";

/// Longer than a closed connection lingers.
const LONG_GONE: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(1);
const MEASUREMENT: Duration = Duration::from_secs(4);
/// Some twenty connections each.
const SAMPLES: usize = 50;
