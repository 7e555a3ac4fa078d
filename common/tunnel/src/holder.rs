//! Somebody with a certificate, as it is told outside of the engines.

use std::sync::Arc;

use adit_core::identity::Identity;
use adit_core::session::UserAgent;
use rustls::pki_types::CertificateDer;

/// Who shows a certificate.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What it says.
    pub identity: Identity,
    /// The certificate itself, in DER.
    pub certificate: Arc<[u8]>,
    /// What was shown with it: the intermediates above it, in DER.
    pub issuers: Arc<[Vec<u8>]>,
    /// What the client says about itself, once it has asked for something.
    pub user_agent: Option<UserAgent>,
}

impl Holder {
    /// The holder of the first certificate in `chain`.
    pub(crate) fn new(
        identity: Identity,
        chain: &[CertificateDer<'_>],
        user_agent: Option<UserAgent>,
    ) -> Self {
        Self {
            identity,
            certificate: chain.first().map_or(&[][..], |leaf| leaf).into(),
            issuers: chain.iter().skip(1).map(|above| above.to_vec()).collect(),
            user_agent,
        }
    }
}
