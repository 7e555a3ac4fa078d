//! `adit-ca request`: a key that never leaves the device, and a request for the authority.

use std::path::PathBuf;

use adit_pki::store::{self, Existing};
use adit_pki::{KeyType, csr};
use clap::Args;

use super::failure::Failure;
use super::issue::{can_be_written, file_stem};
use super::{Answer, Console};

/// The arguments of `request`.
#[derive(Args, Debug)]
pub(super) struct RequestArgs {
    /// Who the holder is; an authority decides by itself, but refuses if it knows better
    principal: Option<String>,
    /// Where to write the key [default: PRINCIPAL.key, or device.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where to write the request [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Make an Ed25519 key in place of ECDSA P-256
    #[arg(long)]
    ed25519: bool,
}

pub(super) fn run(console: &Console, args: &RequestArgs) -> Result<Answer, Failure> {
    let stem = args.principal.as_deref().map(file_stem);
    let default = || PathBuf::from(format!("{}.key", stem.as_deref().unwrap_or("device")));
    let key = args.key.clone().unwrap_or_else(default);
    // A key is never replaced: it may be the only one for a certificate.
    can_be_written(&key, false)?;
    if let Some(output) = &args.output {
        can_be_written(output, false)?;
    }
    let kind = if args.ed25519 {
        KeyType::Ed25519
    } else {
        KeyType::EcdsaP256
    };
    let prepared = csr::make(args.principal.as_deref(), kind)?;
    store::write(
        &key,
        prepared.key_pem.as_bytes(),
        store::PRIVATE,
        Existing::Keep,
    )?;
    console.note(&format!("the key is {}; it stays here", key.display()));
    match &args.output {
        Some(output) => {
            let text = prepared.request_pem.as_bytes();
            store::write(output, text, store::PUBLIC, Existing::Keep)?;
            console.data(&format!("{}\n", output.display()))?;
        }
        None => console.data(&prepared.request_pem)?,
    }
    Ok(Answer::Yes)
}
