//! Two connections of one principal: the operator's choice between replace and refuse.

use std::time::Duration;

use adit_tests::lab::{Layout, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, table};
use anyhow::{Result, ensure};

use crate::bed::{Bed, failed};

fn bed(programs: &Programs, choice: &str) -> Result<Bed> {
    let choice = choice.to_owned();
    Bed::with(
        programs,
        Layout {
            laptops: 2,
            ..Layout::default()
        },
        |setup| {
            setup.configure(|server| {
                table(server, "session").insert("second_connection".to_owned(), choice.into());
            })
        },
    )
}

pub(crate) fn replaces_the_first(programs: &Programs) -> Result<()> {
    let bed = bed(programs, "replace")?;
    let mut first = bed.alice(0)?;
    let address = first.address(true)?;
    let second = bed.alice(1)?;
    ensure!(
        second.address(true)? == address,
        "the same principal has two addresses"
    );
    Ping::to(internet::OFFICE_V4).expect_all(second.namespace())?;
    // The first is told and stays away: two clients must not throw each other out for ever.
    failed(&first.end()?, 1, &["replaced"])?;
    ensure!(bed.gateway.principals()? == ["alice@example.com"]);
    Ping::to(internet::OFFICE_V4).expect_all(second.namespace())?;
    Ok(())
}

pub(crate) fn is_refused(programs: &Programs) -> Result<()> {
    let bed = bed(programs, "refuse")?;
    let first = bed.alice(0)?;
    let profile = bed.setup.profile("alice@example.com", &["staff"])?;
    let mut second = bed.setup.client(&bed.internet.laptops[1], &profile)?;
    second.start()?;
    let refused = second.connected(Duration::from_secs(3));
    ensure!(refused.is_err(), "two sessions of one principal");
    let words = second.process()?.stderr().to_lowercase();
    ensure!(
        words.contains("already connected") || words.contains("connected already"),
        "{words}"
    );
    Ping::to(internet::OFFICE_V4).expect_all(first.namespace())?;
    ensure!(bed.gateway.principals()?.len() == 1);
    Ok(())
}
