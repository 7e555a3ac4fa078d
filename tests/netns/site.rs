//! Site to site: two networks whose hosts know nothing of Adit.

use std::time::Duration;

use adit_tests::lab::{Layout, internet};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::Programs;
use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, note};

pub(crate) fn between_two_lans(programs: &Programs) -> Result<()> {
    let bed = Bed::new(
        programs,
        Layout {
            branch: true,
            ..Layout::default()
        },
    )?;
    let branch = bed
        .internet
        .branch
        .as_ref()
        .context("the layout has a branch")?;
    let profile = bed.setup.profile("branch1.example.com", &[])?;
    let _router = bed.setup.connect(&branch.router, &profile)?;
    for (here, there) in [
        (internet::BRANCH_V4, internet::OFFICE_V4),
        (internet::BRANCH_V6, internet::OFFICE_V6),
    ] {
        let answers = Ping::to(there).count(5).expect_all(&branch.host)?;
        note(&format!("{here} to {there}: {}", answers.summary()));
        Ping::to(here).count(5).expect_all(&bed.internet.office)?;

        let web = WebServer::start(&bed.internet.office, there, 0)?;
        http::download(&branch.host, web.address(), 3_000_000)?;
        let web = WebServer::start(&branch.host, here, 0)?;
        http::download(&bed.internet.office, web.address(), 3_000_000)?;
    }
    let quick = Duration::from_millis(500);
    let answers = Ping::to(internet::PAYROLL_V4)
        .patience(quick)
        .run(&branch.host)?;
    ensure!(answers.received == 0, "the branch reached payroll");
    Ok(())
}
