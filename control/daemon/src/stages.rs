//! The histograms of all workers and of the control thread, for `gemel ctl histogram` and metrics.

use std::fmt;

use gemel_worker::stages::{Collector, Recorder, Stage, recorder};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};
use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets of times in metrics, in ns.
const TIME_BOUNDS: [u64; 22] = time_bounds();
/// Upper bounds of the buckets of numbers in metrics.
const NUMBER_BOUNDS: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// The reading ends of all recorders, with the names of their workers.
#[derive(Default)]
pub struct Stages(Mutex<Vec<(String, Collector)>>);

/// The histogram of one stage of one worker, as it goes over the control socket.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StageView {
    /// Who recorded it: interface and queue, or `control`.
    pub worker: String,
    /// The stage.
    pub stage: String,
    /// `ns`, or `records`.
    pub unit: String,
    /// Values and how often each was seen; values are within 1 %.
    pub values: Vec<(u64, u64)>,
}

impl Stages {
    /// A recorder for `worker`, whose sums go on where an earlier worker of that name stopped.
    pub fn recorder(&self, worker: &str, stages: &'static [Stage]) -> Recorder {
        let (recorder, mut collector) = recorder(stages);
        let mut all = self.0.lock();
        match all.iter_mut().find(|(name, _)| name == worker) {
            Some((_, old)) => {
                collector.take_over(old);
                *old = collector;
            }
            None => all.push((worker.to_owned(), collector)),
        }
        recorder
    }

    /// Takes what the recorders have handed over; to be called once a second.
    pub fn collect(&self) {
        for (_, collector) in self.0.lock().iter_mut() {
            collector.collect();
        }
    }

    /// What was recorded since the last reset; `reset` makes now the last reset.
    pub fn views(&self, reset: bool) -> Vec<StageView> {
        let mut views = Vec::new();
        for (worker, collector) in self.0.lock().iter_mut() {
            collector.collect();
            views.extend(collector.recent().filter(|(_, histogram)| !histogram.is_empty()).map(
                |(stage, histogram)| {
                    StageView {
                        worker: worker.clone(),
                        stage: stage.as_str().to_owned(),
                        unit: if stage.is_time() { "ns" } else { "records" }.to_owned(),
                        values: histogram
                            .iter_recorded()
                            .map(|step| (step.value_iterated_to(), step.count_at_value()))
                            .collect(),
                    }
                },
            ));
            if reset {
                collector.reset();
            }
        }
        views
    }

    /// Writes all that was recorded since the start as metrics.
    ///
    /// # Errors
    /// Of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.lock();
        let mut times = encoder.encode_descriptor(
            "stage_duration",
            "Time that packets spent in each part of the server",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (worker, collector) in all.iter() {
            for (stage, histogram) in collector.total().filter(|(stage, _)| stage.is_time()) {
                let labels = [("worker", worker.as_str()), ("stage", stage.as_str())];
                let buckets = buckets(histogram, &TIME_BOUNDS, 1e9);
                times.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    sum(histogram) / 1e9,
                    histogram.len(),
                    &buckets,
                    None,
                )?;
            }
        }
        let mut records = encoder.encode_descriptor(
            "sync_records",
            "Binding updates made durable by one sync",
            None,
            MetricType::Histogram,
        )?;
        for (_, collector) in all.iter() {
            for (_, histogram) in collector.total().filter(|(stage, _)| !stage.is_time()) {
                let buckets = buckets(histogram, &NUMBER_BOUNDS, 1.0);
                records.encode_histogram::<NoLabelSet>(
                    sum(histogram),
                    histogram.len(),
                    &buckets,
                    None,
                )?;
            }
        }
        Ok(())
    }
}

/// 1, 2.5 and 5 of each decade from 1 us to 10 s.
const fn time_bounds() -> [u64; 22] {
    let mut bounds = [0; 22];
    let mut decade = 1000;
    let mut at = 0;
    while at < 21 {
        bounds[at] = decade;
        bounds[at + 1] = decade * 5 / 2;
        bounds[at + 2] = decade * 5;
        decade *= 10;
        at += 3;
    }
    bounds[21] = decade;
    bounds
}

/// Counts between the bounds, each with its upper bound in `unit`s.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn buckets(histogram: &Histogram<u64>, bounds: &[u64], unit: f64) -> Vec<(f64, u64)> {
    let uppers = bounds.iter().map(|bound| *bound as f64 / unit);
    let mut buckets: Vec<(f64, u64)> =
        uppers.chain([f64::INFINITY]).map(|upper| (upper, 0)).collect();
    for step in histogram.iter_recorded() {
        // The middle of a bucket, so that a value at a bound is not counted above it.
        let value = histogram.median_equivalent(step.value_iterated_to());
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some((_, count)) = buckets.get_mut(at) {
            *count += step.count_at_value();
        }
    }
    buckets
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn sum(histogram: &Histogram<u64>) -> f64 {
    if histogram.is_empty() { 0.0 } else { histogram.mean() * histogram.len() as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_workers_record_is_seen_and_reset() {
        let stages = Stages::default();
        let mut recorder = stages.recorder("eth1/0", Stage::WORKER);
        recorder.record_n(Stage::Rules, 1500, 3);
        recorder.publish(Instant::now());
        let views = stages.views(true);
        assert_eq!(views.len(), 1);
        assert_eq!((&*views[0].worker, &*views[0].stage), ("eth1/0", "rules"));
        let counts: Vec<u64> = views[0].values.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [3]);
        assert!(stages.views(false).is_empty());
        // The worker is started anew: its totals go on.
        let mut recorder = stages.recorder("eth1/0", Stage::WORKER);
        recorder.record(Stage::Rules, 1500);
        recorder.publish(Instant::now() + Duration::from_secs(1));
        assert_eq!(stages.views(false)[0].values[0].1, 1);
        let all = stages.0.lock();
        let (_, rules) = all[0].1.total().find(|(stage, _)| *stage == Stage::Rules).unwrap();
        assert_eq!(rules.len(), 4);
    }

    #[test]
    fn values_fall_into_their_buckets() {
        assert_eq!(TIME_BOUNDS[..4], [1000, 2500, 5000, 10_000]);
        assert_eq!(TIME_BOUNDS[21], 10_000_000_000);
        let mut histogram = gemel_worker::stages::histogram();
        for value in [1, 1, 3, 8192, 9000] {
            histogram.record(value).unwrap();
        }
        let found = buckets(&histogram, &NUMBER_BOUNDS, 1.0);
        assert_eq!(found[0], (1.0, 2));
        let bound = buckets(&histogram, &TIME_BOUNDS, 1e9)[0].0;
        assert_eq!(bound.to_string(), "0.000001", "as people write it");
        assert_eq!(found[2], (4.0, 1));
        assert_eq!(found[14], (f64::INFINITY, 2), "8192 shares a bucket with what is above it");
        assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), 5);
    }
}
