//! Profiles that keep certificate and key in files of their own: renewed as a pair, or left alone for a reason.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_pki::{Authority, IssueRequest};
use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Client, Programs};
use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustls::pki_types::UnixTime;

use crate::bed::{Bed, audit, note, steadily};

const BOB: &str = "bob@example.com";

/// A profile with its files in a folder of their own.
struct Keeping {
    folder: PathBuf,
    profile: PathBuf,
}

impl Keeping {
    /// With a certificate of the authority in `issuer`, two thirds of whose life are over.
    fn new(bed: &Bed, name: &str, issuer: &Path, renew: Option<bool>) -> Result<Self> {
        let folder = bed.setup.path(name);
        fs::create_dir(&folder)?;
        // It began five minutes ago, as all do.
        let now = i64::try_from(UnixTime::now().as_secs())?;
        let mut request = IssueRequest::client(BOB, now).with_groups(["staff"]);
        request.not_after = now + 120;
        let credential = Authority::open(issuer)?.issue(&request, now)?;
        let keeping = Self {
            profile: bed.setup.profile(BOB, &["staff"])?,
            folder,
        };
        for (file, contents, mode) in [
            ("bob.pem", &credential.certificate_pem[..], 0o640),
            ("bob.key", &credential.key_pem[..], 0o400),
        ] {
            fs::write(keeping.path(file), contents)?;
            fs::set_permissions(keeping.path(file), fs::Permissions::from_mode(mode))?;
        }
        bed.setup.edit_profile(&keeping.profile, |profile| {
            profile.insert("certificate".to_owned(), format!("{name}/bob.pem").into());
            profile.insert("key".to_owned(), format!("{name}/bob.key").into());
            if let Some(renew) = renew {
                profile.insert("renew".to_owned(), renew.into());
            }
        })?;
        Ok(keeping)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Both files.
    fn pair(&self) -> Result<[String; 2]> {
        Ok([
            fs::read_to_string(self.path("bob.pem"))?,
            fs::read_to_string(self.path("bob.key"))?,
        ])
    }

    fn modes(&self) -> Result<[u32; 2]> {
        let mode = |file: &str| -> Result<u32> {
            Ok(fs::metadata(self.path(file))?.permissions().mode() & 0o7777)
        };
        Ok([mode("bob.pem")?, mode("bob.key")?])
    }
}

fn serial(client: &Client) -> Result<String> {
    let status = client.status()?;
    let serial = status["certificate"]["serial"].as_str();
    Ok(serial.context("no serial number")?.to_owned())
}

fn renewals(bed: &Bed) -> Result<usize> {
    let events = audit(bed)?.into_iter();
    Ok(events.filter(|line| line["event"] == "renew").count())
}

pub(crate) fn files_are_renewed_as_a_pair(programs: &Programs) -> Result<()> {
    let mut bed = Bed::new(programs, Layout::default())?;
    let issuing = bed.setup.gateway_directory().join("issuing");
    let keeping = Keeping::new(&bed, "files", &issuing, None)?;
    let profile = fs::read_to_string(&keeping.profile)?;
    let (before, modes) = (keeping.pair()?, keeping.modes()?);
    let mut client = bed.setup.connect(bed.internet.laptop(), &keeping.profile)?;
    let steady = steadily(internet::OFFICE_V4, bed.internet.laptop())?;
    let after = until(Duration::from_secs(30), || {
        client.process()?.still_runs()?;
        let pair = keeping.pair()?;
        Ok((pair[0] != before[0] && pair[1] != before[1]).then_some(pair))
    })?;
    ensure!(after[0].starts_with("-----BEGIN CERTIFICATE-----"));
    ensure!(keeping.modes()? == modes, "{:?}", keeping.modes());
    ensure!(fs::read_to_string(&keeping.profile)? == profile);
    // The session goes on with it, and so does the next one.
    let events = audit(&bed)?;
    let renew = events.iter().find(|line| line["event"] == "renew");
    let renewed = renew.context("no renew")?["serial"].clone();
    until(Duration::from_secs(20), || {
        Ok((renewed == serial(&client)?.as_str()).then_some(()))
    })?;
    let answers = steady.stop()?;
    note(&answers.summary());
    ensure!(answers.lost.is_empty(), "lost {:?}", answers.lost);
    let names = fs::read_dir(&keeping.folder)?.count();
    ensure!(names == 2, "{names} files are left");
    client.down()?;
    let next = bed.setup.connect(bed.internet.laptop(), &keeping.profile)?;
    ensure!(renewed == serial(&next)?.as_str());
    next.down()?;
    bed.gateway.process().still_runs()
}

pub(crate) fn what_cannot_be_renewed_is_told_once(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let directory = bed.setup.gateway_directory();
    let (ours, corporate) = (directory.join("issuing"), directory.join("ca"));
    // Of an authority that does not sign here; in a folder that cannot be written; and not wanted.
    for (name, issuer, renew, words) in [
        (
            "corporate",
            &corporate,
            None,
            Some("the gateway does not renew the certificate"),
        ),
        (
            "read-only",
            &ours,
            None,
            Some("the certificate cannot be renewed; "),
        ),
        ("unwanted", &ours, Some(false), None),
    ] {
        let keeping = Keeping::new(&bed, name, issuer, renew)?;
        if name == "read-only" {
            let folder = CString::new(keeping.folder.as_os_str().as_bytes())?;
            mount_bind(&folder, &folder)?;
            mount_remount(&folder, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
        let before = keeping.pair()?;
        let mut client = bed.setup.connect(bed.internet.laptop(), &keeping.profile)?;
        if let Some(words) = words {
            until(Duration::from_secs(20), || {
                let log = client.process()?.stderr();
                Ok(log.contains(words).then_some(()))
            })
            .with_context(|| format!("{name}: it was not told"))?;
        }
        Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
        let log = client.process()?.stderr();
        if let Some(words) = words {
            ensure!(log.matches(words).count() == 1, "{name}:\n{log}");
        }
        if name == "read-only" {
            let says = log.contains("bob.key") && log.contains("renew = false");
            ensure!(says, "which, and what to do:\n{log}");
        }
        ensure!(keeping.pair()? == before, "{name}: replaced");
        client.down()?;
    }
    ensure!(renewals(&bed)? == 0);
    Ok(())
}
