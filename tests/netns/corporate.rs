//! Another company's certificates, made by the commands of docs/authorities.md: a root, a policy authority below it,
//! an issuing one below that, and whom that issues to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use adit_tests::lab::internet;
use adit_tests::programs::{PORT, SERVER_NAME, Setup};
use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use crate::openssl::{ECDSA, OpenSsl};
use crate::page::{AUTHORITIES, blocks_of};

/// The company's files, and what the page does with them.
pub(crate) struct Corporate {
    openssl: OpenSsl,
    blocks: Vec<&'static str>,
}

/// What the blocks of commands on the page do, in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Authorities,
    GatewayAndClient,
    Lists,
    Renewal,
    Revocation,
}

impl Corporate {
    /// Makes the three authorities, with keys of this kind, in a new directory.
    pub(crate) fn new(directory: &Path, keys: &'static str) -> Result<Self> {
        let blocks = blocks_of(AUTHORITIES, HEADING, "sh");
        ensure!(blocks.len() == 5, "five steps were expected: {blocks:#?}");
        let configuration = blocks_of(AUTHORITIES, HEADING, "ini");
        let configuration = configuration.first().context("no openssl.cnf")?;
        let openssl = OpenSsl::new(directory, configuration, keys)?;
        let corporate = Self { openssl, blocks };
        corporate.step(Step::Authorities)?;
        Ok(corporate)
    }

    /// Does one step of the page.
    pub(crate) fn step(&self, step: Step) -> Result<()> {
        // The test says which keys; everything else stands as it is.
        let block = self.blocks[step as usize].lines();
        let lines: Vec<&str> = block.filter(|line| !line.starts_with("KEY=")).collect();
        self.openssl.run(&lines.join("\n"))
    }

    /// Runs one more command there.
    pub(crate) fn run(&self, script: &str) -> Result<()> {
        self.openssl.run(script)
    }

    /// The section of the page for `server.toml`.
    pub(crate) fn server() -> Result<Table> {
        tables(0)
    }

    /// The profile of the page, with `name` in place of Alice: towards the gateway's address.
    pub(crate) fn profile(&self, setup: &Setup, name: &str) -> Result<PathBuf> {
        let path = self.openssl.path(&format!("{name}.toml"));
        let mut profile = tables(1)?;
        for key in ["certificate", "key"] {
            let file = profile[key].as_str().context("a file")?;
            let file = file.replace("alice", name);
            profile.insert(key.to_owned(), file.into());
        }
        fs::write(&path, profile.to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        towards_the_gateway(setup, &path)?;
        Ok(path)
    }

    /// Makes the gateway believe the root beside its own authority.
    pub(crate) fn join(&self, server: &mut Table) -> Result<()> {
        let mut entry = Table::new();
        entry.insert("name".to_owned(), "corporate".into());
        let root = self.openssl.path("root.pem");
        entry.insert("certificates".to_owned(), root.display().to_string().into());
        entry.insert("principal".to_owned(), vec![Value::from("email")].into());
        entry.insert("groups".to_owned(), "ou".into());
        let authorities = server["authority"].as_array_mut();
        authorities
            .context("init writes one authority")?
            .push(Value::Table(entry));
        Ok(())
    }

    /// Issues to somebody what the page issues to Alice: `NAME.pem`, its key and its chain.
    pub(crate) fn issue(&self, name: &str, unit: &str, email: &str, days: u32) -> Result<()> {
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!("/OU={unit}")
        };
        self.openssl.run(&format!(
            "openssl req -newkey $KEY -nodes -keyout {name}.key -subj '/O=Example Corp{unit}/CN={name}' -out {name}.csr
             AUTHORITY=issuing NAME=email:{email} openssl ca -batch -notext -extensions client -days {days} \
             -in {name}.csr -out {name}.pem
             cat {name}.pem issuing.pem policy.pem > {name}-chain.pem"
        ))
    }

    /// Puts a certificate of `email` in this unit, with the authorities above it, into a profile.
    pub(crate) fn take_over(
        &self,
        setup: &Setup,
        profile: &Path,
        email: &str,
        unit: &str,
    ) -> Result<()> {
        self.issue("client", unit, email, 20)?;
        let chain = self.openssl.read("client-chain.pem")?;
        let key = self.openssl.read("client.key")?;
        setup.edit_profile(profile, |profile| {
            profile.insert("certificate".to_owned(), chain.into());
            profile.insert("key".to_owned(), key.into());
        })
    }
}

/// The company of most tests.
pub(crate) fn corporate(setup: &Setup) -> Result<Corporate> {
    Corporate::new(&setup.path("corporate"), ECDSA)
}

/// Points a profile straight to the gateway's address.
pub(crate) fn towards_the_gateway(setup: &Setup, profile: &Path) -> Result<()> {
    setup.edit_profile(profile, |profile| {
        let address = std::net::SocketAddr::new(internet::GATEWAY_V4, PORT).to_string();
        profile.insert("gateways".to_owned(), vec![Value::from(address)].into());
        profile.insert("server_name".to_owned(), SERVER_NAME.into());
    })
}

fn tables(number: usize) -> Result<Table> {
    let blocks = blocks_of(AUTHORITIES, HEADING, "toml");
    let block = blocks.get(number).context("no such block of TOML")?;
    Ok(block.parse()?)
}

const HEADING: &str = "## OpenSSL: a root, a policy authority, an issuing authority";
