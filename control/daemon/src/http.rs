//! Metrics for Prometheus and the status page, over HTTP.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{pair::metrics, status::Shared};

/// Serves until the future is dropped.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve(address: SocketAddr, shared: Arc<Shared>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve HTTP at {address} (control.http)"))?;
    axum::serve(listener, router(shared)).await.context("the HTTP server ended")
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route(
            "/status",
            get(|State(shared): State<Arc<Shared>>| async move {
                Json(shared.status()).into_response()
            }),
        )
        .route("/metrics", get(all_metrics))
        .with_state(shared)
}

async fn all_metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("gemel");
    registry.register_collector(Box::new(Metrics(shared)));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

async fn page(State(shared): State<Arc<Shared>>) -> Html<String> {
    let status = serde_json::to_string_pretty(&shared.status()).unwrap_or_default();
    let counters = serde_json::to_string_pretty(&shared.counters()).unwrap_or_default();
    let failover = shared.failover();
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <meta name=viewport content=\"width=device-width\"><title>Gemel</title>\
         <style>:root{color-scheme:light dark}body{font:14px/1.4 system-ui;margin:2em}\
         td,th{padding-right:1.5em;text-align:left}</style>\
         <h1>Gemel</h1>",
    );
    if !failover.is_empty() {
        html.push_str(
            "<h2>Failover</h2><table><tr><th>Relationship<th>Role<th>State<th>Partner<th>\
             Communications<th>Pending<th>Unacked<th>Lag</tr>",
        );
        for view in failover {
            // Names and states hold nothing that HTML could take for markup.
            let _ = write!(
                html,
                "<tr><td>{}<td>{}<td><b>{}</b><td>{}<td>{}<td>{}<td>{}<td>{:.1} s</tr>",
                view.relationship,
                view.role,
                view.state,
                view.partner_state.unwrap_or("unknown"),
                if view.communications_ok { "OK" } else { "not OK" },
                view.updates.pending.map_or_else(|| "-".to_owned(), |count| count.to_string()),
                view.updates.unacked,
                view.lag_seconds,
            );
        }
        html.push_str("</table>");
    }
    for (title, text) in [("Status", status), ("Counters", counters)] {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        // Writing to a string does not fail.
        let _ = write!(html, "<h2>{title}</h2><pre>{text}</pre>");
    }
    Html(html)
}

/// Reads the counters when they are asked for.
struct Metrics(Arc<Shared>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let shared = &self.0;
        for (family, values) in shared.counters() {
            let (name, help, label, is_counter) = describe(family);
            let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (value_name, value) in values {
                let labels = [(label, value_name)];
                let one = metric.encode_family(&labels)?;
                if is_counter {
                    ConstCounter::new(value).encode(one)?;
                } else {
                    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(one)?;
                }
            }
        }
        let mut leases = encoder.encode_descriptor(
            "leases",
            "Bindings by binding-status",
            None,
            MetricType::Gauge,
        )?;
        for (status, count) in shared.bindings_by_status() {
            let labels = [("status", status)];
            let value = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(leases.encode_family(&labels)?)?;
        }
        let unit = Some(&Unit::Ratios);
        let mut utilization = encoder.encode_descriptor(
            "pool_utilization",
            "Share of a pool's leases that are not available",
            unit,
            MetricType::Gauge,
        )?;
        for pool in shared.pools() {
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
            let ratio = pool.in_use as f64 / pool.capacity.max(1) as f64;
            let labels = [("pool", pool.pool)];
            ConstGauge::new(ratio).encode(utilization.encode_family(&labels)?)?;
        }
        let control = shared.control.lock().clone();
        let up = ConstGauge::new(i64::from(control.failed.is_none()));
        let help = "1 while bindings can be stored, 0 while the server is read-only";
        up.encode(encoder.encode_descriptor("store_up", help, None, MetricType::Gauge)?)?;
        let warming = ConstGauge::new(i64::from(shared.warmth.view().is_some()));
        let help = "1 while bindings are read back after a start and only Renewals are served";
        warming.encode(encoder.encode_descriptor("warming", help, None, MetricType::Gauge)?)?;
        let commits = ConstCounter::new(control.commits);
        let help = "Group commits of binding updates";
        commits.encode(encoder.encode_descriptor("commits", help, None, MetricType::Counter)?)?;
        let overload = *shared.overload.lock();
        let help = "1 while Solicits are dropped because more comes in than can be served";
        ConstGauge::new(i64::from(overload.active)).encode(encoder.encode_descriptor(
            "overloaded",
            help,
            None,
            MetricType::Gauge,
        )?)?;
        shared.stages.encode(&mut encoder)?;
        match &shared.pair {
            Some(pair) => metrics::encode(pair, &mut encoder),
            None => Ok(()),
        }
    }
}

/// Metric name, help, label name, and whether it only ever grows.
fn describe(family: &str) -> (&'static str, &'static str, &'static str, bool) {
    match family {
        "received" => ("received", "Messages received, by type", "type", true),
        "sent" => ("sent", "Messages sent, by type", "type", true),
        "dropped" => ("drops", "Messages dropped by the server rules", "reason", true),
        "shed" => ("shed", "Messages dropped by the workers", "reason", true),
        "xdp" => ("xdp_packets", "Verdicts of the XDP program", "verdict", true),
        "port" => ("port_events", "Packets lost or refused below the workers", "event", true),
        "overload" => (
            "overload_changes",
            "Times that a worker began to drop Solicits, and served them again",
            "change",
            true,
        ),
        "batches" => ("batches", "Batches of packets", "direction", true),
        _ => ("held", "Replies that wait for stable storage", "what", false),
    }
}
