//! What is answered while the lease table is still being filled after a start.
//!
//! CONFIRM and INFORMATION-REQUEST rest on no binding. RENEW and REBIND name the leases that they are
//! about: these are looked up one by one, and what is found is extended. All else chooses among free
//! leases or frees some, and which leases are free is not known yet; the client asks again.

use std::fmt;

use gemel_lease::{ClientKey, Lease, LeaseTable};
use gemel_wire::MessageType;

use crate::{DropReason, link::Link, request::Request};

/// Leases of one message that are looked up. A lookup may have to wait for the disk; leases beyond
/// it are left out of the answer, so the client keeps them as they are (RFC 8415 section 18.2.10.1).
const RECALLED_MAX: usize = 32;

/// Brings single bindings into the lease table that it does not hold yet.
pub trait Recall: fmt::Debug + Send + Sync {
    /// Restores what is stored of the lease if it belongs to this client, and does nothing once the
    /// table is known to be full: a record that is restored then could undo the end of a lease.
    fn recall(&self, table: &LeaseTable, key: ClientKey<'_>, lease: Lease);
}

/// Which messages are answered.
pub(crate) fn admit(msg_type: MessageType) -> Result<(), DropReason> {
    match msg_type {
        MessageType::RENEW
        | MessageType::REBIND
        | MessageType::CONFIRM
        | MessageType::INFORMATION_REQUEST => Ok(()),
        _ => Err(DropReason::Warming),
    }
}

/// Looks up the leases that a RENEW or REBIND names and the table does not hold.
pub(crate) fn recall_named(
    table: &LeaseTable,
    link: &Link,
    request: &Request<'_>,
    recall: &dyn Recall,
) {
    if !matches!(request.message.msg_type, MessageType::RENEW | MessageType::REBIND) {
        return;
    }
    let duid = request.client_id.unwrap_or_default();
    let mut left = RECALLED_MAX;
    for ia in request.ias() {
        let key = ClientKey { duid, kind: ia.kind, iaid: ia.iaid };
        for named in ia.leases() {
            let lease = named.lease;
            // Only what is in a pool of the link can be extended.
            if link.pool_of(table, lease, ia.kind).is_none()
                || table.lock(key).bindings().any(|binding| binding.lease == lease)
            {
                continue;
            }
            if left == 0 {
                return;
            }
            left -= 1;
            recall.recall(table, key, lease);
        }
    }
}
