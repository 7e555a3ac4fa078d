//! `adit-ca export`: certificates in PEM, as other programs take them. Needs the index only, never the key.

use std::path::Path;

use adit_pki::index::State;
use adit_pki::store;
use clap::Args;

use super::failure::Failure;
use super::inventory::open;
use super::sign::Output;
use super::{Answer, Console, now};

/// The arguments of `export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// A serial number, or a principal: its newest valid certificate
    what: String,
    /// Add the root, for programs that want the whole chain in one file
    #[arg(long)]
    root: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(console: &Console, folder: &Path, args: &ExportArgs) -> Result<Answer, Failure> {
    args.output.check()?;
    let index = open(folder)?;
    let now = now();
    let serial = args.what.replace(':', "").to_ascii_lowercase();
    let entry = match index.by_serial(&serial)? {
        Some(entry) => Some(entry),
        None => index
            .by_principal(&args.what)?
            .into_iter()
            .rfind(|entry| entry.state(now) == State::Valid),
    };
    let Some(entry) = entry else {
        console.note(&format!(
            "`{}` is no serial number, and nobody with a valid certificate, in {}",
            args.what,
            folder.display()
        ));
        return Ok(Answer::No);
    };
    let chain = store::read_chain(folder)?;
    let mut text = adit_pki::certificate::pem(&entry.certificate);
    let count = if args.root {
        chain.len()
    } else {
        chain.len().saturating_sub(1)
    };
    for der in chain.iter().take(count) {
        text.push_str(&adit_pki::certificate::pem(der));
    }
    args.output.write(console, &text)?;
    Ok(Answer::Yes)
}
