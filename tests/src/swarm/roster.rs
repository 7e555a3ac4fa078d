//! Who is in a swarm: principals, their certificates, and the authority the gateway is told about.

use std::fs;
use std::sync::Arc;

use adit_pki::{Authority, Credential, IssueRequest};
use adit_tunnel::tls::{self, Algorithms, Credentials, GatewayVerifier, QuicClient};
use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::DefaultTimeProvider;
use toml::Value;

use crate::programs::{Setup, table};

/// Certificates of as many principals as will be needed at once.
pub struct Roster {
    members: Vec<Arc<QuicClient>>,
}

impl Roster {
    /// Issues `size` certificates to members of `group`, and adds their authority to those of the gateway,
    /// which must not run yet. Its policy must have a pool that is large enough: [`Roster::enlarge`].
    ///
    /// The authority of [`Setup`] would have each certificate on the disk before the next is made, which for
    /// thousands takes minutes. This one lives in memory.
    pub fn new(setup: &Setup, size: usize, group: &str) -> Result<Self> {
        let now = i64::try_from(UnixTime::now().as_secs())?;
        let authority = Authority::ephemeral("Swarm", now)?;
        believe(setup, authority.certificate_pem())?;
        let anchors = anchors(setup)?;
        let issued = (0..size).map(|number| {
            let request = IssueRequest::client(format!("member{number}@example.com"), now);
            Ok(authority.issue(&request.with_groups([group]), now)?)
        });
        Self::believing(anchors, issued)
    }

    /// Holders of these certificates, which the gateway's own authority issued.
    pub fn of(setup: &Setup, issued: Vec<Credential>) -> Result<Self> {
        Self::believing(anchors(setup)?, issued.into_iter().map(Ok))
    }

    fn believing(
        anchors: Vec<CertificateDer<'static>>,
        issued: impl Iterator<Item = Result<Credential>>,
    ) -> Result<Self> {
        let algorithms = Algorithms::for_this_cpu();
        let verifier = GatewayVerifier::new(anchors, &Arc::new(algorithms.provider()))?;
        let members = issued.map(|issued| {
            let member = issued?;
            let credentials = Credentials {
                chain: vec![member.issued.certificate_der.into()],
                key: PrivateKeyDer::from_pem_slice(member.key_pem.as_bytes())?,
            };
            let (verifier, time) = (Arc::clone(&verifier), Arc::new(DefaultTimeProvider));
            Ok(tls::client_config(algorithms, credentials, verifier, time)?)
        });
        Ok(Self {
            members: members.collect::<Result<_>>()?,
        })
    }

    /// Gives the gateway of `setup` a pool of 65,000 addresses; its policy is replaced by `policy`, which must
    /// agree with that.
    pub fn enlarge(setup: &Setup, policy: &str) -> Result<()> {
        setup.policy(policy)?;
        setup.configure(|server| {
            let addresses = ["10.99.0.1/16", "fd00:ad17::1/64"].map(|text| text.to_owned().into());
            table(server, "inside").insert("addresses".to_owned(), Value::Array(addresses.into()));
        })
    }

    /// The first `size` of them.
    pub(super) fn members(&self, size: usize) -> Result<&[Arc<QuicClient>]> {
        let known = self.members.len();
        ensure!(size <= known, "{size} clients of a roster of {known}");
        Ok(&self.members[..size])
    }
}

/// Whom clients believe.
fn anchors(setup: &Setup) -> Result<Vec<CertificateDer<'static>>> {
    let path = setup.authority().join("ca.pem");
    let anchors: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .collect();
    Ok(anchors?)
}

/// Lets the gateway's authority vouch by one more anchor.
fn believe(setup: &Setup, anchor: &str) -> Result<()> {
    let own = fs::read_to_string(setup.authority().join("ca.pem"))?;
    fs::write(
        setup.gateway_directory().join(ANCHORS),
        format!("{own}{anchor}"),
    )?;
    setup.configure(|server| {
        let authorities = server.get_mut("authority").and_then(Value::as_array_mut);
        for authority in authorities.into_iter().flatten() {
            if let Some(table) = authority.as_table_mut() {
                table.insert("certificates".to_owned(), ANCHORS.to_owned().into());
            }
        }
    })
}

/// Relative to the gateway's configuration.
const ANCHORS: &str = "anchors.pem";
