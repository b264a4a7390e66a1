//! What a check found, as text and as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// What a check says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It would be faster or steadier otherwise.
    Advice,
    /// The server will not work as configured, or loses packets or leases.
    Problem,
    /// It could not be read.
    Unknown,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Problem => "PROBLEM",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// An interface, or `cpu`, `system`, `disk`.
    pub subject: String,
    /// What was looked at.
    pub name: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// What was found.
    pub measured: String,
    /// What it should be; equal to what was found where that is fine.
    pub recommended: String,
    /// What depends on it.
    pub why: &'static str,
    /// What changes it, until the next restart of the host unless it says otherwise.
    pub command: Option<String>,
}

impl Check {
    /// A value that is fine.
    pub(crate) fn ok(subject: &str, name: &'static str, measured: impl Into<String>) -> Self {
        let measured = measured.into();
        Self {
            subject: subject.to_owned(),
            name,
            verdict: Verdict::Ok,
            recommended: measured.clone(),
            measured,
            why: "",
            command: None,
        }
    }

    /// Something that is not readable here.
    pub(crate) fn unknown(subject: &str, name: &'static str, reason: impl Into<String>) -> Self {
        let recommended = String::new();
        Self { verdict: Verdict::Unknown, recommended, ..Self::ok(subject, name, reason) }
    }

    /// The same, but it should be `recommended`, because of `why`.
    pub(crate) fn advise(self, recommended: impl Into<String>, why: &'static str) -> Self {
        Self { verdict: Verdict::Advice, recommended: recommended.into(), why, ..self }
    }

    /// The same, and it has to be `recommended`, because of `why`.
    pub(crate) fn refuse(self, recommended: impl Into<String>, why: &'static str) -> Self {
        Self { verdict: Verdict::Problem, ..self.advise(recommended, why) }
    }

    /// The same, with what to do.
    pub(crate) fn with_command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }
}

/// Writes a line per check, and below those that are not fine what to do and why.
pub(crate) fn write_text(out: &mut dyn Write, checks: &[Check]) -> io::Result<()> {
    let mut subject = "";
    for check in checks {
        if check.subject != subject {
            subject = &check.subject;
            writeln!(out, "{subject}")?;
        }
        let (verdict, name) = (check.verdict.as_str(), check.name);
        write!(out, "  {verdict:<8} {name:<18} {}", check.measured)?;
        match check.verdict {
            Verdict::Ok | Verdict::Unknown => writeln!(out)?,
            Verdict::Advice | Verdict::Problem => {
                writeln!(out, "; better: {}", check.recommended)?;
                writeln!(out, "{:30}{}", "", check.why)?;
            }
        }
        if let Some(command) = &check.command {
            writeln!(out, "{:30}$ {command}", "")?;
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (problems, advice) = (count(Verdict::Problem), count(Verdict::Advice));
    let (fine, unknown) = (count(Verdict::Ok), count(Verdict::Unknown));
    writeln!(out, "problems: {problems}, advice: {advice}, fine: {fine}, not readable: {unknown}")
}
