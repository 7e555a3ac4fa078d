//! The WireGuard family: programs that make an interface and are told the rest through a socket.
//!
//! All speak the same protocol on `/var/run/wireguard/<interface>.sock`, so one driver serves them.
//! Each process sees a `/var/run` of its own: nothing needs root there, and no socket meets another.

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use adit_tests::lab::internet::GATEWAY_V4;
use adit_tests::lab::namespace::Sight;
use adit_tests::lab::{Namespace, Process};
use adit_tests::programs::TemporaryDirectory;
use anyhow::{Context, Result, bail, ensure};

use super::Subject;
use crate::link::Link;

/// One of the programs, at both ends.
#[derive(Debug)]
pub(crate) struct WireGuard {
    program: &'static Program,
    path: PathBuf,
    client: Option<Process>,
    gateway: Option<Process>,
    directory: TemporaryDirectory,
}

/// How the programs differ.
#[derive(Debug)]
struct Program {
    name: &'static str,
    command: &'static str,
    arguments: &'static [&'static str],
}

/// How the ends differ.
struct End {
    name: &'static str,
    interface: &'static str,
    address: Ipv4Addr,
    private_key: &'static str,
    port: u16,
    /// Public key, inner address and, if it is called rather than calls, no endpoint.
    peer: (&'static str, Ipv4Addr, Option<SocketAddr>),
}

impl WireGuard {
    /// The program of that name, if it is on PATH.
    pub(crate) fn find(name: &str) -> Result<Option<Self>> {
        let program = PROGRAMS.iter().find(|program| program.name == name);
        let program = program.with_context(|| format!("no subject is called {name}"))?;
        let Some(path) = super::on_path(program.command) else {
            return Ok(None);
        };
        Ok(Some(Self {
            program,
            path,
            client: None,
            gateway: None,
            directory: TemporaryDirectory::new()?,
        }))
    }

    fn start(&self, namespace: &Namespace, end: &End) -> Result<Process> {
        let run = self.directory.path().join(end.name);
        fs::create_dir_all(&run)?;
        let socket = run.join(format!("wireguard/{}.sock", end.interface));
        if let Err(error) = fs::remove_file(&socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).context("cannot remove the old socket");
        }
        let mut command = Command::new(&self.path);
        command.args(self.program.arguments).arg(end.interface);
        let ours = CString::new(run.as_os_str().as_bytes())?;
        let sight = Sight::Instead(vec![(ours, c"/var/run".to_owned())]);
        let mut process = namespace.spawn_seeing(command, sight)?;
        let stream = connect(&socket, &mut process)?;
        end.configure(stream)?;
        namespace.add_address(end.interface, format!("{}/24", end.address).parse()?)?;
        namespace.set_mtu(end.interface, MTU)?;
        namespace.up(end.interface)?;
        Ok(process)
    }
}

impl Subject for WireGuard {
    fn name(&self) -> &'static str {
        self.program.name
    }

    fn version(&self) -> String {
        super::version(&self.path, "--version").unwrap_or_else(|| "version unknown".to_owned())
    }

    fn inside(&self) -> IpAddr {
        GATEWAY.address.into()
    }

    fn start_gateway(&mut self, link: &Link) -> Result<()> {
        self.gateway = Some(self.start(&link.gateway, &GATEWAY)?);
        Ok(())
    }

    fn start_client(&mut self, link: &Link) -> Result<()> {
        self.client = Some(self.start(&link.client, &CLIENT)?);
        Ok(())
    }

    fn stop_client(&mut self) -> Result<()> {
        super::stop(&mut self.client)
    }

    fn alive(&mut self) -> Result<()> {
        super::alive(&mut self.client)?;
        super::alive(&mut self.gateway)
    }

    fn processes(&self) -> Option<(u32, u32)> {
        Some((self.client.as_ref()?.pid(), self.gateway.as_ref()?.pid()))
    }
}

impl End {
    /// wireguard.com/xplatform: lines of `key=value`, closed by an empty one.
    fn configure(&self, mut stream: UnixStream) -> Result<()> {
        let (key, address, endpoint) = self.peer;
        let mut text = format!(
            "set=1\nprivate_key={}\nlisten_port={}\npublic_key={key}\n",
            self.private_key, self.port
        );
        if let Some(endpoint) = endpoint {
            text.push_str(&format!("endpoint={endpoint}\n"));
        }
        text.push_str(&format!("allowed_ip={address}/32\n\n"));
        stream.set_read_timeout(Some(START))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        let mut buffer = [0; 256];
        while !answer.ends_with("\n\n") {
            match stream.read(&mut buffer).context("no answer to set=1")? {
                0 => break,
                length => answer.push_str(&String::from_utf8_lossy(&buffer[..length])),
            }
        }
        ensure!(answer.contains("errno=0"), "set=1 is refused: {answer}");
        Ok(())
    }
}

/// As soon as the program listens: the time counts as time to connect.
fn connect(socket: &Path, process: &mut Process) -> Result<UnixStream> {
    let deadline = Instant::now() + START;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => {
                bail!("no socket {}: {error}", socket.display())
            }
            Err(_) => {
                process.still_runs()?;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

static PROGRAMS: [Program; 3] = [
    Program {
        name: "wireguard-go",
        command: "wireguard-go",
        arguments: &["-f"],
    },
    Program {
        name: "gotatun",
        command: "gotatun",
        arguments: &["-f", "--disable-drop-privileges"],
    },
    Program {
        name: "boringtun",
        command: "boringtun-cli",
        arguments: &["-f", "--disable-drop-privileges"],
    },
];

const GATEWAY: End = End {
    name: "gateway",
    interface: "wg-gateway",
    address: Ipv4Addr::new(10, 77, 0, 1),
    private_key: BOB.0,
    port: PORT,
    peer: (ALICE.1, CLIENT_INSIDE, None),
};

const CLIENT: End = End {
    name: "client",
    interface: "wg-client",
    address: CLIENT_INSIDE,
    private_key: ALICE.0,
    port: PORT,
    peer: (
        BOB.1,
        GATEWAY.address,
        Some(SocketAddr::new(GATEWAY_V4, PORT)),
    ),
};

const CLIENT_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const PORT: u16 = 51820;

/// What `wg-quick` gives an interface on a link of 1500.
const MTU: u32 = 1420;

/// Private and public keys; a pattern, so that nobody takes them for a secret.
const ALICE: (&str, &str) = (
    "1010101010101010101010101010101010101010101010101010101010101050",
    "781faab908430150daccdd6f9d6c5086e34f73a93ebbaa271765e5036edfc519",
);
const BOB: (&str, &str) = (
    "2020202020202020202020202020202020202020202020202020202020202060",
    "06453fcd9cef5a1f53acc4f942104c0c8e9e27d5c7b37f5507cdcd1628105963",
);

const START: Duration = Duration::from_secs(10);
