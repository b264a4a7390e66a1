//! What the page's script draws from.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    number::{float, micros, whole},
    record::Second,
    report::Summary,
    scenario::ScenarioReport,
    stats::{Interval, Pair, Stats, histogram},
    times::{Times, Track},
};

/// Columns of the heat map at most; more intervals are joined.
const COLUMNS_MAX: usize = 180;

/// Rows of the heat map in a decade of time.
const ROWS_PER_DECADE: u32 = 12;

/// All figures of the charts.
#[derive(Debug, Serialize)]
pub(super) struct Data {
    /// Where the axes of time end, seconds.
    end: f64,
    /// When the load ended, if answers were waited for after that.
    load_end: Option<f64>,
    lag_limit_us: f64,
    rows_per_decade: u32,
    marks: Vec<Mark>,
    series: Series,
    curves: Vec<Curve>,
    heat: Vec<Heat>,
    timeline: Option<Servers>,
    served: Option<Served>,
    ramp: Option<Ramp>,
}

/// A vertical line in the charts over time.
#[derive(Debug, Serialize)]
struct Mark {
    at: f64,
    /// `event` or `takeover`.
    kind: &'static str,
    label: String,
    text: String,
}

/// The intervals, field by field. What was not measured is null.
#[derive(Debug, Default, Serialize)]
struct Series {
    at: Vec<f64>,
    length: Vec<f64>,
    started: Vec<u64>,
    completed: Vec<u64>,
    lost: Vec<u64>,
    failed: Vec<u64>,
    lag_p99: Vec<Option<f64>>,
    lag_max: Vec<Option<f64>>,
}

/// Percentiles of a pair: the number of nines and the time in us.
#[derive(Debug, Serialize)]
struct Curve {
    title: &'static str,
    colour: usize,
    answered: Vec<(f64, f64)>,
    /// With losses as time-outs, if there were any.
    losses: Option<Vec<(f64, f64)>>,
}

/// Counts by time and latency.
#[derive(Debug, Serialize)]
struct Heat {
    title: &'static str,
    /// From and to, seconds.
    columns: Vec<(f64, f64)>,
    /// Lowest and highest row; row n begins at 10^(n / rows per decade) ns.
    low: u32,
    high: u32,
    /// Column, row, count.
    cells: Vec<(usize, u32, u64)>,
    /// Given up, by column.
    lost: Vec<u64>,
    /// Percentiles of what was answered, us, by column.
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
}

/// REPLY by server.
#[derive(Debug, Serialize)]
struct Servers {
    step_s: f64,
    servers: Vec<Server>,
}

#[derive(Debug, Serialize)]
struct Server {
    duid: String,
    counts: Vec<u64>,
}

/// How the clients of a storm were served.
#[derive(Debug, Serialize)]
struct Served {
    clients: u64,
    /// Seconds and clients.
    points: Vec<(f64, u64)>,
    /// When which share of all clients had been served.
    shares: Vec<(&'static str, f64)>,
}

/// Latencies by rate, us.
#[derive(Debug, Serialize)]
struct Ramp {
    rate: Vec<f64>,
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
    limit_us: f64,
    broke_at: Option<f64>,
}

impl Data {
    pub(super) fn new(summary: &Summary, stats: &Stats) -> Self {
        let last = stats.series.last().map_or(0.0, |interval| interval.at_s);
        let end = last.max(summary.duration_s);
        Self {
            end: if end > 0.0 { end } else { 1.0 },
            load_end: (summary.drain_s > 0.2).then_some(summary.duration_s),
            lag_limit_us: summary.setup.lag_limit_us,
            rows_per_decade: ROWS_PER_DECADE,
            marks: marks(summary),
            series: series(&stats.series),
            curves: curves(stats),
            heat: heat(&stats.seconds),
            timeline: summary.failover.as_ref().map(|report| Servers {
                step_s: report.timeline.step_s,
                servers: report
                    .timeline
                    .replies
                    .iter()
                    .map(|(duid, counts)| Server { duid: duid.clone(), counts: counts.clone() })
                    .collect(),
            }),
            served: served(summary.scenario.as_ref()),
            ramp: ramp(summary.scenario.as_ref()),
        }
    }

    /// As JSON that may stand inside of a script element.
    pub(super) fn json(&self) -> String {
        // Only maps with keys that are no strings and broken writers fail.
        serde_json::to_string(self).unwrap_or_default().replace('<', "\\u003c")
    }
}

fn marks(summary: &Summary) -> Vec<Mark> {
    let mut marks = Vec::new();
    let events = summary.failover.iter().flat_map(|report| &report.events);
    for (number, event) in (1..).zip(events) {
        marks.push(Mark {
            at: event.started_s,
            kind: "event",
            label: format!("{number}"),
            text: format!("{number} {}", event.name),
        });
        if let Some(ms) = event.takeover_ms {
            marks.push(Mark {
                at: event.started_s + ms / 1e3,
                kind: "takeover",
                label: "takeover".into(),
                text: format!("takeover {ms:.1} ms after {number}"),
            });
        }
    }
    marks
}

fn served(report: Option<&ScenarioReport>) -> Option<Served> {
    let Some(ScenarioReport::Avalanche(storm) | ScenarioReport::RenewStorm(storm)) = report else {
        return None;
    };
    let shares = [
        ("50 %", storm.until_50_s),
        ("90 %", storm.until_90_s),
        ("99 %", storm.until_99_s),
        ("100 %", storm.until_all_s),
    ];
    Some(Served {
        clients: storm.clients,
        points: storm.curve.iter().map(|point| (point.at_s, point.clients)).collect(),
        shares: shares.into_iter().filter_map(|(name, at)| Some((name, at?))).collect(),
    })
}

fn ramp(report: Option<&ScenarioReport>) -> Option<Ramp> {
    let Some(ScenarioReport::Ramp(ramp)) = report else { return None };
    let positive = |us: f64| (us > 0.0).then_some(us);
    Some(Ramp {
        rate: ramp.steps.iter().map(|step| step.rate).collect(),
        p50: ramp.steps.iter().map(|step| positive(step.p50_us)).collect(),
        p99: ramp.steps.iter().map(|step| positive(step.p99_us)).collect(),
        limit_us: ramp.p99_limit_us,
        broke_at: ramp.broke_at_per_s,
    })
}

fn series(intervals: &[Interval]) -> Series {
    let mut series = Series::default();
    let positive = |us: f64| (us > 0.0).then_some(us);
    // The last interval may be a few packets long: a rate over it would mislead.
    for interval in intervals.iter().filter(|interval| interval.length_s > super::SHORT_S) {
        series.at.push(interval.at_s);
        series.length.push(interval.length_s);
        series.started.push(interval.started);
        series.completed.push(interval.completed);
        series.lost.push(interval.lost);
        series.failed.push(interval.failed);
        series.lag_p99.push(positive(interval.lag_p99_us));
        series.lag_max.push(positive(interval.lag_max_us));
    }
    series
}

fn curves(stats: &Stats) -> Vec<Curve> {
    Pair::ALL
        .iter()
        .filter(|pair| !stats.pair(**pair).with_losses().is_empty())
        .enumerate()
        .map(|(colour, pair)| {
            let times = stats.pair(*pair);
            let losses = (!times.timed_out.is_empty()).then(|| curve(&times.with_losses()));
            Curve { title: pair.title(), colour, answered: curve(&times.answered), losses }
        })
        .collect()
}

/// Points of a curve: the number of nines and the time.
fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let most = float(times.len()).log10();
    let steps = whole(most * 40.0).max(1);
    let round = |value: f64| (value * 1e4).round() / 1e4;
    (0..=steps)
        .map(|step| {
            let nines = most * float(step) / float(steps);
            let quantile = 1.0 - 10_f64.powf(-nines);
            (round(nines), micros(times.value_at_quantile(quantile).max(1)))
        })
        .collect()
}

/// The heat maps of all messages together and of each pair.
fn heat(seconds: &[Second]) -> Vec<Heat> {
    let chunk = seconds.len().div_ceil(COLUMNS_MAX).max(1);
    let mut columns = Vec::new();
    let mut maps = BTreeMap::<usize, Map>::new();
    for (column, seconds) in seconds.chunks(chunk).enumerate() {
        let mut times = Times::new();
        seconds.iter().for_each(|second| second.add_to(&mut times));
        let first = seconds.first().map_or(0.0, |s| s.interval.at_s - s.interval.length_s);
        columns.push((first.max(0.0), seconds.last().map_or(0.0, |s| s.interval.at_s)));
        let mut lost = histogram();
        for pair in Pair::ALL {
            let of_pair = times.pair(*pair);
            if !of_pair.answered.is_empty() || !of_pair.timed_out.is_empty() {
                let map = maps.entry(*pair as usize + 1).or_default();
                map.add(column, &of_pair.answered, of_pair.timed_out.len());
                if !pair.is_whole() {
                    lost += times.track(Track::TimedOut(*pair));
                }
            }
        }
        maps.entry(0).or_default().add(column, &times.messages(), lost.len());
    }
    maps.into_iter()
        .filter(|(_, map)| !map.cells.is_empty() || map.lost.values().any(|lost| *lost > 0))
        .map(|(number, map)| {
            let title = number.checked_sub(1).map_or("all messages", |n| Pair::ALL[n].title());
            map.finish(title, &columns)
        })
        .collect()
}

/// A heat map in the making.
#[derive(Debug, Default)]
struct Map {
    cells: BTreeMap<(usize, u32), u64>,
    lost: BTreeMap<usize, u64>,
    percentiles: BTreeMap<usize, (f64, f64)>,
}

impl Map {
    fn add(&mut self, column: usize, answered: &Histogram<u64>, lost: u64) {
        for step in answered.iter_recorded() {
            let row = float(step.value_iterated_to().max(1)).log10() * f64::from(ROWS_PER_DECADE);
            let row = crate::number::low32(whole(row.floor()));
            *self.cells.entry((column, row)).or_default() += step.count_at_value();
        }
        if !answered.is_empty() {
            let at = |q| micros(answered.value_at_quantile(q));
            self.percentiles.insert(column, (at(0.5), at(0.99)));
        }
        self.lost.insert(column, lost);
    }

    fn finish(self, title: &'static str, columns: &[(f64, f64)]) -> Heat {
        let rows = || self.cells.keys().map(|(_, row)| *row);
        let percentile = |column: usize| self.percentiles.get(&column).copied();
        Heat {
            title,
            low: rows().min().unwrap_or(0),
            high: rows().max().unwrap_or(ROWS_PER_DECADE),
            lost: (0..columns.len()).map(|n| self.lost.get(&n).copied().unwrap_or(0)).collect(),
            p50: (0..columns.len()).map(|n| percentile(n).map(|(p50, _)| p50)).collect(),
            p99: (0..columns.len()).map(|n| percentile(n).map(|(_, p99)| p99)).collect(),
            cells: self.cells.iter().map(|((column, row), n)| (*column, *row, *n)).collect(),
            columns: columns.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{failed_over, sample};

    #[test]
    fn heat_maps_count_everything_once() {
        let (_, stats) = sample();
        let maps = heat(&stats.seconds);
        let of = |title: &str| {
            let map = maps.iter().find(|map| map.title == title).expect(title);
            let cells: u64 = map.cells.iter().map(|(_, _, count)| count).sum();
            (cells, map.lost.iter().sum::<u64>())
        };
        assert_eq!(of("all messages"), (2 * 998, 2));
        assert_eq!(of("REQUEST → REPLY"), (998, 2));
        assert_eq!(of("SOLICIT → ADVERTISE"), (998, 0));
        assert_eq!(maps.len(), 4);
        let map = &maps[0];
        assert_eq!(map.columns, [(0.0, 1.0), (1.0, 2.0)]);
        // From 20 us, which is 10^4.3 ns, to 190 us.
        assert_eq!((map.low, map.high), (51, 63));
    }

    #[test]
    fn a_long_run_has_columns_of_several_seconds() {
        let (_, stats) = sample();
        let many: Vec<Second> = (0..600)
            .map(|n| {
                let mut second = stats.seconds[n % 2].clone();
                second.interval.at_s = float(n as u64 + 1);
                second
            })
            .collect();
        let maps = heat(&many);
        assert_eq!(maps[0].columns.len(), 150);
        assert_eq!(maps[0].columns[149], (596.0, 600.0));
        let cells: u64 = maps[0].cells.iter().map(|(_, _, count)| count).sum();
        assert_eq!(cells, 300 * 2 * 998);
    }

    #[test]
    fn curves_end_at_the_slowest() {
        let (_, stats) = sample();
        let curves = curves(&stats);
        assert_eq!(curves.len(), 3);
        let reply = curves.iter().find(|curve| curve.title == "REQUEST → REPLY").unwrap();
        let last = reply.answered.last().unwrap();
        let max = micros(stats.pair(Pair::RequestReply).answered.max());
        assert!((last.1 - max).abs() < 0.5, "{last:?} {max}");
        assert!(reply.losses.as_ref().unwrap().last().unwrap().1 > 999_000.0);
        let advertise = curves.iter().find(|curve| curve.title == "SOLICIT → ADVERTISE").unwrap();
        assert!(advertise.losses.is_none(), "nothing was lost there");
    }

    #[test]
    fn events_and_takeovers_are_marks() {
        let (mut summary, stats) = sample();
        summary.failover = Some(failed_over());
        let data = Data::new(&summary, &stats);
        let marks: Vec<_> = data.marks.iter().map(|mark| (mark.at, mark.kind)).collect();
        assert_eq!(marks, [(0.5, "event"), (0.75, "takeover")]);
        let json = data.json();
        assert!(json.contains("kill \\u003c1>") && !json.contains('<'), "{json}");
    }
}
