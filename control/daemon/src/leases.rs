//! Bindings as the operator reads them, from a running server or from the store of a stopped one.

use std::io::{self, Write};

use gemel_lease::Binding;
use serde::{Deserialize, Serialize};

/// One lease in the output of `gemel leases` and `gemel ctl leases`; with `--json` one such object
/// per line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeaseView {
    /// The address, or the prefix with its length.
    pub lease: String,
    /// `na`, `ta` or `pd`.
    pub kind: String,
    /// The binding-status of RFC 8156 section 7.2.
    pub status: String,
    /// The client's DUID, hexadecimal with colons.
    pub duid: String,
    /// The IAID.
    pub iaid: u32,
    /// Preferred lifetime last given, in seconds.
    pub preferred_lifetime: u32,
    /// Valid lifetime last given, in seconds.
    pub valid_lifetime: u32,
    /// When the lease ends, in seconds since 1970; `null` for never.
    pub expires: Option<u64>,
    /// When the client last spoke about it, in seconds since 1970.
    pub client_last_transaction: Option<u64>,
}

impl From<&Binding> for LeaseView {
    fn from(binding: &Binding) -> Self {
        Self {
            lease: binding.lease.to_string(),
            kind: binding.kind.to_string(),
            status: binding.status.to_string(),
            duid: binding.duid.to_string(),
            iaid: binding.iaid.0,
            preferred_lifetime: binding.preferred_lifetime,
            valid_lifetime: binding.valid_lifetime,
            expires: binding.state_expiration_time.to_unix_secs(),
            client_last_transaction: binding.client_last_transaction_time.to_unix_secs(),
        }
    }
}

/// Heads of the columns of [`write_text`].
pub const TEXT_HEADER: &str =
    "LEASE                                      KIND  STATUS        EXPIRES     IAID        DUID";

/// Writes a lease as one line of a table.
///
/// # Errors
/// If the output is gone.
pub fn write_text(out: &mut dyn Write, view: &LeaseView) -> io::Result<()> {
    let expires = view.expires.map_or_else(|| "never".to_owned(), |secs| secs.to_string());
    writeln!(
        out,
        "{:<42} {:<5} {:<13} {:<11} {:<11} {}",
        view.lease, view.kind, view.status, expires, view.iaid, view.duid
    )
}

/// Writes a lease as one line of JSON.
///
/// # Errors
/// If the output is gone.
pub fn write_json(out: &mut dyn Write, view: &LeaseView) -> io::Result<()> {
    serde_json::to_writer(&mut *out, view)?;
    out.write_all(b"\n")
}
