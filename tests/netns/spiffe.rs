//! X.509-SVIDs on both ends: a URI is the whole identity, the subject is empty, and every life is short.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Client, Programs, Setup};
use anyhow::{Context, Result, ensure};
use toml::Table;

use crate::bed::{Bed, audit, failed, note, steadily};
use crate::certificates::{listed, one};
use crate::corporate::towards_the_gateway;
use crate::openssl::{ECDSA, OpenSsl, after};
use crate::page::{AUTHORITIES, blocks_of};
use crate::renewal::{moved, serial};

const LAPTOP: &str = "spiffe://example.org/laptop/7";
const SITE: &str = "spiffe://example.org/site/berlin";
const GATEWAY: &str = "spiffe://example.org/gateway";

pub(crate) fn ids_are_principals_and_their_certificates_come_and_go(
    programs: &Programs,
) -> Result<()> {
    let layout = Layout {
        laptops: 3,
        ..Layout::default()
    };
    let mut made = None;
    let mut bed = Bed::with(programs, layout, |setup| {
        let domain = TrustDomain::new(&setup.gateway_directory().join("agent"))?;
        let section = blocks_of(AUTHORITIES, HEADING, "toml")[1];
        let mut section: Table = section.replace("\"bundle", "\"agent/bundle").parse()?;
        section.insert("certificate".to_owned(), "agent/gateway/svid.pem".into());
        section.insert("key".to_owned(), "agent/gateway/svid-key.pem".into());
        setup.configure(|server| {
            server.remove("enrolment");
            server.extend(section);
        })?;
        made = Some(domain);
        let rules = blocks_of(AUTHORITIES, HEADING, "toml")[2];
        setup.policy(&format!("[pool]\nv4 = \"10.99.0.0/24\"\n\n{rules}"))
    })?;
    let domain = made.context("it was just made")?;
    let laptop = domain.profile(&bed.setup, "laptop", LAPTOP, HOUR)?;
    let site = domain.profile(&bed.setup, "site", SITE, HOUR)?;
    let other = domain.profile(&bed.setup, "other", "spiffe://example.org/other", HOUR)?;

    let mut first = bed.setup.connect(&bed.internet.laptops[0], &laptop)?;
    let mut second = bed.setup.connect(&bed.internet.laptops[1], &site)?;
    let foreign = domain.profile(
        &bed.setup,
        "foreign",
        "spiffe://partner.example/laptop/7",
        HOUR,
    )?;
    for (profile, words) in [
        (&other, ["no access", "spiffe://example.org/other"]),
        (
            &foreign,
            [
                "is not of the trust domain example.org",
                "partner.example/laptop/7",
            ],
        ),
    ] {
        let mut nobody = bed.setup.client(&bed.internet.laptops[2], profile)?;
        nobody.start()?;
        failed(&nobody.end()?, 1, &words)?;
    }
    Ping::to(internet::OFFICE_V4).expect_all(second.namespace())?;
    ensure!(bed.gateway.principals()? == [LAPTOP, SITE]);
    let rows = listed(&bed, &[])?;
    for name in [LAPTOP, SITE] {
        let row = one(&rows, name, "example.org")?;
        let is_svid = row["purpose"] == "client and gateway" && row["subject"] == "";
        ensure!(is_svid && row["issuer"] == "O=SPIRE", "{row:#}");
    }

    let steady = [
        steadily(internet::OFFICE_V4, first.namespace())?,
        steadily(internet::OFFICE_V4, second.namespace())?,
    ];
    the_gateways_own_is_rotated(&bed, &domain)?;
    certificate_and_key_change_one_after_the_other(&domain, &mut first)?;
    a_life_of_seconds_is_followed_by_the_next(&domain, &mut first)?;
    whoever_comes_later_finds_the_gateway_renewed(&bed, &domain)?;
    for (name, steady) in [LAPTOP, SITE].into_iter().zip(steady) {
        let steady = steady.stop()?;
        note(&format!("{name}: {}", steady.summary()));
        ensure!(steady.lost.is_empty(), "{name} lost {:?}", steady.lost);
    }
    let events = audit(&bed)?;
    let ended = events.iter().filter(|line| line["event"] == "disconnect");
    let ended: Vec<_> = ended.map(|line| &line["principal"]).collect();
    ensure!(ended == ["spiffe://example.org/laptop/8"], "{ended:?}");

    // Nobody brings another: the session is over with the certificate.
    let before = serial(&second.status()?)?;
    domain.rotate("site", SITE, LAST)?;
    moved(&second, &before)?;
    let end = second.end()?;
    failed(&end, 1, &["the session ended with its certificate"])?;
    bed.gateway.process().still_runs()
}

/// As an agent writes them that makes a new key each time: between the two files nothing fits, and nothing happens.
fn certificate_and_key_change_one_after_the_other(
    domain: &TrustDomain,
    client: &mut Client,
) -> Result<()> {
    let before = serial(&client.status()?)?;
    domain.prepare("laptop", LAPTOP, HOUR)?;
    domain.take("laptop", "svid.pem")?;
    let status = until(Duration::from_secs(10), || {
        let status = client.status()?;
        Ok((!status["renewal_error"].is_null()).then_some(status))
    })?;
    ensure!(
        status["state"] == "up" && serial(&status)? == before,
        "{status}"
    );
    domain.take("laptop", "svid-key.pem")?;
    moved(client, &before)?;
    ensure!(client.status()?["renewal_error"].is_null());
    Ok(())
}

fn a_life_of_seconds_is_followed_by_the_next(
    domain: &TrustDomain,
    client: &mut Client,
) -> Result<()> {
    let before = serial(&client.status()?)?;
    domain.rotate("laptop", LAPTOP, SECONDS)?;
    let short = moved(client, &before)?;
    let end = client.status()?["certificate"]["not_after"].as_i64();
    let end = jiff::Timestamp::from_second(end.context("no end")?)?;
    domain.rotate("laptop", LAPTOP, HOUR)?;
    moved(client, &short)?;
    // Its end passes, and is nobody's any more.
    let left = jiff::Timestamp::now().until(end)?;
    std::thread::sleep(Duration::try_from(left)? + Duration::from_secs(2));
    client.process()?.still_runs()
}

/// The gateway reads its own again when it is told to.
fn the_gateways_own_is_rotated(bed: &Bed, domain: &TrustDomain) -> Result<()> {
    domain.rotate("gateway", &format!("{GATEWAY},DNS:vpn.example.com"), HOUR)?;
    let outcome = bed.gateway.reload(&[])?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    Ok(())
}

/// The one that it began with has ended by now.
fn whoever_comes_later_finds_the_gateway_renewed(bed: &Bed, domain: &TrustDomain) -> Result<()> {
    let ended = |end: &jiff::Timestamp| *end < jiff::Timestamp::now();
    until(FIRST, || Ok(ended(&domain.gateway_ends).then_some(())))?;
    let id = "spiffe://example.org/laptop/8";
    let profile = domain.profile(&bed.setup, "newcomer", id, HOUR)?;
    let newcomer = bed.setup.connect(&bed.internet.laptops[2], &profile)?;
    Ping::to(internet::OFFICE_V4).expect_all(newcomer.namespace())?;
    newcomer.stop()?;
    Ok(())
}

/// A trust domain as SPIRE has one: a root with the domain for its name, a server below it, and who gets an SVID.
struct TrustDomain {
    openssl: OpenSsl,
    /// When the certificate ends that the gateway begins with.
    gateway_ends: jiff::Timestamp,
}

impl TrustDomain {
    fn new(directory: &Path) -> Result<Self> {
        let page = "## OpenSSL: a root, a policy authority, an issuing authority";
        let configuration = blocks_of(AUTHORITIES, page, "ini")[0];
        let openssl = OpenSsl::new(directory, &format!("{configuration}{EXTENSIONS}"), ECDSA)?;
        openssl.run(
            "touch root.db issuing.db
             openssl req -x509 -extensions domain -newkey $KEY -nodes -keyout root.key -subj /O=SPIFFE -days 7 -out root.pem
             cp root.pem bundle.pem
             openssl req -newkey $KEY -nodes -keyout issuing.key -subj /O=SPIRE -out issuing.csr
             AUTHORITY=root openssl ca -batch -notext -extensions domain -days 1 -in issuing.csr -out issuing.pem",
        )?;
        let gateway_ends = jiff::Timestamp::now() + FIRST;
        let domain = Self {
            openssl,
            gateway_ends,
        };
        domain.rotate("gateway", &format!("{GATEWAY},DNS:vpn.example.com"), FIRST)?;
        Ok(domain)
    }

    /// Makes key and certificate of a workload, and leaves them beside the files that count.
    fn prepare(&self, name: &str, id: &str, life: Duration) -> Result<()> {
        let end = after(life)?;
        self.openssl.run(&format!(
            "mkdir -p {name}
             openssl req -newkey $KEY -nodes -keyout {name}/svid-key.pem.new -subj / -out {name}/csr.pem
             AUTHORITY=issuing NAME=critical,URI:{id} openssl ca -batch -notext -extensions svid -enddate {end} \
             -in {name}/csr.pem -out {name}/leaf.pem
             cat {name}/leaf.pem issuing.pem > {name}/svid.pem.new
             cp bundle.pem {name}/bundle.pem"
        ))
    }

    /// Puts one of the prepared files in place.
    fn take(&self, name: &str, file: &str) -> Result<()> {
        self.openssl
            .run(&format!("mv {name}/{file}.new {name}/{file}"))
    }

    fn rotate(&self, name: &str, id: &str, life: Duration) -> Result<()> {
        self.prepare(name, id, life)?;
        self.take(name, "svid-key.pem")?;
        self.take(name, "svid.pem")
    }

    /// The profile of the page, for a workload that has its files.
    fn profile(&self, setup: &Setup, name: &str, id: &str, life: Duration) -> Result<PathBuf> {
        self.rotate(name, id, life)?;
        let path = self.openssl.path(name).join("profile.toml");
        fs::write(&path, blocks_of(AUTHORITIES, HEADING, "toml")[0])?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        towards_the_gateway(setup, &path)?;
        Ok(path)
    }
}

const HEADING: &str = "## SPIFFE and SPIRE";

/// X.509-SVID §4: what SPIRE writes into certificates.
const EXTENSIONS: &str = "
[domain]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectAltName = URI:spiffe://example.org
subjectKeyIdentifier = hash

[svid]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyAgreement
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = $ENV::NAME
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// What the gateway begins with.
const FIRST: Duration = Duration::from_secs(40);
const HOUR: Duration = Duration::from_secs(3600);
/// Long enough to be seen in use on a busy machine.
const SECONDS: Duration = Duration::from_secs(30);
/// What is left to the last one.
const LAST: Duration = Duration::from_secs(10);
