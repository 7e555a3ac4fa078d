//! The certificate authority of Adit: the library behind `adit-ca` and behind every test that
//! needs a certificate.
//!
//! Guarantee: what is issued follows one profile (see [`certificate`]), and what a folder's
//! authority issued is in its index, durably, before anybody gets to see the certificate.
//! Refused are names that the gateway would not accept, a folder that already holds an authority,
//! and a key that others can read. Private keys are never printed, logged or shown by `Debug`.
//! No function reads a clock: `now` is an argument, in seconds of Unix time, as every moment is.
//!
//! ```
//! use adit_pki::{Authority, IssueRequest};
//!
//! let now = 1_800_000_000;
//! let authority = Authority::ephemeral("Example Corp", now)?;
//! let alice = IssueRequest::client("alice@example.com", now).with_groups(["eng"]);
//! let alice = authority.issue(&alice, now)?;
//! assert!(alice.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
//! # Ok::<(), adit_pki::AuthorityError>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod authority;
pub mod certificate;
mod chain;
pub mod csr;
pub mod description;
pub mod index;
pub mod inventory;
pub mod invitation;
pub mod name;
pub mod operator;
pub mod passphrase;
pub mod predecessor;
pub mod profile;
pub mod request;
pub mod revocation;
pub mod store;

pub use authority::{Authority, AuthorityError, AuthorityParams};
pub use certificate::{Credential, ExtendedKeyUsage, Issued, KeyType, Purpose};
pub use chain::ChainError;
pub use csr::CertificateRequest;
pub use name::Name;
pub use passphrase::Passphrase;
pub use predecessor::Predecessor;
pub use request::IssueRequest;
pub use revocation::{Reason, Revocation};
