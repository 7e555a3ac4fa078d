//! Another company's certificates, made with OpenSSL: a root, an authority below it, and whom that issues to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_tests::programs::Setup;
use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

/// The company's files.
pub(crate) struct Corporate {
    directory: PathBuf,
}

impl Corporate {
    /// Makes root and issuing authority in the test's own directory.
    pub(crate) fn new(setup: &Setup) -> Result<Self> {
        let directory = setup.path("corporate");
        fs::create_dir(&directory)?;
        let corporate = Self { directory };
        corporate.file(
            "authority.ext",
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
        )?;
        corporate.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem \
             -subj /O=Corporate/CN=Root -days 30 -addext keyUsage=critical,keyCertSign,cRLSign",
        )?;
        corporate.issue(
            "issuing",
            "/O=Corporate/CN=Issuing",
            "root",
            "authority.ext",
        )?;
        Ok(corporate)
    }

    /// Makes the gateway believe it.
    pub(crate) fn join(&self, server: &mut Table) {
        let mut entry = Table::new();
        entry.insert("name".to_owned(), "corporate".into());
        let root = self.directory.join("root.pem");
        entry.insert("certificates".to_owned(), root.display().to_string().into());
        entry.insert("principal".to_owned(), vec![Value::from("email")].into());
        entry.insert("groups".to_owned(), "ou".into());
        let authorities = server["authority"].as_array_mut();
        authorities
            .expect("init writes one authority")
            .push(Value::Table(entry));
    }

    /// Puts a certificate of `email` in this unit, with the authority that issued it, into a profile.
    pub(crate) fn take_over(
        &self,
        setup: &Setup,
        profile: &Path,
        email: &str,
        unit: &str,
    ) -> Result<()> {
        self.file(
            "client.ext",
            &format!(
                "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\nsubjectAltName=email:{email}\n"
            ),
        )?;
        self.issue(
            "client",
            &format!("/O=Corporate/OU={unit}/CN=x"),
            "issuing",
            "client.ext",
        )?;
        let chain = format!("{}{}", self.read("client.pem")?, self.read("issuing.pem")?);
        let key = self.read("client.key")?;
        setup.edit_profile(profile, |profile| {
            profile.insert("certificate".to_owned(), chain.into());
            profile.insert("key".to_owned(), key.into());
        })
    }

    fn issue(&self, name: &str, subject: &str, issuer: &str, extensions: &str) -> Result<()> {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
        ))?;
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -days 20 \
             -extfile {extensions} -out {name}.pem"
        ))
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl
            .args(arguments.split_whitespace())
            .current_dir(&self.directory);
        let output = openssl.output().context("cannot run openssl")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {arguments}: {stderr}");
        Ok(())
    }

    fn file(&self, name: &str, content: &str) -> Result<()> {
        Ok(fs::write(self.directory.join(name), content)?)
    }

    fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.directory.join(name)).with_context(|| name.to_owned())
    }
}
