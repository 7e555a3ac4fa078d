//! How `adit-ca` fails: whose fault it is, in one line, and what to do about it.

use std::io::{self, Write};
use std::process::ExitCode;

use adit_pki::csr::RequestError;
use adit_pki::index::IndexError;
use adit_pki::name::NameError;
use adit_pki::store::{self, StoreError};
use adit_pki::{AuthorityError, ChainError};

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    fault: Fault,
    error: anyhow::Error,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Input,
    Environment,
}

impl Failure {
    /// The user asked for something that makes no sense.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self {
            fault: Fault::Input,
            error: anyhow::Error::msg(message.into()),
            hint: None,
        }
    }

    /// The system refused.
    pub(crate) fn environment(
        error: impl std::error::Error + Send + Sync + 'static,
        context: impl Into<String>,
    ) -> Self {
        let error = anyhow::Error::new(error).context(context.into());
        Self {
            fault: Fault::Environment,
            error,
            hint: None,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts `context` before the error.
    pub(crate) fn context(mut self, context: impl Into<String>) -> Self {
        self.error = self.error.context(context.into());
        self
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told if this fails.
        let _ = writeln!(stderr, "error: {:#}", self.error);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        match self.fault {
            Fault::Input => ExitCode::from(2),
            Fault::Environment => ExitCode::from(3),
        }
    }
}

impl From<AuthorityError> for Failure {
    fn from(error: AuthorityError) -> Self {
        let (fault, hint) = judge(&error);
        Self {
            fault,
            error: error.into(),
            hint,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        AuthorityError::from(error).into()
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        AuthorityError::from(error).into()
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        AuthorityError::from(error).into()
    }
}

fn judge(error: &AuthorityError) -> (Fault, Option<String>) {
    match error {
        AuthorityError::Name(_)
        | AuthorityError::Validity
        | AuthorityError::PathLength(_)
        | AuthorityError::LeafOnly
        | AuthorityError::NotAccepted(_) => (Fault::Input, None),
        AuthorityError::Request(RequestError::AsksForMore(_)) => (
            Fault::Input,
            Some("have the request made anew without it, or grant it; `openssl req -text` shows all of it".to_owned()),
        ),
        AuthorityError::Request(_) => {
            (Fault::Input, Some("`adit-ca request` makes one, on the device".to_owned()))
        }
        AuthorityError::Chain(ChainError::Incomplete { .. }) => (
            Fault::Input,
            Some("give the certificates of all issuers up to the root: --certificate may be repeated".to_owned()),
        ),
        AuthorityError::Chain(_) => (
            Fault::Input,
            Some("have the authority sign ca.csr again, as an authority that may sign certificates and revocation lists".to_owned()),
        ),
        AuthorityError::Pending { .. } => (
            Fault::Input,
            Some("when the other authority has signed the request, run `adit-ca init --certificate FILE`".to_owned()),
        ),
        AuthorityError::NotPending { .. } => {
            (Fault::Input, Some("make one with `adit-ca init --request`".to_owned()))
        }
        AuthorityError::LeavesOnly | AuthorityError::Purpose(_) | AuthorityError::ExcludedName => {
            (Fault::Input, Some("use the folder of the authority above it".to_owned()))
        }
        AuthorityError::Exists { path } if path.ends_with(store::CERTIFICATE) => (
            Fault::Input,
            Some("choose another folder with --dir; replacing an authority makes all its certificates worthless".to_owned()),
        ),
        AuthorityError::Exists { path } => (
            Fault::Input,
            Some(format!(
                "{} was lost: restore the authority's folder from its backup, or choose another with --dir",
                path.with_file_name(store::CERTIFICATE).display(),
            )),
        ),
        AuthorityError::Missing { .. } => (
            Fault::Input,
            Some("choose a folder with --dir or $ADIT_CA_DIR, or make an authority with `adit-ca init`".to_owned()),
        ),
        AuthorityError::OutlivesAuthority { .. } => {
            (Fault::Input, Some("choose fewer --days".to_owned()))
        }
        AuthorityError::ClientNames => {
            (Fault::Input, Some("--name goes with --purpose gateway".to_owned()))
        }
        AuthorityError::GatewayGroups => {
            (Fault::Input, Some("--group goes with --purpose client".to_owned()))
        }
        AuthorityError::Store(StoreError::Exists { .. }) => {
            (Fault::Input, Some("choose another file with -o, or replace this one with --force".to_owned()))
        }
        AuthorityError::Store(StoreError::NotEmpty { .. }) => {
            (Fault::Input, Some("an authority has a folder of its own: choose one with --dir".to_owned()))
        }
        AuthorityError::Store(StoreError::Exposed { path, .. }) => (
            Fault::Environment,
            Some(format!("chmod 600 {}; if others may have read it, make a new authority", path.display())),
        ),
        AuthorityError::Encrypted { .. } => (
            Fault::Input,
            Some("give a file with --passphrase-file, or the systemd credential adit-ca-passphrase".to_owned()),
        ),
        AuthorityError::Passphrase { .. } => (
            Fault::Input,
            Some("try again; without the passphrase nobody can use this key, and nobody can recover it".to_owned()),
        ),
        AuthorityError::Index(IndexError::Version { .. }) => {
            (Fault::Environment, Some("use the version of adit-ca that wrote it, or a later one".to_owned()))
        }
        AuthorityError::Key { .. } | AuthorityError::KeyMismatch | AuthorityError::NotAnAuthority => {
            (Fault::Environment, Some("restore the authority's folder from its backup".to_owned()))
        }
        AuthorityError::Index(IndexError::Database(_))
        | AuthorityError::Store(StoreError::Read { .. } | StoreError::Write { .. } | StoreError::NoCertificate { .. })
        | AuthorityError::Encoding
        | AuthorityError::Signing(_)
        | AuthorityError::Randomness => (Fault::Environment, None),
    }
}
