//! What can go wrong with an authority.

use std::path::PathBuf;

use thiserror::Error;

use crate::certificate::Purpose;
use crate::chain::ChainError;
use crate::csr::RequestError;
use crate::index::IndexError;
use crate::name::NameError;
use crate::store::StoreError;

/// Why an authority could not be made, opened or used.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A name against the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder holds an authority, or part of one.
    #[error("there is an authority already: {} exists", path.display())]
    Exists {
        /// The file that was found.
        path: PathBuf,
    },
    /// The folder holds none.
    #[error("there is no authority in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The file of the key holds none.
    #[error("{} holds no private key that can be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted, and no passphrase was given.
    #[error("{} is encrypted, and needs a passphrase", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted, with another passphrase.
    #[error("the passphrase of {} is wrong", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are not a pair.
    #[error("the key of the authority does not belong to its certificate")]
    KeyMismatch,
    /// A certificate request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Certificates that are no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The folder waits for the certificate of its authority.
    #[error("{} waits for the certificate of its authority", path.display())]
    Pending {
        /// The request.
        path: PathBuf,
    },
    /// The folder waits for nothing.
    #[error("there is no request for the certificate of an authority in {}", folder.display())]
    NotPending {
        /// The folder.
        folder: PathBuf,
    },
    /// An authority is made in other ways.
    #[error("a certificate of this purpose is for an authority, not for an end of the tunnel")]
    LeafOnly,
    /// RFC 5280 §4.2.1.9.
    #[error("the authority's own certificate allows no authority below it")]
    LeavesOnly,
    /// The extended key usage of an intermediate.
    #[error("the authority's own certificate allows it to issue none for a {0}")]
    Purpose(Purpose),
    /// The name constraints of an intermediate or of its root.
    #[error("the authority's own certificate excludes this name")]
    ExcludedName,
    /// Something else above an intermediate.
    #[error("nobody would accept the certificate from this authority")]
    NotAccepted(#[source] webpki::Error),
    /// The certificate may not sign others.
    #[error("the certificate of the authority is not one of an authority")]
    NotAnAuthority,
    /// The end is not after the beginning.
    #[error("the validity ends before it begins")]
    Validity,
    /// The path length is neither 0 nor 1.
    #[error("the path length of an authority is 0 or 1, not {0}")]
    PathLength(u8),
    /// It would be worthless in its last days, and nobody would see why.
    #[error("the certificate would be valid beyond its authority, which ends on {not_after}")]
    OutlivesAuthority {
        /// The authority's last day.
        not_after: String,
    },
    /// Other names belong to gateways.
    #[error("a client certificate has no names besides its principal")]
    ClientNames,
    /// Groups belong to clients.
    #[error("a gateway certificate has no groups")]
    GatewayGroups,
    /// A certificate that cannot be parsed.
    #[error("the certificate is not well-formed")]
    Encoding,
    /// The cryptographic library refused.
    #[error("making the certificate failed")]
    Signing(#[from] rcgen::Error),
    /// The operating system has none to give.
    #[error("the system gives no random numbers")]
    Randomness,
}
