//! Figures of a run while it runs, for Prometheus.
//!
//! The recorder publishes once a second; a thread of its own answers over HTTP. The generator knows
//! nothing of either.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    number::{float, ratio},
    stats::{Counter, Counters, Interval, Pair},
    times::Times,
};

/// Upper bounds of the histograms' buckets, in ns: 1, 2, 5 in each decade from 10 us to 10 s.
const BOUNDS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// What a client may send before it is cut off, in octets, and how long it may take.
const REQUEST_MAX: u64 = 8192;
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Counts by bucket; the last one is of what exceeds all bounds.
#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    counts: [u64; BOUNDS.len() + 1],
    sum_ns: f64,
}

impl Buckets {
    fn add(&mut self, times: &Histogram<u64>) {
        for step in times.iter_recorded() {
            let (ns, count) = (step.value_iterated_to(), step.count_at_value());
            let bucket = BOUNDS.partition_point(|bound| *bound < ns);
            self.counts[bucket] += count;
            self.sum_ns += float(ns) * float(count);
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn bounded(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|ns| float(*ns) / 1e9).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

#[derive(Clone, Debug)]
struct Snapshot {
    running: bool,
    runs: u64,
    counters: Counters,
    answered: Vec<Buckets>,
    timed_out: Vec<u64>,
    last: Interval,
}

/// The figures of the last second and of all runs so far.
#[derive(Debug)]
pub struct Published(Mutex<Snapshot>);

impl Default for Published {
    fn default() -> Self {
        Self(Mutex::new(Snapshot {
            running: false,
            runs: 0,
            counters: [0; Counter::ALL.len()],
            answered: vec![Buckets::default(); Pair::ALL.len()],
            timed_out: vec![0; Pair::ALL.len()],
            last: Interval::default(),
        }))
    }
}

impl Published {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        // Every change leaves it usable, wherever a panic may have come from.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins.
    pub fn begin(&self) {
        let mut snapshot = self.lock();
        snapshot.running = true;
        snapshot.runs += 1;
    }

    /// The run is over.
    pub fn end(&self) {
        let mut snapshot = self.lock();
        snapshot.running = false;
        snapshot.last = Interval::default();
    }

    /// A generator's counters went from `before` to `after`.
    pub fn count(&self, before: &Counters, after: &Counters) {
        let mut snapshot = self.lock();
        for ((total, after), before) in snapshot.counters.iter_mut().zip(after).zip(before) {
            *total += after.saturating_sub(*before);
        }
    }

    /// A second is over.
    pub fn second(&self, interval: &Interval, times: &Times) {
        let mut snapshot = self.lock();
        for pair in Pair::ALL {
            let of_pair = times.pair(*pair);
            snapshot.answered[*pair as usize].add(&of_pair.answered);
            snapshot.timed_out[*pair as usize] += of_pair.timed_out.len();
        }
        snapshot.last = *interval;
    }

    /// The metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("gemel_bench");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The load generator", Info::new(version));
        registry.register_collector(Box::new(Metrics(Arc::clone(self))));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[derive(Debug)]
struct Metrics(Arc<Published>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.lock().clone();
        counters(&mut encoder, &snapshot)?;
        latencies(&mut encoder, &snapshot)?;
        gauges(&mut encoder, &snapshot)
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "What the generator counted, by the names of summary.json";
    let mut family = encoder.encode_descriptor("events", help, None, MetricType::Counter)?;
    for (counter, count) in Counter::ALL.iter().zip(snapshot.counters) {
        let labels = [("event", counter.as_str())];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    let help = "Messages that were given up without an answer";
    let mut family = encoder.encode_descriptor("timed_out", help, None, MetricType::Counter)?;
    for (pair, count) in occurring(snapshot) {
        let labels = [("pair", pair.as_str())];
        ConstCounter::new(snapshot.timed_out[count]).encode(family.encode_family(&labels)?)?;
    }
    let mut runs = encoder.encode_descriptor("runs", "Runs begun", None, MetricType::Counter)?;
    runs.encode_counter::<NoLabelSet, _, u64>(&snapshot.runs, None)
}

/// The pairs that have occurred, with their numbers.
fn occurring(snapshot: &Snapshot) -> impl Iterator<Item = (Pair, usize)> + '_ {
    let occurs = |pair: &Pair| {
        let number = *pair as usize;
        snapshot.answered[number].total() + snapshot.timed_out[number] > 0
    };
    Pair::ALL.iter().copied().filter(occurs).map(|pair| (pair, pair as usize))
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Time from the moment a message was due to its answer; without what was given up";
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor("latency", help, unit, MetricType::Histogram)?;
    for (pair, number) in occurring(snapshot) {
        let buckets = &snapshot.answered[number];
        let labels = [("pair", pair.as_str())];
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            buckets.sum_ns / 1e9,
            buckets.total(),
            &buckets.bounded(),
            None,
        )?;
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let last = &snapshot.last;
    let rate = |count: u64| if last.length_s > 0.0 { float(count) / last.length_s } else { 0.0 };
    let seconds = Some(&Unit::Seconds);
    let rows: [(&str, &str, Option<&Unit>, f64); 11] = [
        ("running", "1 while a run is on", None, f64::from(u8::from(snapshot.running))),
        ("run_time", "Since the start of the run", seconds, last.at_s),
        ("started_rate", "Exchanges begun per second, last second", None, rate(last.started)),
        (
            "completed_rate",
            "Exchanges completed per second, last second",
            None,
            rate(last.completed),
        ),
        ("lost_rate", "Messages lost per second, last second", None, rate(last.lost)),
        ("failed_rate", "Exchanges refused or invalid per second", None, rate(last.failed)),
        ("outstanding", "Messages that await an answer", None, f64::from(last.outstanding)),
        ("latency_p50", "Median of the last second", seconds, last.p50_us / 1e6),
        ("latency_p99", "99th percentile of the last second", seconds, last.p99_us / 1e6),
        (
            "lag_p99",
            "Generator's lag, 99th percentile of the last second",
            seconds,
            last.lag_p99_us / 1e6,
        ),
        (
            "loss",
            "Lost, refused or invalid of those begun so far",
            Some(&Unit::Ratios),
            loss(snapshot),
        ),
    ];
    for (name, help, unit, value) in rows {
        let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)?;
    }
    Ok(())
}

fn loss(snapshot: &Snapshot) -> f64 {
    let bad = crate::stats::lost(&snapshot.counters) + crate::stats::failed(&snapshot.counters);
    ratio(bad, snapshot.counters[Counter::Started as usize])
}

/// Serves the figures at an address, in a thread that lasts as long as the process. To be called
/// before a generator binds itself to a core. Returns the address, with the port that was chosen if
/// it was 0.
///
/// # Errors
/// If the address cannot be had, or no thread.
pub fn serve(address: SocketAddr, published: Arc<Published>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    std::thread::Builder::new().name("prometheus".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // Those who ask go away, or ask slowly; neither matters to anybody else.
                Ok(stream) => drop(answer(&stream, &published)),
                // For want of descriptors, say; the next one may come through.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(bound)
}

/// A connection with a time at which it ends, however much of it is still to come.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl Bounded<'_> {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        // No time at all would mean no limit.
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn answer(stream: &TcpStream, published: &Arc<Published>) -> io::Result<()> {
    let mut stream = Bounded { stream, until: Instant::now() + REQUEST_TIME };
    let mut reader = BufReader::new(stream.take(REQUEST_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    // The headers end with an empty line; none of them matters here.
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    let plain = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => (
            "200 OK",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            published.text(),
        ),
        ("GET" | "HEAD", "/") => ("200 OK", plain, "the metrics are at /metrics\n".into()),
        ("GET" | "HEAD", _) => ("404 Not Found", plain, "there is only /metrics\n".into()),
        _ => ("405 Method Not Allowed", plain, "only GET\n".into()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Track;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn published() -> Arc<Published> {
        let published = Arc::new(Published::default());
        published.begin();
        let mut times = Times::new();
        for us in [5, 15, 300, 20_000_000] {
            times.track_mut(Track::Answered(Pair::RequestReply)).saturating_record(us * 1000);
        }
        times.track_mut(Track::TimedOut(Pair::RequestReply)).saturating_record(1_000_000_000);
        let (before, mut after) = ([0; Counter::ALL.len()], [0; Counter::ALL.len()]);
        after[Counter::Started as usize] = 5;
        after[Counter::LostReply as usize] = 1;
        published.count(&before, &after);
        let interval = Interval {
            at_s: 1.0,
            length_s: 0.5,
            started: 5,
            outstanding: 2,
            ..Interval::default()
        };
        published.second(&interval, &times);
        published
    }

    #[test]
    fn metrics_have_what_was_published() {
        let text = published().text();
        for line in [
            "gemel_bench_events_total{event=\"started\"} 5",
            "gemel_bench_timed_out_total{pair=\"request_reply\"} 1",
            "gemel_bench_latency_seconds_count{pair=\"request_reply\"} 4",
            "gemel_bench_latency_seconds_bucket{le=\"0.00001\",pair=\"request_reply\"} 1",
            "gemel_bench_latency_seconds_bucket{le=\"0.0005\",pair=\"request_reply\"} 3",
            "gemel_bench_latency_seconds_bucket{le=\"10.0\",pair=\"request_reply\"} 3",
            "gemel_bench_latency_seconds_bucket{le=\"+Inf\",pair=\"request_reply\"} 4",
            "gemel_bench_started_rate 10.0",
            "gemel_bench_running 1.0",
            "gemel_bench_loss_ratios 0.2",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("renew_reply\"} 0\n# TYPE gemel_bench_latency"), "{text}");
    }

    #[test]
    fn counters_only_rise() {
        let published = published();
        published.end();
        published.begin();
        let mut first = [0; Counter::ALL.len()];
        first[Counter::Started as usize] = 3;
        published.count(&[0; Counter::ALL.len()], &first);
        let text = published.text();
        assert!(text.contains("events_total{event=\"started\"} 8"), "of both runs: {text}");
        assert!(text.contains("gemel_bench_runs_total 2"), "{text}");
    }

    #[test]
    fn it_speaks_http() {
        let address = serve("[::1]:0".parse().unwrap(), published()).unwrap();
        let page = ask(address, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("openmetrics-text") && head.contains(&format!("{}", body.len())));
        assert!(body.contains("gemel_bench_events_total"), "{body}");
        assert!(ask(address, "HEAD /metrics HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask(address, "GET /other HTTP/1.1\r\n\r\n").contains("404"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").contains("405"));
        // Somebody who says nothing and goes does no harm.
        drop(TcpStream::connect(address).unwrap());
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").contains("/metrics"));
    }

    #[test]
    fn somebody_who_does_not_come_to_an_end_does_not_keep_others_waiting() {
        let address = serve("[::1]:0".parse().unwrap(), published()).unwrap();
        let began = Instant::now();
        let mut slow = TcpStream::connect(address).unwrap();
        let dripping = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < 600 && slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                sent += 1;
            }
        });
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").contains("/metrics"));
        assert!(began.elapsed() < 3 * REQUEST_TIME, "{:?}", began.elapsed());
        dripping.join().unwrap();
    }
}
