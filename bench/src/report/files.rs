//! The files of a run.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};

use super::{Percentiles, Summary, page};
use crate::{
    number::micros,
    record::Second,
    stats::{Interval, Pair, Stats},
    times::Track,
};

/// Name of the summary in a run's folder.
pub const SUMMARY: &str = "summary.json";
/// Name of the interval log.
pub const LOG: &str = "run.hlog";

/// Writes `.hgrm` per pair, `run.hlog`, `series.csv`, `summary.json` and `report.html` into a folder;
/// returns the path of the page.
///
/// # Errors
/// If it cannot be written.
pub fn write_all(folder: &Path, summary: &Summary, stats: &Stats) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    for pair in Pair::ALL {
        let times = stats.pair(*pair);
        for (suffix, histogram) in [("", &times.answered), (".losses", &times.with_losses())] {
            if !times.with_losses().is_empty() {
                let path = folder.join(format!("{}{suffix}.hgrm", pair.as_str()));
                to_file(&path, |out| write_hgrm(out, histogram))?;
            }
        }
    }
    to_file(&folder.join("lag.hgrm"), |out| write_hgrm(out, &stats.lag))?;
    to_file(&folder.join(LOG), |out| write_log(out, summary.started_at, &stats.seconds))?;
    fs::write(folder.join("series.csv"), series(&stats.seconds))?;
    let json = serde_json::to_vec_pretty(summary).map_err(io::Error::other)?;
    fs::write(folder.join(SUMMARY), json)?;
    let path = folder.join("report.html");
    fs::write(&path, page(summary, stats))?;
    Ok(path)
}

fn to_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    write(&mut out)?;
    out.flush()
}

/// Writes a histogram as HdrHistogram's percentile text, in microseconds, as its plotters read it.
///
/// # Errors
/// Of the writer.
pub fn write_hgrm(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    // Some plotters want a blank before the value, so there is room for hours.
    writeln!(
        out,
        "{:>14} {:>17} {:>10} {:>17}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (value, q) = (micros(step.value_iterated_to()), step.quantile_iterated_to());
        if q < 1.0 {
            writeln!(out, "{value:14.3} {q:17.12} {total:10} {:17.2}", 1.0 / (1.0 - q))?;
        } else {
            writeln!(out, "{value:14.3} {q:17.12} {total:10} {:>17}", "inf")?;
        }
    }
    let us = |ns: f64| ns / 1000.0;
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        us(histogram.mean()),
        us(histogram.stdev())
    )?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        micros(histogram.max()),
        histogram.len()
    )?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), 2048)
}

/// Writes the intervals as HdrHistogram's interval log, V2 with deflate: an entry per interval and
/// [`Track`], values in ns.
///
/// # Errors
/// Of the writer.
pub fn write_log(out: &mut impl Write, started_at: u64, seconds: &[Second]) -> io::Result<()> {
    let start = UNIX_EPOCH + Duration::from_secs(started_at);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[gemel-bench: values in ns; .timed_out: messages without an answer]")
        .with_start_time(start)
        .with_base_time(start)
        // The third column in ms, as others have it.
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    for second in seconds {
        let Interval { at_s, length_s, .. } = second.interval;
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        for track in second.tracks() {
            let (tag, times) = (track.tag(), second.times(track));
            log.write_histogram(&times, time(at_s - length_s), time(length_s), Tag::new(&tag))
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
    Ok(())
}

/// The intervals as comma-separated values: every field of [`Interval`], then counts and percentiles
/// of the pairs that occurred.
#[must_use]
pub fn series(seconds: &[Second]) -> String {
    let occurs = |pair: &&Pair| {
        let tracks = [Track::Answered(**pair), Track::TimedOut(**pair)];
        seconds.iter().any(|second| second.tracks().any(|track| tracks.contains(&track)))
    };
    let pairs: Vec<Pair> = Pair::ALL.iter().filter(occurs).copied().collect();
    let mut out = String::from(
        "at_s,length_s,started,completed,lost,failed,outstanding,holding,p50_us,p99_us,max_us,\
         lag_p99_us,lag_max_us,memory_kib",
    );
    for name in pairs.iter().map(|pair| pair.as_str()) {
        for column in ["answered", "timed_out", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
            // Writing to a string does not fail, here and below.
            let _ = write!(out, ",{name}_{column}");
        }
    }
    out.push('\n');
    for second in seconds {
        let i = &second.interval;
        let _ = write!(
            out,
            "{:.6},{:.6},{},{},{},{},{},{},{},{},{},{},{},{}",
            i.at_s,
            i.length_s,
            i.started,
            i.completed,
            i.lost,
            i.failed,
            i.outstanding,
            i.holding,
            i.p50_us,
            i.p99_us,
            i.max_us,
            i.lag_p99_us,
            i.lag_max_us,
            i.memory_kib
        );
        for pair in &pairs {
            let p = Percentiles::of(&second.times(Track::Answered(*pair)));
            let timed_out = second.times(Track::TimedOut(*pair)).len();
            let _ = write!(
                out,
                ",{},{timed_out},{},{},{},{},{}",
                p.count, p.p50_us, p.p90_us, p.p99_us, p.p999_us, p.max_us
            );
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn percentile_text_is_what_plotters_read() {
        let (_, stats) = sample();
        let mut text = Vec::new();
        write_hgrm(&mut text, &stats.pair(Pair::RequestReply).with_losses()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(rows.len() > 20 && rows.iter().all(|row| row.len() == 4), "{text}");
        assert!(text.lines().skip(2).all(|line| line.starts_with([' ', '#'])), "{text}");
        assert_eq!(rows.last().unwrap()[2], "1000");
        assert_eq!(rows.last().unwrap()[3], "inf");
        assert!(text.contains("Total count    =         1000"));
        // Value, percentile and count rise, and the fourth column is made of the second.
        let figures: Vec<[f64; 4]> = rows[..rows.len() - 1]
            .iter()
            .map(|row| [0, 1, 2, 3].map(|column| row[column].parse().unwrap()))
            .collect();
        for pair in figures.windows(2) {
            assert!((0..4).all(|column| pair[0][column] <= pair[1][column]), "{pair:?}");
        }
        assert!(figures.iter().all(|f| (f[3] - 1.0 / (1.0 - f[1])).abs() < 0.01), "{figures:?}");
    }

    #[test]
    fn the_interval_log_has_an_entry_per_second_and_pair() {
        let (_, stats) = sample();
        let mut text = Vec::new();
        write_log(&mut text, 1_000_000, &stats.seconds).unwrap();
        let mut tags = Vec::new();
        let mut bases = 0;
        for entry in IntervalLogIterator::new(&text) {
            match entry.unwrap() {
                LogEntry::BaseTime(time) => {
                    assert_eq!(time, Duration::from_secs(1_000_000));
                    bases += 1;
                }
                LogEntry::StartTime(_) => {}
                LogEntry::Interval(entry) => {
                    assert_eq!(entry.duration(), Duration::from_secs(1));
                    tags.push((
                        entry.start_timestamp().as_secs(),
                        entry.tag().unwrap().to_string(),
                    ));
                }
            }
        }
        assert_eq!(bases, 1);
        let of = |second: u64| -> Vec<&str> {
            tags.iter().filter(|(at, _)| *at == second).map(|(_, tag)| tag.as_str()).collect()
        };
        assert_eq!(of(0), ["solicit_advertise", "request_reply", "exchange", "lag"]);
        assert_eq!(
            of(1),
            [
                "solicit_advertise",
                "request_reply",
                "request_reply.timed_out",
                "exchange",
                "exchange.timed_out",
                "lag"
            ]
        );
        assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));
    }

    #[test]
    fn the_series_has_a_line_per_second() {
        let (_, stats) = sample();
        let csv = series(&stats.seconds);
        let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let rows: Vec<_> = lines.collect();
        assert_eq!(rows.len(), stats.seconds.len());
        assert!(rows.iter().all(|row| row.len() == head.len()), "{csv}");
        let column = |name: &str| head.iter().position(|own| *own == name).expect(name);
        let total = |name: &str| -> f64 {
            rows.iter().map(|row| row[column(name)].parse::<f64>().unwrap()).sum()
        };
        assert_eq!(total("started"), 1000.0);
        assert_eq!(total("request_reply_answered"), 998.0);
        assert_eq!(total("request_reply_timed_out"), 2.0);
        for (row, second) in rows.iter().zip(&stats.seconds) {
            let interval = serde_json::to_value(second.interval).unwrap();
            for (name, value) in interval.as_object().unwrap() {
                let written: f64 = row[column(name)].parse().unwrap();
                assert!((written - value.as_f64().unwrap()).abs() < 1e-6, "{name}: {written}");
            }
        }
        assert_eq!((total("holding"), total("memory_kib")), (1497.0, 6144.0));
        assert!(!head.contains(&"renew_reply_p50_us"));
    }

    #[test]
    fn all_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let (summary, stats) = sample();
        let page = write_all(folder.path(), &summary, &stats).unwrap();
        assert!(page.ends_with("report.html"));
        for name in
            [SUMMARY, LOG, "series.csv", "exchange.hgrm", "exchange.losses.hgrm", "lag.hgrm"]
        {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
        assert!(!folder.path().join("renew_reply.hgrm").exists());
    }
}
