//! `adit-server init`: everything a first gateway needs, in one directory, nothing overwritten.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adit_net::clock;
use adit_net::exit::Failure;
use adit_net::files;
use adit_pki::store::{self, Existing};
use adit_pki::{Authority, AuthorityError, AuthorityParams, IssueRequest};

/// Why nothing, or not everything, was made.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("cannot make {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    File(#[from] files::FileError),
}

/// Makes the authority, the gateway's certificate, `server.toml` and `policy.toml` in `dir`.
///
/// # Errors
/// When one of them exists, or cannot be made. What was made before stays.
#[allow(clippy::print_stdout)]
pub fn init(dir: &Path, names: &[String], listen: SocketAddr) -> Result<(), Failure> {
    make(dir, names, listen).map_err(|error| {
        let hint = match &error {
            InitError::Exists { .. } => {
                Some("choose another --dir, or remove what is there".to_owned())
            }
            InitError::File(error) => error.hint(),
            InitError::Directory { .. } | InitError::Authority(_) | InitError::Store(_) => None,
        };
        let input = matches!(error, InitError::Exists { .. } | InitError::Authority(_));
        let failure = if input {
            Failure::input(&error)
        } else {
            Failure::environment(&error)
        };
        failure.with_hint(hint)
    })?;
    let (ca, server) = (dir.join("ca"), dir.join("server.toml"));
    println!(
        "Made in {}: ca/ issuing/ gateway.pem gateway.key server.toml policy.toml\n\n\
         Next:\n  \
         1. say who may reach what: {}\n  \
         2. start the gateway:      adit-server run --config {}\n  \
         3. invite somebody:        adit-server invite alice@example.com --group staff --config {server}\n\n\
         A lost laptop is out by:    adit-ca revoke alice@example.com --dir {issuing}\n  \
         Every week, at least, sign the root's revocation list anew: adit-ca crl --dir {ca}\n\n\
         {issuing} signs for those who are invited, clients only. The root's key in {ca} is not\n\
         needed to run the gateway: keep it elsewhere, and bring its crl.pem whenever it changes.",
        dir.display(),
        dir.join("policy.toml").display(),
        server.display(),
        server = server.display(),
        ca = ca.display(),
        issuing = dir.join("issuing").display(),
    );
    Ok(())
}

fn make(dir: &Path, names: &[String], listen: SocketAddr) -> Result<(), InitError> {
    fs::create_dir_all(dir).map_err(|source| InitError::Directory {
        path: dir.to_owned(),
        source,
    })?;
    for name in [
        "ca",
        "issuing",
        "gateway.pem",
        "gateway.key",
        "server.toml",
        "policy.toml",
    ] {
        let path = dir.join(name);
        if path.exists() {
            return Err(InitError::Exists { path });
        }
    }
    let now = clock::unix_seconds();
    let authority = Authority::create(&dir.join("ca"), &AuthorityParams::new("Adit", now), now)?;
    let online = AuthorityParams::under(&authority, "Adit", now);
    Authority::create_under(&authority, &dir.join("issuing"), &online, now)?;
    let (first, more) = names
        .split_first()
        .map_or(("localhost", names), |(first, more)| (first.as_str(), more));
    let issued = authority.issue(
        &IssueRequest::gateway(first, now).with_names(more.to_vec()),
        now,
    )?;
    store::write(
        &dir.join("gateway.pem"),
        issued.certificate_pem.as_bytes(),
        store::PUBLIC,
        Existing::Keep,
    )?;
    store::write(
        &dir.join("gateway.key"),
        issued.key_pem.as_bytes(),
        store::PRIVATE,
        Existing::Keep,
    )?;
    let server = SERVER.replace("listen = \"[::]:443\"", &format!("listen = \"{listen}\""));
    files::write_public(&dir.join("server.toml"), server.as_bytes())?;
    files::write_public(&dir.join("policy.toml"), POLICY.as_bytes())?;
    Ok(())
}

/// The annotated examples are what a new gateway starts with, so they cannot drift apart.
const SERVER: &str = include_str!("../../config/server.toml");
const POLICY: &str = include_str!("../../config/policy.toml");
