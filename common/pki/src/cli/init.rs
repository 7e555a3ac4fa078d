//! `adit-ca init`: a root, an intermediate of a root here, or one of a corporate root elsewhere.

use std::path::{Path, PathBuf};

use adit_pki::store::{self, StoreError};
use adit_pki::{Authority, AuthorityParams, Passphrase, description};
use clap::Args;

use super::failure::Failure;
use super::unlock::{self, Source};
use super::{Answer, Desk, now};

/// The arguments of `init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The folder of the new authority, in place of --dir
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The organisation, shown in every certificate [default: Private Network, or that of the root]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make an intermediate of the authority in this folder: it can issue client certificates only, so
    /// that its key may be online and the root's need not
    #[arg(long, value_name = "ROOT_FOLDER", conflicts_with_all = ["request", "certificates"])]
    under: Option<PathBuf>,
    /// A file with the passphrase of the root's key, with --under
    #[arg(long, value_name = "FILE", requires = "under")]
    under_passphrase_file: Option<PathBuf>,
    /// Make a key and ca.csr only, for another authority to sign
    #[arg(long, conflicts_with = "certificates")]
    request: bool,
    /// Complete the folder with what the other authority signed, and its own certificates up to the
    /// root (repeatable)
    #[arg(long = "certificate", value_name = "FILE", conflicts_with_all = ["name", "encrypt"])]
    certificates: Vec<PathBuf>,
    /// Encrypt the key with a passphrase
    #[arg(long)]
    encrypt: bool,
}

pub(super) fn run(desk: &Desk<'_>, dir: bool, args: &InitArgs) -> Result<Answer, Failure> {
    if dir && args.folder.is_some() {
        return Err(Failure::input(
            "the folder is given twice: once by --dir, once without",
        ));
    }
    let folder = args.folder.as_deref().unwrap_or(desk.folder);
    let desk = Desk { folder, ..*desk };
    if !args.certificates.is_empty() {
        return complete(&desk, &args.certificates);
    }
    if args.request {
        let mut params = AuthorityParams::new(args.name.as_deref().unwrap_or(DEFAULT_NAME), now());
        params.passphrase = passphrase(&desk, args)?;
        let request = Authority::request(folder, &params)?;
        desk.console.repaired(&request.repairs);
        desk.console.note(&format!(
            "have it signed as an authority, then run `adit-ca init --certificate FILE --dir {}`",
            folder.display()
        ));
        desk.console
            .data(&format!("{}\n", request.path.display()))?;
        return Ok(Answer::Yes);
    }
    let authority = match &args.under {
        Some(root) => under(&desk, root, args)?,
        None => {
            let mut params =
                AuthorityParams::new(args.name.as_deref().unwrap_or(DEFAULT_NAME), now());
            params.passphrase = passphrase(&desk, args)?;
            Authority::create(folder, &params, now())?
        }
    };
    made(&desk, &authority)
}

fn under(desk: &Desk<'_>, root: &Path, args: &InitArgs) -> Result<Authority, Failure> {
    let above = Desk {
        folder: root,
        passphrase_file: args.under_passphrase_file.as_deref(),
        ..*desk
    };
    let root = above.open()?;
    let name = args.name.as_deref().unwrap_or_else(|| root.name());
    let now = now();
    let mut params = AuthorityParams::under(&root, name, now);
    params.passphrase = passphrase(desk, args)?;
    Ok(Authority::create_under(&root, desk.folder, &params, now)?)
}

fn complete(desk: &Desk<'_>, files: &[PathBuf]) -> Result<Answer, Failure> {
    let mut certificates = Vec::new();
    for path in files {
        let text = std::fs::read(path).map_err(|source| StoreError::Read {
            path: path.to_owned(),
            source,
        })?;
        let found = description::certificates(&text).filter(|found| !found.is_empty());
        certificates.extend(found.ok_or_else(|| {
            Failure::input(format!("{} contains no certificate", path.display()))
                .with_hint("the file must be in PEM: `openssl x509 -inform DER -in FILE` converts")
        })?);
    }
    let waiting = desk.folder.join(store::KEY).exists();
    let passphrase = waiting.then(|| unlock::existing(desk)).transpose()?;
    let authority = Authority::complete(
        desk.folder,
        &certificates,
        passphrase.flatten().as_ref(),
        now(),
    )?;
    made(desk, &authority)
}

fn made(desk: &Desk<'_>, authority: &Authority) -> Result<Answer, Failure> {
    desk.console.repaired(authority.repairs());
    desk.console.detail(&format!(
        "made the authority `{}`, valid until {}; its key is {}",
        authority.name(),
        description::date(authority.not_after()),
        desk.folder.join(store::KEY).display(),
    ));
    let certificate = desk.folder.join(store::CERTIFICATE);
    desk.console.data(&format!("{}\n", certificate.display()))?;
    Ok(Answer::Yes)
}

fn passphrase(desk: &Desk<'_>, args: &InitArgs) -> Result<Option<Passphrase>, Failure> {
    args.encrypt
        .then(|| unlock::new(&Source::of(desk.passphrase_file), desk.folder))
        .transpose()
}

const DEFAULT_NAME: &str = "Private Network";
