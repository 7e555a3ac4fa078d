//! One gateway's directory: authority, certificates, configuration, profiles.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use adit_pki::{Authority, Credential, IssueRequest};
use anyhow::{Context, Result, bail};
use rustls::pki_types::UnixTime;
use toml::{Table, Value};

use super::{Client, Gateway, Programs, SERVER_NAME, TUNNEL, TemporaryDirectory};
use crate::lab::{Namespace, internet};

/// A gateway that has been set up but does not run yet, and the authority that issues its profiles.
#[derive(Debug)]
pub struct Setup {
    directory: TemporaryDirectory,
    programs: Programs,
    next: AtomicU32,
    engines: AtomicU8,
}

impl Setup {
    /// Runs `adit-server init`, then points state and socket into the test's directory and installs
    /// [`POLICY`].
    pub fn new(programs: &Programs) -> Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let setup = Self {
            directory,
            programs: programs.clone(),
            next: AtomicU32::new(0),
            engines: AtomicU8::new(0),
        };
        let mut init = Command::new(&programs.server);
        init.args(["init", "--name", SERVER_NAME, "--dir"])
            .arg(setup.gateway_directory());
        succeed(&mut init)?;
        let (state, socket) = (setup.path("state"), setup.path("s.sock"));
        setup.configure(|server| {
            server.insert("state_directory".to_owned(), text(&state));
            server.insert("admin_socket".to_owned(), text(&socket));
        })?;
        setup.policy(POLICY)?;
        Ok(setup)
    }

    /// The programs it uses.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A path inside the test's own directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What `adit-server init` made.
    pub fn gateway_directory(&self) -> PathBuf {
        self.path("gateway")
    }

    /// The authority's directory.
    pub fn authority(&self) -> PathBuf {
        self.gateway_directory().join("ca")
    }

    /// The directory of the authority that the gateway issues with.
    pub fn issuing(&self) -> PathBuf {
        self.gateway_directory().join("issuing")
    }

    /// The gateway's configuration file.
    pub fn server_toml(&self) -> PathBuf {
        self.gateway_directory().join("server.toml")
    }

    /// Changes the gateway's configuration.
    pub fn configure(&self, change: impl FnOnce(&mut Table)) -> Result<()> {
        edit(&self.server_toml(), change)
    }

    /// Gives gateways that are started from now on so many engines; 0 leaves the number to the machine.
    pub fn set_engines(&self, engines: u8) {
        self.engines.store(engines, Ordering::Relaxed);
    }

    pub(super) fn engines(&self) -> u8 {
        self.engines.load(Ordering::Relaxed)
    }

    /// Replaces the policy.
    pub fn policy(&self, policy: &str) -> Result<()> {
        fs::write(self.gateway_directory().join("policy.toml"), policy)
            .context("cannot write policy.toml")
    }

    /// Issues a certificate to `principal` and gives the path of its profile, which leads straight to the
    /// gateway's IPv4 address.
    pub fn profile(&self, principal: &str, groups: &[&str]) -> Result<PathBuf> {
        self.profile_towards(
            principal,
            groups,
            &[SocketAddr::new(internet::GATEWAY_V4, PORT)],
        )
    }

    /// Like [`Setup::profile`], with the addresses the client shall try.
    pub fn profile_towards(
        &self,
        principal: &str,
        groups: &[&str],
        gateways: &[SocketAddr],
    ) -> Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(format!("{principal}-{number}.toml"));
        let mut issue = self.issue(principal, groups);
        issue.args(["--gateway", SERVER_NAME, "-o"]).arg(&path);
        succeed(&mut issue)?;
        edit(&path, |profile| {
            let gateways = gateways
                .iter()
                .map(|address| Value::String(address.to_string()))
                .collect();
            profile.insert("gateways".to_owned(), Value::Array(gateways));
            profile.insert(
                "server_name".to_owned(),
                Value::String(SERVER_NAME.to_owned()),
            );
        })?;
        Ok(path)
    }

    /// Issues a fresh certificate over a profile, as its holder's `adit` finds it while it runs.
    pub fn renew(&self, profile: &Path, principal: &str, groups: &[&str]) -> Result<()> {
        let mut issue = self.issue(principal, groups);
        let gateway = SocketAddr::new(internet::GATEWAY_V4, PORT).to_string();
        issue
            .args(["--gateway", &gateway, "--server-name", SERVER_NAME])
            .args(["--force", "-o"])
            .arg(profile);
        succeed(&mut issue)?;
        Ok(())
    }

    /// Issues certificates of the gateway's own authority that are valid until these moments, since 1970: what a
    /// profile and a roster are made of.
    pub fn issue_until(&self, until: &[(&str, i64)], groups: &[&str]) -> Result<Vec<Credential>> {
        let authority = Authority::open(&self.authority())?;
        let now = i64::try_from(UnixTime::now().as_secs())?;
        let issue = until.iter().map(|(principal, end)| {
            let mut request =
                IssueRequest::client(*principal, now).with_groups(groups.iter().copied());
            request.not_after = *end;
            Ok(authority.issue(&request, now)?)
        });
        issue.collect()
    }

    /// What issues a certificate to `principal`; where to, is still to be said.
    fn issue(&self, principal: &str, groups: &[&str]) -> Command {
        let mut issue = Command::new(&self.programs.ca);
        issue
            .args(["issue", principal, "--dir"])
            .arg(self.authority());
        for group in groups {
            issue.args(["--group", group]);
        }
        issue
    }

    /// Issues another certificate to the gateway, for another name, in place of the one it has.
    pub fn replace_certificate(&self, name: &str) -> Result<()> {
        let mut issue = Command::new(&self.programs.ca);
        issue
            .args(["issue", name, "--purpose", "gateway", "--force", "--dir"])
            .arg(self.authority())
            .arg("-o")
            .arg(self.gateway_directory().join("gateway.pem"));
        succeed(&mut issue)?;
        Ok(())
    }

    /// Runs `adit-ca` with these arguments and gives what it prints.
    pub fn ca(&self, arguments: &[&str]) -> Result<String> {
        let mut ca = Command::new(&self.programs.ca);
        ca.args(arguments).arg("--dir").arg(self.authority());
        let output = succeed(&mut ca)?;
        String::from_utf8(output.stdout).context("adit-ca prints no text")
    }

    /// Changes a profile; its mode stays.
    pub fn edit_profile(&self, path: &Path, change: impl FnOnce(&mut Table)) -> Result<()> {
        edit(path, change)
    }

    /// Starts the gateway and waits until its `status` answers.
    pub fn start_gateway(&self, namespace: &Namespace) -> Result<Gateway> {
        Gateway::start(self, namespace)
    }

    /// Starts the gateway by another program, which becomes it, as `strace -D` does; nothing is waited for.
    pub fn start_gateway_under(&self, namespace: &Namespace, above: &[String]) -> Result<Gateway> {
        Gateway::start_under(self, namespace, above)
    }

    /// A client with directories of its own, not started yet.
    pub fn client(&self, namespace: &Namespace, profile: &Path) -> Result<Client> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = self.path(format!("c{number}"));
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        Ok(Client::new(
            &self.programs,
            namespace,
            profile,
            &directory,
            TUNNEL,
        ))
    }

    /// A client that is started and connected.
    pub fn connect(&self, namespace: &Namespace, profile: &Path) -> Result<Client> {
        let mut client = self.client(namespace, profile)?;
        client.start()?;
        client.connected(super::client::CONNECT)?;
        Ok(client)
    }
}

/// Staff may go to the office and the office to them; the branch is a site; nobody may go to payroll.
pub const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[[allow]]
who = ["group:staff", "branch1.example.com"]
to = ["10.0.0.0/16", "fd00:1::/64"]
direction = "both"

[[site]]
principal = "branch1.example.com"
networks = ["10.20.0.0/16", "fd00:20::/64"]
"#;

/// The gateway's UDP port.
pub const PORT: u16 = 443;

/// The sub-table `key`, made if it is not there.
pub fn table<'a>(parent: &'a mut Table, key: &str) -> &'a mut Table {
    let entry = parent
        .entry(key.to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    if !entry.is_table() {
        *entry = Value::Table(Table::new());
    }
    entry.as_table_mut().expect("it was just made a table")
}

/// Runs a command that must succeed.
pub(super) fn succeed(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

fn edit(path: &Path, change: impl FnOnce(&mut Table)) -> Result<()> {
    let old =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table: Table = old
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    change(&mut table);
    // Written in place, so that the file keeps its mode.
    fs::write(path, table.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn text(path: &Path) -> Value {
    Value::String(path.display().to_string())
}
