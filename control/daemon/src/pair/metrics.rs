//! The pair's metrics for Prometheus.

use std::{collections::BTreeMap, fmt::Error};

use gemel_failover::ServerState;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::{PairHandle, view::RelationshipView};

/// Every state, in the order of RFC 8156 section 5.5.16.
const STATES: [ServerState; 10] = [
    ServerState::Startup,
    ServerState::Normal,
    ServerState::CommunicationsInterrupted,
    ServerState::PartnerDown,
    ServerState::PotentialConflict,
    ServerState::Recover,
    ServerState::RecoverWait,
    ServerState::RecoverDone,
    ServerState::ResolutionInterrupted,
    ServerState::ConflictDone,
];

/// Writes them.
///
/// # Errors
/// If the text cannot be written.
pub fn encode(pair: &PairHandle, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let views = pair.views();
    let help = "1 for the state that a relationship is in";
    let mut metric = encoder.encode_descriptor("failover_state", help, None, MetricType::Gauge)?;
    for view in &views {
        for state in STATES.map(ServerState::as_str) {
            let labels = [("relationship", view.relationship.as_str()), ("state", state)];
            let one = ConstGauge::new(i64::from(view.state == state));
            one.encode(metric.encode_family(&labels)?)?;
        }
    }
    gauges(&views, encoder)?;
    counters(&views, encoder)?;
    let help = "Connections of partners or strangers that were refused";
    let name = "failover_connections_refused";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in pair.refused() {
        ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn gauges(views: &[RelationshipView], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    type Read = fn(&RelationshipView) -> Option<f64>;
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    const GAUGES: [(&str, &str, Read); 9] = [
        ("failover_communications_ok", "Whether communications with the partner are OK", |view| {
            Some(f64::from(u8::from(view.communications_ok)))
        }),
        ("failover_out_of_service", "Whether it is out of service on purpose", |view| {
            Some(f64::from(u8::from(!view.suspended_by.is_empty())))
        }),
        (
            "failover_pending_updates",
            "Leases that the partner does not know as they are, connected or not",
            |view| view.updates.pending.map(|count| count as f64),
        ),
        ("failover_unacked_updates", "Binding updates that the partner has not answered", |view| {
            Some(view.updates.unacked as f64)
        }),
        ("failover_queued_updates", "Leases that wait to be sent to the partner", |view| {
            Some(view.updates.queued as f64)
        }),
        ("failover_lag_seconds", "Age of the oldest update without an answer", |view| {
            Some(view.lag_seconds)
        }),
        ("failover_clock_skew_seconds", "How far the partner's clock is ahead", |view| {
            view.clock_skew_seconds.map(f64::from)
        }),
        (
            "failover_certificate_expiry_seconds",
            "When this server's certificate ends, in seconds since 1970",
            |view| view.certificate_expires.map(|secs| secs as f64),
        ),
        (
            "failover_partner_certificate_expiry_seconds",
            "When the partner's certificate ends, in seconds since 1970",
            |view| view.partner_certificate_expires.map(|secs| secs as f64),
        ),
    ];
    for (name, help, read) in GAUGES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for view in views {
            if let Some(value) = read(view) {
                let labels = [("relationship", view.relationship.as_str())];
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
    }
    let help = "Free prefixes of a pool, by the server that may give them out";
    let name = "failover_free_prefixes";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for view in views {
        for pool in &view.balance {
            for (owner, count) in
                [("primary", pool.primary), ("secondary", pool.secondary), ("moving", pool.moving)]
            {
                let labels = [
                    ("relationship", view.relationship.as_str()),
                    ("pool", pool.pool.as_str()),
                    ("owner", owner),
                ];
                let value = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
                value.encode(metric.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

fn counters(views: &[RelationshipView], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Leases in binding updates, by direction and what became of them";
    let mut metric =
        encoder.encode_descriptor("failover_updates", help, None, MetricType::Counter)?;
    for view in views {
        let updates = &view.updates;
        let fixed = [
            ("sent", "sent", updates.sent),
            ("sent", "acked", updates.acked),
            ("received", "received", updates.received),
            ("received", "accepted", updates.accepted),
        ];
        let fixed = fixed.map(|(direction, result, count)| (direction, result.to_owned(), count));
        let by_status = |direction, counts: &BTreeMap<&str, u64>| {
            let each = counts.iter();
            each.map(move |(status, count)| (direction, format!("rejected_{status}"), *count))
                .collect::<Vec<_>>()
        };
        for (direction, result, count) in fixed
            .into_iter()
            .chain(by_status("sent", &updates.rejected_by_partner))
            .chain(by_status("received", &updates.rejected))
        {
            let labels = [
                ("relationship", view.relationship.as_str()),
                ("direction", direction),
                ("result", result.as_str()),
            ];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    type Read = fn(&RelationshipView) -> u64;
    const COUNTERS: [(&str, &str, Read); 5] = [
        ("failover_conflicts", "Leases that two clients had", |view| view.updates.conflicts),
        ("failover_queue_overflows", "Times that the table was searched for updates", |view| {
            view.updates.overflows
        }),
        ("failover_alarms", "Things that a person should have heard of", |view| view.alarms),
        ("failover_transitions", "Changes of the state", |view| view.transitions),
        ("failover_connections", "Connections with the partner", |view| view.connections),
    ];
    for (name, help, read) in COUNTERS {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for view in views {
            let labels = [("relationship", view.relationship.as_str())];
            ConstCounter::new(read(view)).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
