//! Runs as they were stored: a folder of `--out`, or single files of one.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr as _,
};

use base64::Engine as _;
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogHistogram, IntervalLogIterator, LogEntry, LogIteratorError},
    },
};

use crate::{
    find_max::Found,
    number::{SECOND_NS, whole},
    record::{Second, set_percentiles},
    report::{LOG, SUMMARY, Summary},
    stats::{Counter, Interval, Pair, Stats, histogram},
    times::{Times, Track},
};

/// How far an entry of the log, which has milliseconds, may be from its interval.
const NEAR_S: f64 = 0.002;

/// A run, or what was stored of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The path that it was read from.
    pub name: String,
    /// The figures, if there were any.
    pub summary: Option<Summary>,
    /// The times.
    pub stats: Stats,
    /// The times were read from percentiles and are as coarse as those.
    pub coarse: bool,
}

impl Stored {
    /// Whether there are the times that its figures were made of.
    #[must_use]
    pub fn has_times(&self) -> bool {
        let measured = self.summary.as_ref().is_some_and(|summary| !summary.pairs.is_empty());
        let any = |pair: &Pair| !self.stats.pair(*pair).with_losses().is_empty();
        !measured || Pair::ALL.iter().any(any)
    }
}

/// Why a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The file or folder itself.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder without a run.
    #[error(
        "{0} holds no run: there is neither summary.json nor run.hlog nor a .hgrm file in it, nor in \
         a folder below it (--out of gemel-bench makes such folders)"
    )]
    NoRun(PathBuf),
    /// A file of another kind.
    #[error("{0} is no file of a run: give a folder of --out, a .json, .hlog or .hgrm file of one")]
    Unknown(PathBuf),
    /// A file with other contents than its name says.
    #[error("{path} is no {kind}: {reason}")]
    Contents {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl StoredError {
    fn contents(path: &Path, kind: &'static str, reason: impl ToString) -> Self {
        Self::Contents { path: path.into(), kind, reason: reason.to_string() }
    }
}

fn read(path: &Path) -> Result<String, StoredError> {
    let io = |source| StoredError::Io { path: path.into(), source };
    String::from_utf8(fs::read(path).map_err(io)?)
        .map_err(|error| StoredError::contents(path, "text", error.utf8_error()))
}

/// Reads the runs at a path: that of a folder of `--out`, those of the folders right below another
/// one, or what a single file has.
///
/// # Errors
/// See [`StoredError`].
pub fn read_runs(path: &Path) -> Result<Vec<Stored>, StoredError> {
    let io = |source| StoredError::Io { path: path.into(), source };
    if !fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    if let Some(run) = read_folder(path)? {
        return Ok(vec![run]);
    }
    let mut below: Vec<PathBuf> = fs::read_dir(path)
        .map_err(io)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    let mut runs = Vec::new();
    for folder in below {
        runs.extend(read_folder(&folder)?);
    }
    if runs.is_empty() { Err(StoredError::NoRun(path.into())) } else { Ok(runs) }
}

fn read_folder(folder: &Path) -> Result<Option<Stored>, StoredError> {
    let (summary, log) = (folder.join(SUMMARY), folder.join(LOG));
    let mut run = if summary.is_file() {
        read_summary(&summary)?
    } else {
        Stored { name: String::new(), summary: None, stats: Stats::new(0), coarse: false }
    };
    run.name = folder.display().to_string();
    let texts = percentile_files(folder);
    if log.is_file() {
        add_log(&mut run, &log)?;
    } else if !texts.is_empty() {
        for (path, answered) in texts {
            add_percentiles(&mut run, &path, answered.as_deref())?;
        }
    } else if run.summary.is_none() {
        return Ok(None);
    }
    Ok(Some(run))
}

/// The percentile texts of a folder; of a pair with losses, the one with the losses and that of the
/// answers alone.
fn percentile_files(folder: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let named = Pair::ALL.iter().map(|pair| pair.as_str()).chain(["lag"]);
    named
        .filter_map(|name| {
            let with_losses = folder.join(format!("{name}.losses.hgrm"));
            let path = folder.join(format!("{name}.hgrm"));
            match (with_losses.is_file(), path.is_file()) {
                (true, answered) => Some((with_losses, answered.then_some(path))),
                (false, true) => Some((path, None)),
                (false, false) => None,
            }
        })
        .collect()
}

fn read_file(path: &Path) -> Result<Stored, StoredError> {
    let name = path.display().to_string();
    let mut run = Stored { name, summary: None, stats: Stats::new(0), coarse: false };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => run = read_summary(path)?,
        Some("hlog") => add_log(&mut run, path)?,
        Some("hgrm") => add_percentiles(&mut run, path, None)?,
        _ => return Err(StoredError::Unknown(path.into())),
    }
    Ok(run)
}

/// Reads a summary: that of a run, or the one in the outcome of a search.
fn read_summary(path: &Path) -> Result<Stored, StoredError> {
    let text = read(path)?;
    let summary = serde_json::from_str::<Summary>(&text).or_else(|error| {
        let found = serde_json::from_str::<Found>(&text).ok().and_then(|found| found.summary);
        found.ok_or_else(|| StoredError::contents(path, "summary of a run", error))
    })?;
    let mut stats = Stats::new(0);
    for (name, count) in &summary.counters {
        // What a later version counts is left out.
        if let Some(counter) = Counter::from_name(name) {
            stats.count_many(counter, *count);
        }
    }
    stats.series.clone_from(&summary.series);
    let in_time = |pair: &Pair| summary.pairs.get(pair.as_str()).map_or(Some(0), |own| own.in_time);
    // An earlier version did not count them.
    if let Some(counts) = Pair::ALL.iter().map(in_time).collect() {
        stats.set_in_time(counts);
    }
    Ok(Stored { name: path.display().to_string(), summary: Some(summary), stats, coarse: false })
}

/// Adds the times of an interval log.
fn add_log(run: &mut Stored, path: &Path) -> Result<(), StoredError> {
    let text = read(path)?;
    let broken = |reason: String| StoredError::contents(path, "interval log", reason);
    // By their start in ms: what was measured at the same time is one interval.
    let mut intervals = BTreeMap::<u64, (f64, f64, Times)>::new();
    let mut entries = 0;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let entry = entry.map_err(|LogIteratorError::ParseError { offset }| {
            let line = 1 + text[..offset].matches('\n').count();
            broken(format!("line {line} is no entry of one"))
        })?;
        let LogEntry::Interval(entry) = entry else { continue };
        entries += 1;
        let (start, length) = (entry.start_timestamp(), entry.duration());
        let tag = entry.tag().map_or("", |tag| tag.as_str());
        let track = Track::from_tag(tag).ok_or_else(|| {
            broken(format!("entry {entries} has the tag {tag:?}, which is no pair of messages"))
        })?;
        let times = decode(&entry).map_err(|error| broken(format!("entry {entries}: {error}")))?;
        let key = whole(start.as_secs_f64() * 1e3);
        let end = start.as_secs_f64() + length.as_secs_f64();
        let interval = intervals.entry(key).or_insert_with(|| (end, 0.0, Times::new()));
        interval.1 = length.as_secs_f64();
        let own = interval.2.track_mut(track);
        own.add(&times).map_err(|error| broken(format!("entry {entries}: {error}")))?;
    }
    if entries == 0 {
        return Err(broken("there is no entry in it".into()));
    }
    let seconds: Vec<Second> = intervals
        .into_values()
        .map(|(at_s, length_s, times)| {
            let known = run.stats.series.iter().find(|own| (own.at_s - at_s).abs() < NEAR_S);
            let bare = || Interval { at_s, length_s, ..Interval::default() };
            let mut interval = known.copied().unwrap_or_else(bare);
            set_percentiles(&mut interval, &times);
            run.stats.add_times(&times);
            Second::new(interval, &times)
        })
        .collect();
    // Intervals in which nothing was measured are only in the summary.
    let mut series = std::mem::take(&mut run.stats.series);
    let logged: Vec<f64> = seconds.iter().map(|second| second.interval.at_s).collect();
    series.retain(|own| logged.iter().all(|at| (own.at_s - at).abs() >= NEAR_S));
    let mut all: Vec<Second> =
        series.into_iter().map(|interval| Second::new(interval, &Times::new())).collect();
    all.extend(seconds);
    all.sort_by(|a, b| a.interval.at_s.total_cmp(&b.interval.at_s));
    run.stats.set_seconds(all);
    Ok(())
}

fn decode(entry: &IntervalLogHistogram<'_>) -> Result<Histogram<u64>, String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(entry.encoded_histogram())
        .map_err(|error| format!("the histogram is no base64: {error}"))?;
    if counts_len(&bytes).is_some_and(|len| len > COUNTS_MAX) {
        return Err("the histogram says that it is too large".into());
    }
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("the histogram cannot be read: {error}"))
}

/// Octets of counts that a histogram may have, many times what one of ours can have. Its reader makes
/// room for whatever the header says, before it has seen any.
const COUNTS_MAX: u32 = 16 << 20;

/// The length of the counts as the header of an encoded histogram has it; none if there is no header.
fn counts_len(bytes: &[u8]) -> Option<u32> {
    // Of HdrHistogram's V2 format with deflate.
    const COMPRESSED: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();
    let mut header = [0; 8];
    match bytes.split_first_chunk::<8>()? {
        (outer, deflated) if outer.starts_with(&COMPRESSED) => {
            ZlibDecoder::new(deflated).read_exact(&mut header).ok()?;
        }
        (plain, _) => header = *plain,
    }
    header.last_chunk().map(|len| u32::from_be_bytes(*len))
}

/// Adds the times of a percentile text, in us, as coarse as its steps. `answered` is the text of the
/// answers alone, if this is the one with the losses: how many there were says how many were lost.
fn add_percentiles(
    run: &mut Stored,
    path: &Path,
    answered: Option<&Path>,
) -> Result<(), StoredError> {
    let kind = "percentile text";
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let track = Track::from_tag(stem.strip_suffix(".losses").unwrap_or(stem)).ok_or_else(|| {
        StoredError::contents(
            path,
            kind,
            "its name is not that of a pair of messages, as reply.hgrm",
        )
    })?;
    let parse = |path: &Path| {
        parse_percentiles(&read(path)?).map_err(|reason| StoredError::contents(path, kind, reason))
    };
    let times = parse(path)?;
    if times.is_empty() {
        return Err(StoredError::contents(path, kind, "there is no row in it"));
    }
    let mut all = Times::new();
    if let Track::Answered(pair) = track {
        let told = run.summary.as_ref().and_then(|summary| summary.pairs.get(pair.as_str()));
        let count = match (told, answered) {
            (Some(report), _) => report.answered.count,
            (None, Some(answered)) => parse(answered)?.len(),
            (None, None) => times.len(),
        };
        let (answered, timed_out) = split(&times, count);
        *all.track_mut(track) += answered;
        *all.track_mut(Track::TimedOut(pair)) += timed_out;
    } else {
        *all.track_mut(track) += times;
    }
    run.stats.add_times(&all);
    run.coarse = true;
    Ok(())
}

/// Tells the answers, of which there were so many, from the losses: those have been waited for the longest.
fn split(times: &Histogram<u64>, mut answers: u64) -> (Histogram<u64>, Histogram<u64>) {
    let (mut answered, mut timed_out) = (histogram(), histogram());
    for step in times.iter_recorded() {
        let (value, count) = (step.value_iterated_to(), step.count_at_value());
        let of_answers = count.min(answers);
        answers -= of_answers;
        answered.saturating_record_n(value, of_answers);
        timed_out.saturating_record_n(value, count - of_answers);
    }
    (answered, timed_out)
}

/// Each row stands for the values that came since the one before.
fn parse_percentiles(text: &str) -> Result<Histogram<u64>, String> {
    let mut times = histogram();
    let mut before = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with('#') || words[0] == "Value" {
            continue;
        }
        let row = || {
            let value = f64::from_str(words.first()?).ok().filter(|us| *us >= 0.0)?;
            let total = u64::from_str(words.get(2)?).ok()?;
            Some((value, total))
        };
        let (us, total) = row().filter(|(_, total)| *total >= before).ok_or_else(|| {
            format!("line {number} is not value, percentile and rising count: {line:?}")
        })?;
        let ns = whole(us * 1e3).min(3600 * SECOND_NS);
        times.saturating_record_n(ns, total - before);
        before = total;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{tests::sample, write_all, write_hgrm};

    fn stored() -> (tempfile::TempDir, Summary, Stats) {
        let folder = tempfile::tempdir().unwrap();
        let (summary, stats) = sample();
        write_all(folder.path(), &summary, &stats).unwrap();
        (folder, summary, stats)
    }

    #[test]
    fn a_folder_gives_back_the_run() {
        let (folder, summary, stats) = stored();
        let runs = read_runs(folder.path()).unwrap();
        assert_eq!(runs.len(), 1);
        let run = &runs[0];
        assert_eq!(run.summary.as_ref(), Some(&summary));
        for pair in Pair::ALL {
            assert_eq!(run.stats.pair(*pair).answered, stats.pair(*pair).answered);
            assert_eq!(run.stats.pair(*pair).timed_out, stats.pair(*pair).timed_out);
        }
        assert_eq!(run.stats.lag, stats.lag);
        assert_eq!(run.stats.counters(), stats.counters());
        assert_eq!(run.stats.answered_in_time(Pair::RequestReply), 998);
        assert_eq!(run.stats.seconds.len(), 2);
        assert_eq!(run.stats.series[1].lost, 2, "the log has times, the summary has the counts");
        assert!(!run.coarse);
        // The page is the same, as far as the seconds go.
        let pages = [(&summary, &stats), (&summary, &run.stats)]
            .map(|(summary, stats)| crate::report::page(summary, stats).len());
        assert_eq!(pages[0], pages[1]);
    }

    #[test]
    fn without_the_log_percentiles_have_to_do() {
        let (folder, _, stats) = stored();
        fs::remove_file(folder.path().join(LOG)).unwrap();
        let run = read_runs(folder.path()).unwrap().pop().unwrap();
        assert!(run.coarse);
        let (mine, theirs) =
            (run.stats.pair(Pair::RequestReply), stats.pair(Pair::RequestReply).with_losses());
        assert_eq!(mine.with_losses().len(), theirs.len());
        for q in [0.5, 0.9, 0.99, 0.999] {
            let (a, b) = (mine.with_losses().value_at_quantile(q), theirs.value_at_quantile(q));
            let (a, b) = (crate::number::float(a), crate::number::float(b));
            assert!((a / b - 1.0).abs() < 0.03, "{q}: {a} {b}");
        }
    }

    #[test]
    fn losses_are_told_without_the_log() {
        let judged = |folder: &Path| {
            let run = read_runs(folder).unwrap().pop().unwrap();
            let summary = run.summary.clone().unwrap_or_else(|| sample().0);
            let slo: crate::slo::Slo = "reply.loss<0.1%,advertise.loss<0.1%".parse().unwrap();
            slo.judge(&summary, &run.stats).iter().map(|own| own.measured.unwrap()).collect()
        };
        let (folder, ..) = stored();
        fs::remove_file(folder.path().join(LOG)).unwrap();
        let measured: Vec<f64> = judged(folder.path());
        assert!((measured[0] - 0.2).abs() < 1e-9 && measured[1] == 0.0, "{measured:?}");
        fs::remove_file(folder.path().join(SUMMARY)).unwrap();
        let measured: Vec<f64> = judged(folder.path());
        assert!((measured[0] - 0.2).abs() < 1e-9 && measured[1] == 0.0, "{measured:?}");
        // If nothing was answered there are losses only.
        let mut text = Vec::new();
        write_hgrm(&mut text, &histogram()).unwrap();
        fs::write(folder.path().join("request_reply.hgrm"), text).unwrap();
        let measured: Vec<f64> = judged(folder.path());
        assert!((measured[0] - 100.0).abs() < 1e-9, "{measured:?}");
    }

    #[test]
    fn several_runs_below_a_folder_are_several() {
        let folder = tempfile::tempdir().unwrap();
        let (summary, stats) = sample();
        for name in ["b", "a"] {
            write_all(&folder.path().join(name), &summary, &stats).unwrap();
        }
        fs::create_dir(folder.path().join("empty")).unwrap();
        let runs = read_runs(folder.path()).unwrap();
        let names: Vec<_> = runs.iter().map(|run| run.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn single_files_give_what_they_have() {
        let (folder, summary, _) = stored();
        let one = |name: &str| read_runs(&folder.path().join(name)).unwrap().pop().unwrap();
        assert_eq!(one(SUMMARY).summary, Some(summary));
        let log = one(LOG);
        assert!(log.summary.is_none());
        assert_eq!(log.stats.pair(Pair::Exchange).with_losses().len(), 1000);
        let text = one("exchange.losses.hgrm");
        assert_eq!(text.stats.pair(Pair::Exchange).answered.len(), 1000);
    }

    /// 40 octets that say that 4 GiB follow.
    #[test]
    fn a_log_cannot_make_a_reader_take_all_memory() {
        let mut header = 0x1c84_9313_u32.to_be_bytes().to_vec();
        header.extend(u32::MAX.to_be_bytes());
        header.extend([0; 32]);
        let mut deflated = Vec::new();
        let mut encoder = flate2::read::ZlibEncoder::new(&header[..], flate2::Compression::fast());
        encoder.read_to_end(&mut deflated).unwrap();
        let mut outer = 0x1c84_9314_u32.to_be_bytes().to_vec();
        outer.extend(u32::try_from(deflated.len()).unwrap().to_be_bytes());
        outer.extend(deflated);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hlog");
        for bytes in [header, outer] {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            fs::write(&path, format!("Tag=exchange,0.0,1.0,2.0,{encoded}\n")).unwrap();
            let error = read_runs(&path).unwrap_err().to_string();
            assert!(error.contains("too large"), "{error}");
        }
    }

    #[test]
    fn wrong_files_are_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut text = Vec::new();
        write_hgrm(&mut text, &histogram()).unwrap();
        for (name, contents, reason) in [
            ("a.txt", "x", "is no file of a run"),
            ("a.json", "{}", "no summary of a run: missing field"),
            ("b.json", "nothing", "line 1 column"),
            ("a.hlog", "", "no entry in it"),
            ("d.hlog", "#[x]\n{}\n", "line 2 is no entry"),
            ("b.hlog", "Tag=foo,0.0,1.0,2.0,AAAA\n", "tag \"foo\""),
            ("c.hlog", "Tag=exchange,0.0,1.0,2.0,HISTFAAA\n", "entry 1: "),
            ("exchange.hgrm", "1 2 x\n", "line 1 is not"),
            ("lag.hgrm", "Value Percentile\n\n", "no row"),
            ("foo.hgrm", "1 2 3\n", "its name"),
        ] {
            fs::write(path.join(name), contents).unwrap();
            let error = read_runs(&path.join(name)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(name), "{name}: {error}");
        }
        let error = anyhow::Error::from(read_runs(&path.join("none")).unwrap_err());
        let text = format!("{error:#}");
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        assert!(text.contains("none: No such file"), "{text}");
        let empty = tempfile::tempdir().unwrap();
        let error = read_runs(empty.path()).unwrap_err().to_string();
        assert!(error.contains("holds no run"), "{error}");
    }
}
