//! A question on the terminal whose answer is not shown.
//!
//! The terminal shows what is typed again however the question ends: with an answer, with an error, or with one of
//! the signals that end a program, of which Ctrl-C is one. What does that outlives the question, since a signal that
//! was taken over once does nothing more by itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

/// Asks whoever sits there, wherever standard input comes from; the line without its end.
///
/// # Errors
/// When there is no terminal, or it fails.
pub(super) fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    watch_signals()?;
    let silence = Silence::begin(&terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    // Room for a long one: a growing string would leave pieces of it behind.
    let mut line = Zeroizing::new(String::with_capacity(1024));
    BufReader::new(&terminal).read_line(&mut line)?;
    drop(silence);
    Ok(Zeroizing::new(
        line.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

/// While there is one, the terminal does not show what is typed.
struct Silence;

/// A terminal and how it was before.
struct Silenced {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn begin(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // Noted first: a signal that comes between the two finds what it must put back.
        let mut silenced = silenced();
        let noted = silenced.insert(Silenced { terminal, before });
        if let Err(error) = tcsetattr(&noted.terminal, OptionalActions::Flush, &silent) {
            *silenced = None;
            return Err(error.into());
        }
        Ok(Self)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        restore(&mut silenced());
    }
}

fn restore(silenced: &mut Option<Silenced>) {
    if let Some(Silenced { terminal, before }) = silenced.take() {
        // Best effort: nothing else can be done about a terminal that refuses.
        let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
        let _ = (&terminal).write_all(b"\n");
    }
}

/// From now on a signal that ends the program puts the terminal back first.
fn watch_signals() -> io::Result<()> {
    static WATCHED: Once = Once::new();
    let mut outcome = Ok(());
    WATCHED.call_once(|| {
        outcome = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).map(|mut signals| {
            thread::spawn(move || {
                for signal in signals.forever() {
                    // Held until the end, so that no other question begins.
                    let mut silenced = silenced();
                    restore(&mut silenced);
                    // It ends the program, of which the parent learns by which signal.
                    let _ = emulate_default_handler(signal);
                }
            });
        });
    });
    outcome
}

fn silenced() -> MutexGuard<'static, Option<Silenced>> {
    SILENCED.lock().unwrap_or_else(PoisonError::into_inner)
}

static SILENCED: Mutex<Option<Silenced>> = Mutex::new(None);
