//! Reads everything a gateway is configured with, and says exactly what is wrong with it.
//!
//! `check` and `run` share this, so that what `check` accepts `run` can start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_core::config::{ConfigError, Warning};
use adit_core::policy::Policy;
use adit_net::clock;
use adit_net::exit::Failure;
use adit_net::files::{self, FileError};
use adit_pki::AuthorityError;
use adit_pki::predecessor::PredecessorError;
use adit_tunnel::tls::{
    self, Algorithms, Authorities, Authority, ClientAuth, Credentials, ListRefusal, QuicServer,
    TlsError,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::time_provider::DefaultTimeProvider;

use crate::config::{AuthorityConfig, ServerConfig};
use crate::issuing::Issuing;
use crate::lists;

/// A complete, consistent configuration.
pub struct Loaded {
    /// `server.toml`.
    pub config: ServerConfig,
    /// `policy.toml`; its tests pass.
    pub policy: Arc<Policy>,
    /// What is odd about the policy, though usable.
    pub warnings: Vec<Warning>,
    /// The trust anchors.
    pub authorities: Arc<Authorities>,
    /// TLS with the gateway's certificate.
    pub tls: Arc<QuicServer>,
    /// That certificate with its key.
    pub credentials: Credentials,
    /// The authority that issues over the wire, if there is one.
    pub issuing: Option<Arc<Issuing>>,
}

/// What can be wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A TOML file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A PEM file does not hold what it should.
    #[error("{}: no {what} found", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The policy does not do what its own tests expect.
    #[error("{} of the {count} tests in {} fail:{}", failed.len(), path.display(), listed(failed))]
    Tests {
        /// The policy.
        path: PathBuf,
        /// How many tests there are.
        count: usize,
        /// Each with its line, what it expects, and what came out by which rule.
        failed: Vec<ConfigError>,
    },
    /// A revocation list is not one of the authority that names it.
    #[error("{}: {error}", path.display())]
    List {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: ListRefusal,
    },
    /// The folder of the authority that issues is none.
    #[error("{}: enrolment.folder cannot be used", path.display())]
    Authority {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        error: AuthorityError,
    },
    /// There is none whose certificates could be renewed.
    #[error("{}: enrolment.renews: {error}", path.display())]
    Predecessor {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: PredecessorError,
    },
    /// Whoever enrolled would not be let in.
    #[error("{}: enrolment.folder is of an authority that no [[authority]] stands above", path.display())]
    Stranger {
        /// Which folder.
        path: PathBuf,
    },
    /// Whoever enrolled would not believe the gateway.
    #[error("{}: does not vouch for the gateway's own certificate", path.display())]
    Foreign {
        /// The folder, or the file that is to be believed instead.
        path: PathBuf,
    },
    /// The certificates or the key cannot be used.
    #[error("{}: {error}", path.display())]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why, and the cause behind it.
        error: String,
    },
}

impl LoadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) if error.is_missing() => Some(
                "server.toml names its files, relative to itself; `adit-server init` makes them all".into(),
            ),
            Self::File(error) => error.hint(),
            Self::Config(error) => error.hint().map(str::to_owned),
            Self::Pem { what, .. } => Some(format!(
                "the file must hold a PEM block with a {what}, as `adit-ca issue` writes it"
            )),
            Self::Tests { .. } => Some("change the rules, or what the tests expect".into()),
            Self::List { .. } => Some(
                "crls must name complete lists that this authority signed, as `adit-ca crl` writes them"
                    .into(),
            ),
            Self::Authority { .. } => Some(
                "make one with `adit-ca init`, or take the section [enrolment] out of server.toml".into(),
            ),
            Self::Predecessor { .. } => Some(
                "name the certificates of authorities that issued here before: the ca.pem of their folders".into(),
            ),
            Self::Stranger { .. } => Some(
                "name its root in the certificates of an [[authority]], or clients that enrol are refused".into(),
            ),
            Self::Foreign { .. } => Some(
                "name in enrolment.ca who vouches for the gateway's certificate".into(),
            ),
            Self::Tls { .. } => {
                Some("certificate and key must belong together; `adit-ca issue` makes both".into())
            }
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let hint = error.hint();
        Self::input(&error).with_hint(hint)
    }
}

/// Reads the configuration at `path` and every file it names, and runs the policy's tests.
///
/// # Errors
/// The first thing that is wrong, or all tests that fail.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let config = config(path)?;
    let policy = policy(&config)?;
    let now = clock::unix_seconds();
    let failed = policy.failed_tests(now);
    if !failed.is_empty() {
        return Err(LoadError::Tests {
            path: config.policy,
            count: policy.test_count(),
            failed,
        });
    }
    let mut warnings = policy.warnings().to_vec();
    warnings.extend(policy.ended_rules(now));
    let credentials = credentials(&config)?;
    let issuing = match &config.enrolment {
        Some(enrolment) => Some(Issuing::open(enrolment, &credentials)?),
        None => None,
    };
    let authorities = Arc::new(authorities(&config)?);
    if let (Some(issuing), Some(enrolment)) = (&issuing, &config.enrolment)
        && !issuing.is_known_to(&authorities)
    {
        return Err(LoadError::Stranger {
            path: enrolment.folder.clone(),
        });
    }
    Ok(Loaded {
        tls: gateway_tls(&config, &credentials, &authorities)?,
        issuing: issuing.map(Arc::new),
        config,
        policy: Arc::new(policy),
        warnings,
        authorities,
        credentials,
    })
}

/// Reads `server.toml` alone.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn config(path: &Path) -> Result<ServerConfig, LoadError> {
    let text = files::read_text(path)?;
    Ok(ServerConfig::parse(&text, path)?)
}

/// Reads the gateway's certificate and its key alone.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn credentials(config: &ServerConfig) -> Result<Credentials, LoadError> {
    Ok(Credentials {
        chain: certificates(&config.certificate, files::read)?,
        key: private_key(&config.key)?,
    })
}

/// Reads the policy alone; its tests are not run.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn policy(config: &ServerConfig) -> Result<Policy, LoadError> {
    let text = files::read_text(&config.policy)?;
    let file = config.policy.display().to_string();
    let policy = Policy::parse(&text, &file)?;
    let own = config.inside_addresses().all();
    let mut own = own.into_iter();
    match own.find(|own| policy.reserved().any(|fixed| fixed == *own)) {
        None => Ok(policy),
        Some(own) => {
            let message = format!("{own} is the gateway's own inside address");
            let error = ConfigError::whole_file(&file, "principal.addresses", message);
            let hint = "choose another, or change inside.addresses in server.toml";
            Err(error.with_hint(hint).into())
        }
    }
}

/// Reads the authorities with their revocation lists.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn authorities(config: &ServerConfig) -> Result<Authorities, LoadError> {
    let provider = Arc::new(Algorithms::for_this_cpu().provider());
    let mut authorities = Vec::new();
    for authority in &config.authorities {
        let anchors = certificates(&authority.certificates, files::read)?;
        let read = Authority::new(authority.rule.clone(), anchors, &provider)
            .map_err(|error| tls_error(&authority.certificates, &error))?;
        authorities.push(with_revocations(&read, authority)?);
    }
    Ok(Authorities::new(authorities, client_auth(config)))
}

/// The same with revocation lists as they are now; no other file is read.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn reread_lists(loaded: &Loaded) -> Result<Loaded, LoadError> {
    let pairs = loaded
        .authorities
        .all()
        .iter()
        .zip(&loaded.config.authorities);
    let authorities: Result<Vec<_>, _> = pairs
        .map(|(authority, config)| with_revocations(authority, config))
        .collect();
    let authorities = Authorities::new(authorities?, client_auth(&loaded.config));
    let authorities = Arc::new(authorities);
    Ok(Loaded {
        config: loaded.config.clone(),
        policy: Arc::clone(&loaded.policy),
        warnings: loaded.warnings.clone(),
        tls: gateway_tls(&loaded.config, &loaded.credentials, &authorities)?,
        authorities,
        credentials: loaded.credentials.clone(),
        issuing: loaded.issuing.clone(),
    })
}

/// Who has no certificate may ask for one where the operator wants that.
fn client_auth(config: &ServerConfig) -> ClientAuth {
    match config.enrolment {
        Some(_) => ClientAuth::Optional,
        None => ClientAuth::Mandatory,
    }
}

fn with_revocations(
    authority: &Authority,
    config: &AuthorityConfig,
) -> Result<Authority, LoadError> {
    let lists = lists::read(authority, &config.crls)?;
    let revoking = authority.revoking(config.crl_policy, lists);
    let revoking = revoking.map_err(|error| tls_error(&config.certificates, &error))?;
    Ok(revoking.refusing_keys(config.revoked_keys.clone()))
}

fn gateway_tls(
    config: &ServerConfig,
    credentials: &Credentials,
    authorities: &Arc<Authorities>,
) -> Result<Arc<QuicServer>, LoadError> {
    tls::gateway_config(
        Algorithms::for_this_cpu(),
        credentials.clone(),
        authorities,
        Arc::new(DefaultTimeProvider),
    )
    .map_err(|error| tls_error(&config.certificate, &error))
}

/// Each on a line of its own.
fn listed(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

fn certificates(
    path: &Path,
    read: impl Fn(&Path) -> Result<Vec<u8>, FileError>,
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let missing = || LoadError::Pem {
        path: path.to_owned(),
        what: "certificate",
    };
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(missing()),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let pem = files::read_private(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| LoadError::Pem {
        path: path.to_owned(),
        what: "private key",
    })
}

fn tls_error(path: &Path, error: &TlsError) -> LoadError {
    use std::error::Error as _;
    let cause = error.source().map(|cause| format!(": {cause}"));
    LoadError::Tls {
        path: path.to_owned(),
        error: format!("{error}{}", cause.unwrap_or_default()),
    }
}
