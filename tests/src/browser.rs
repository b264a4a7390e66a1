//! A browser that looks at the pages of reports, without a window and without a network.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Process, requirement};

/// The program, from Debian's package of that name.
pub const PROGRAM: &str = "chromium";

/// How long it may take to draw a page.
const TIMEOUT: Duration = Duration::from_secs(120);

/// It is to show the page and to do nothing else: no sandbox, for root has none; no network.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--dump-dom",
];

/// A page after its scripts have run.
#[derive(Clone, Debug)]
pub struct Dom(String);

impl Dom {
    /// Loads a file in a window of this size in pixels.
    ///
    /// # Errors
    /// When the browser is missing, fails, or takes too long.
    pub fn load(page: &Path, (width, height): (u32, u32)) -> Result<Self> {
        let program = requirement::find_program(PROGRAM).context("there is no chromium")?;
        let profile = tempfile::tempdir().context("making a folder for the browser")?;
        let page = page.canonicalize().with_context(|| format!("finding {}", page.display()))?;
        let mut command = Command::new(program);
        command.args(FLAGS).stdin(Stdio::null());
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--window-size={width},{height}"));
        command.arg(format!("file://{}", page.display()));
        let mut process = Process::spawn(PROGRAM, command)?;
        process.wait_success(TIMEOUT)?;
        let text = process.stdout().join("\n");
        ensure!(text.contains("<html"), "the browser showed no page: {}", process.tail());
        Ok(Self(text))
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the script has drawn into the figure of this name.
    ///
    /// # Errors
    /// When there is no such figure.
    pub fn figure(&self, name: &str) -> Result<&str> {
        let begin = format!("<figure data-chart=\"{name}\">");
        let (_, rest) =
            self.0.split_once(&begin).with_context(|| format!("no figure {name} on the page"))?;
        Ok(rest.split("</figure>").next().unwrap_or(rest))
    }

    /// An attribute of the root element.
    #[must_use]
    pub fn root_attribute(&self, name: &str) -> Option<&str> {
        let root = self.0.split_once("<html")?.1.split('>').next()?;
        root.split_once(&format!("{name}=\""))?.1.split('"').next()
    }
}
