//! `adit-ca sign`: a certificate for a key that is elsewhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use adit_pki::store::{self, Existing, StoreError};
use adit_pki::{AuthorityParams, CertificateRequest, IssueRequest, Issued, Purpose, description};
use clap::Args;

use super::failure::Failure;
use super::issue::can_be_written;
use super::{Answer, Console, DAY, Desk, now, purpose};

/// The arguments of `sign`.
#[derive(Args, Debug)]
pub(super) struct SignArgs {
    /// The request, or `-` for standard input
    csr: PathBuf,
    /// Whom the certificate is for; with --authority the organisation [default: that of this one]
    #[arg(long, required_unless_present = "authority")]
    principal: Option<String>,
    /// Sign an intermediate that can issue client certificates only, from `init --request`
    #[arg(long, conflicts_with_all = ["purpose", "groups", "names", "device"])]
    authority: bool,
    /// Which end of the tunnel it is for
    #[arg(long, default_value = "client", value_name = "client|gateway", value_parser = purpose)]
    purpose: Purpose,
    /// A group of the client (repeatable)
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A name or address of the gateway besides the principal (repeatable)
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Days until the certificate ends [default: 365, of an authority 1826]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    /// What to call the device that has the key
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Where a certificate goes.
#[derive(Args, Clone, Debug)]
pub(super) struct Output {
    /// Where to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long, requires = "output")]
    force: bool,
}

impl Output {
    pub(super) fn new(output: Option<PathBuf>, force: bool) -> Self {
        Self { output, force }
    }

    /// Refuses early what writing would refuse.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let path = self.output.as_deref();
        path.map_or(Ok(()), |path| can_be_written(path, self.force))
    }

    pub(super) fn write(&self, console: &Console, text: &str) -> Result<(), Failure> {
        let Some(path) = &self.output else {
            return console.data(text);
        };
        let existing = if self.force {
            Existing::Replace
        } else {
            Existing::Keep
        };
        store::write(path, text.as_bytes(), store::PUBLIC, existing)?;
        console.data(&format!("{}\n", path.display()))
    }
}

pub(super) fn run(desk: &Desk<'_>, args: &SignArgs) -> Result<Answer, Failure> {
    args.output.check()?;
    let csr = read(&args.csr)?;
    let authority = desk.open()?;
    let now = now();
    let end = args.days.map(|days| now + i64::from(days) * DAY);
    if args.authority {
        let name = args
            .principal
            .as_deref()
            .unwrap_or_else(|| authority.name());
        let mut params = AuthorityParams::under(&authority, name, now);
        params.not_after = end.unwrap_or(params.not_after);
        let issued = authority.sign_authority(&csr, &params, now)?;
        signed(desk.console, &issued);
        // All that `init --certificate` needs, in one file.
        let text = issued.certificate_pem + &issued.authority_pem;
        args.output.write(desk.console, &text)?;
        return Ok(Answer::Yes);
    }
    let principal = args.principal.clone().unwrap_or_default();
    let mut request = IssueRequest::new(args.purpose, principal, now)
        .with_groups(args.groups.iter().cloned())
        .with_names(args.names.iter().cloned());
    request.not_after = end.unwrap_or(request.not_after);
    request.device.clone_from(&args.device);
    let issued = authority.sign(&csr, &request, now)?;
    signed(desk.console, &issued);
    args.output.write(desk.console, &issued.certificate_pem)?;
    Ok(Answer::Yes)
}

/// Reads a request.
pub(super) fn read(path: &Path) -> Result<CertificateRequest, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_TEXT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text))
    };
    read.map_err(|source| StoreError::Read {
        path: path.to_owned(),
        source,
    })?;
    CertificateRequest::from_pem(&text).map_err(|error| {
        Failure::from(adit_pki::AuthorityError::from(error)).context(path.display().to_string())
    })
}

pub(super) fn signed(console: &Console, issued: &Issued) {
    console.detail(&format!(
        "signed {} for {} {}, valid until {}",
        issued.serial,
        issued.purpose,
        issued.principal,
        description::instant(issued.not_after),
    ));
}

/// More than a request may have: what is longer is refused, not read.
const MAX_TEXT: u64 = 1 << 20;
