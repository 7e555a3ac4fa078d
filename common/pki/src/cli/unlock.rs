//! Where passphrases come from: a file, a systemd credential, or the terminal; and `adit-ca passphrase`.

use std::path::{Path, PathBuf};

use adit_pki::store::{self, StoreError};
use adit_pki::{Authority, AuthorityError, Passphrase};
use clap::Args;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::{Answer, Desk, terminal};

/// The arguments of `passphrase`.
#[derive(Args, Debug)]
pub(super) struct PassphraseArgs {
    /// A file with the new passphrase; without it, the terminal
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    new_passphrase_file: Option<PathBuf>,
    /// Keep the key without a passphrase from now on
    #[arg(long)]
    remove: bool,
}

pub(super) fn change(desk: &Desk<'_>, args: &PassphraseArgs) -> Result<Answer, Failure> {
    let old = existing(desk)?;
    let new = if args.remove {
        None
    } else {
        let source = args.new_passphrase_file.as_deref();
        let source = source.map_or(Source::Terminal, |path| Source::File(path.to_owned()));
        Some(new(&source, desk.folder)?)
    };
    Authority::change_passphrase(desk.folder, old.as_ref(), new.as_ref())?;
    let key = desk.folder.join(store::KEY);
    let state = if args.remove {
        "not encrypted"
    } else {
        "encrypted"
    };
    desk.console
        .data(&format!("{} is {state} now\n", key.display()))?;
    Ok(Answer::Yes)
}

/// The passphrase of the key in the folder; `None` if it needs none.
pub(super) fn existing(desk: &Desk<'_>) -> Result<Option<Passphrase>, Failure> {
    match Authority::is_encrypted(desk.folder) {
        Ok(true) => {}
        // Without a key there is another error to come, and a better one.
        Ok(false) | Err(AuthorityError::Store(StoreError::Read { .. })) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let source = Source::of(desk.passphrase_file);
    let prompt = format!("Passphrase of {}: ", desk.folder.join(store::KEY).display());
    source.read(&prompt).map(Some)
}

/// A new passphrase for the key in `folder`.
pub(super) fn new(source: &Source, folder: &Path) -> Result<Passphrase, Failure> {
    let key = folder.join(store::KEY);
    let first = source.read(&format!("New passphrase of {}: ", key.display()))?;
    if matches!(source, Source::Terminal) {
        let text = typed("The same again: ")?;
        if !first.is(&text) {
            return Err(Failure::input("the two passphrases differ"));
        }
    }
    Ok(first)
}

/// Where a passphrase comes from.
pub(super) enum Source {
    /// The first line of a file that nobody else can read.
    File(PathBuf),
    /// Whoever sits there.
    Terminal,
}

impl Source {
    /// The file if there is one, or the systemd credential, or the terminal.
    pub(super) fn of(file: Option<&Path>) -> Self {
        let credential = || {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
            let path = Path::new(&folder).join(CREDENTIAL);
            path.exists().then_some(path)
        };
        let path = file.map(Path::to_owned).or_else(credential);
        path.map_or(Self::Terminal, Self::File)
    }

    fn read(&self, prompt: &str) -> Result<Passphrase, Failure> {
        let text = match self {
            Self::File(path) => {
                let text = store::read_key(path)?;
                Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
            }
            Self::Terminal => typed(prompt)?,
        };
        Passphrase::new(text).ok_or_else(|| Failure::input("an empty passphrase is none"))
    }
}

/// Asks on the terminal.
fn typed(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    terminal::ask(prompt).map_err(|error| {
        Failure::environment(error, "cannot ask for the passphrase on the terminal").with_hint(
            "give a file with --passphrase-file, or the systemd credential adit-ca-passphrase",
        )
    })
}

/// In a unit: LoadCredential=adit-ca-passphrase:/path, or LoadCredentialEncrypted.
const CREDENTIAL: &str = "adit-ca-passphrase";
