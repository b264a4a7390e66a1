//! What the load generator leaves behind: its report, its files, its page in a browser, its figures
//! while it runs.

mod common;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::pair::{NOTICE, with_pair};
use common::{Direct, show_log};
use gemel_tests::bench::{Disturbed, offline};
use gemel_tests::browser::{self, Dom};
use gemel_tests::gemel::{LinkConfig, Mode};
use gemel_tests::pair::{Options, Role};
use gemel_tests::{Process, require, wait};
use serde_json::Value;

/// How long a run may take beyond its load.
const BEYOND: Duration = Duration::from_secs(60);

/// A server, and what puts a load on it.
fn lab() -> Result<Direct> {
    Direct::new(Mode::Auto, 1, LinkConfig::new("access", 1).for_load(1))
}

/// The generator in the clients' namespace.
fn bench(lab: &Direct, words: &str) -> Result<Process> {
    let words = words.replace("DIR", &lab.lab.dir().display().to_string());
    gemel_tests::bench::start(&lab.client_interface, &words)
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn an_interrupted_run_reports_in_full() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let out = lab.lab.dir().join("out");
    let mut run = bench(&lab, "run --rate 200 --seconds 600 --ia both --out DIR/out")?;
    // Two lines of progress: two seconds have been measured.
    run.wait_for_line("   2.0 s ", BEYOND)?;
    run.signal("INT")?;
    let status = run.wait(BEYOND)?;
    let text = run.stdout().join("\n");
    ensure!(status.code() == Some(0), "{status}: {text}");
    for piece in ["whole exchange", "lag of the generator", "< ", "interrupted before its end"] {
        ensure!(text.contains(piece), "no {piece:?} in\n{text}");
    }
    let summary = json(&out.join("summary.json"))?;
    ensure!(summary["interrupted"] == true, "{summary}");
    ensure!(summary["exchanges"].as_u64() > Some(100), "{summary}");
    for file in ["report.html", "run.hlog", "series.csv", "request_reply.hgrm", "lag.hgrm"] {
        ensure!(out.join(file).is_file(), "no {file}");
    }
    let seconds = summary["series"].as_array().map_or(0, Vec::len);
    let lines = std::fs::read_to_string(out.join("series.csv"))?.lines().count();
    ensure!(lines == seconds + 1 && seconds >= 2, "{lines} lines of {seconds} seconds");
    Ok(())
}

/// A search that is interrupted has a report, too.
#[test]
fn an_interrupted_search_reports_in_full() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let mut run = bench(
        &lab,
        "find-max --from 100 --step-seconds 600 --out DIR/out --json \
                               --prometheus [::1]:0",
    )?;
    let address = metrics_address(&mut run)?;
    wait_events(&lab, &address, "completed", 20)?;
    run.signal("INT")?;
    let status = run.wait(BEYOND)?;
    let text = run.stdout().join("\n");
    ensure!(status.code() == Some(0), "{status}: {text}");
    ensure!(text.contains("interrupted") && text.contains("whole exchange"), "{text}");
    let found = gemel_tests::bench::summary(&text)?;
    ensure!(found["limited_by"] == "interrupted", "{found}");
    ensure!(json(&lab.lab.dir().join("out/summary.json"))?["interrupted"] == true);
    Ok(())
}

#[test]
fn a_missed_objective_shows_in_the_exit_status() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    for scenario in [
        "run --rate 200 --seconds 1",
        "failover --rate 200 --seconds 1",
        "find-max --from 100 --to 100 --step-seconds 1",
    ] {
        let words = format!("{scenario} --quiet --json --slo reply.p50<1us,loss<=100%");
        let mut run = bench(&lab, &words)?;
        let status = run.wait(BEYOND)?;
        let text = run.stdout().join("\n");
        ensure!(status.code() == Some(3), "{scenario}: {status}: {text}");
        ensure!(text.contains("MISSED  reply.p50<1us"), "{scenario}: {text}");
    }
    let mut run = bench(&lab, "run --rate 200 --slo repyl.p50<1us")?;
    let status = run.wait(BEYOND)?;
    ensure!(
        status.code() == Some(2) && run.tail().contains("no pair of messages"),
        "{}",
        run.tail()
    );
    Ok(())
}

/// Marks mean something to `failover` only; elsewhere they are not to end the run.
#[test]
fn marks_do_not_end_a_run() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let mut run = bench(&lab, "steady --rate 200 --seconds 600 --json --prometheus [::1]:0")?;
    let port = metrics_address(&mut run)?;
    let before = wait_events(&lab, &port, "completed", 0)?;
    run.signal("USR1")?;
    run.signal("USR2")?;
    wait_events(&lab, &port, "completed", before)?;
    run.signal("INT")?;
    ensure!(run.wait(BEYOND)?.success(), "{}", run.tail());
    Ok(())
}

/// Files, objectives and the scenario's own section, whatever the scenario.
#[test]
fn every_scenario_leaves_its_files() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    for (scenario, section) in [
        ("rapid-commit --rate 100 --seconds 1", ""),
        ("ramp --from 50 --to 100 --steps 2 --step-seconds 1", "ramp"),
        ("ramp --from 50 --to 100 --continuous --seconds 2", "ramp"),
        ("avalanche --clients 100 --within 0.5", "avalanche"),
        ("renew-storm --clients 100 --within 0.5 --setup-rate 500", "renew_storm"),
        ("mix --clients 200 --rate 100 --seconds 1", "mix"),
        ("churn --clients 200 --fill 50 --hold 2 --seconds 1", "churn"),
        ("soak --rate 100 --interval 1 --seconds 2", "soak"),
    ] {
        let words = format!("{scenario} --quiet --slo loss<=100% --out DIR/out");
        let mut run = bench(&lab, &words)?;
        let status = run.wait(BEYOND)?;
        let text = run.stdout().join("\n");
        // On a busy machine a run may be not valid, which misses every objective.
        ensure!(matches!(status.code(), Some(0 | 3)), "{scenario}: {status}: {text}");
        let out = lab.lab.dir().join("out");
        for file in ["report.html", "run.hlog", "series.csv"] {
            ensure!(out.join(file).is_file(), "{scenario}: no {file}");
        }
        let summary = json(&out.join("summary.json"))?;
        let kind = summary["scenario"]["kind"].as_str().unwrap_or_default();
        ensure!(kind == section, "{scenario}: the section is {kind:?}");
        let met = summary["objectives"][0]["met"].as_bool();
        ensure!(met == summary["valid"].as_bool() && met.is_some(), "{scenario}: {summary}");
        let seconds = summary["series"].as_array().context("no series")?;
        let sum = |name| seconds.iter().filter_map(|second| second[name].as_u64()).sum::<u64>();
        let started = summary["counters"]["started"].as_u64().unwrap_or_default();
        ensure!(sum("started") == started && started > 0, "{scenario}: {started} in the series");
        std::fs::remove_dir_all(out)?;
    }
    Ok(())
}

/// The port that the generator chose.
fn metrics_address(run: &mut Process) -> Result<String> {
    let line = run.wait_for_line("metrics at http://", BEYOND)?;
    let port = line.rsplit_once(':').and_then(|(_, rest)| rest.strip_suffix("/metrics"));
    Ok(port.with_context(|| format!("no port in {line:?}"))?.to_owned())
}

/// What Prometheus would see, asked from inside of the namespace.
fn metrics(lab: &Direct, port: &str) -> Result<String> {
    let script = format!(
        "exec 3<>/dev/tcp/::1/{port}; printf 'GET /metrics HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3; cat <&3"
    );
    lab.client_interface.namespace().run("bash", &["-c", &script])
}

/// Waits until the generator has counted more than `least` of something; returns how many.
fn wait_events(lab: &Direct, port: &str, event: &str, least: u64) -> Result<u64> {
    let name = format!("gemel_bench_events_total{{event=\"{event}\"}} ");
    wait::until(&format!("{least} {event}"), BEYOND, || {
        let text = metrics(lab, port)?;
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        let value: u64 = value.with_context(|| format!("no {event} in {text}"))?.trim().parse()?;
        Ok((value > least).then_some(value))
    })
}

#[test]
fn metrics_while_it_runs() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let mut run = bench(&lab, "run --rate 200 --seconds 600 --quiet --json --prometheus [::1]:0")?;
    let port = metrics_address(&mut run)?;
    let first = wait_events(&lab, &port, "completed", 0)?;
    let second = wait_events(&lab, &port, "completed", first)?;
    let text = metrics(&lab, &port)?;
    ensure!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("# EOF\n"), "{text}");
    let bucket = "gemel_bench_latency_seconds_bucket{le=\"+Inf\",pair=\"request_reply\"} ";
    let answered: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix(bucket))
        .with_context(|| format!("no bucket in {text}"))?
        .parse()?;
    run.signal("INT")?;
    ensure!(run.wait(BEYOND)?.success(), "{}", run.tail());
    let summary = gemel_tests::bench::summary(&run.stdout().join("\n"))?;
    let total = summary["exchanges"].as_u64().context("no exchanges")?;
    ensure!(second <= total && answered <= total && answered > 0, "{second} {answered} {total}");
    Ok(())
}

/// Counts what the browser drew, and compares it with the files of the run.
struct Page {
    dom: Dom,
    /// What the script was given.
    data: Value,
}

impl Page {
    fn load(file: &Path, size: (u32, u32)) -> Result<Self> {
        let dom = Dom::load(file, size)?;
        let data = dom
            .text()
            .split_once("id=\"data\">")
            .and_then(|(_, rest)| rest.split("</script>").next())
            .context("no data in the page")?;
        let data = serde_json::from_str(data)?;
        let page = Self { dom, data };
        ensure!(page.dom.root_attribute("data-errors").is_none(), "{}", page.errors());
        let figures = page.dom.text().matches("<figure data-chart=").count();
        let drawn = page.dom.root_attribute("data-drawn").unwrap_or("none");
        ensure!(drawn == figures.to_string(), "{drawn} of {figures} figures were drawn");
        Ok(page)
    }

    fn errors(&self) -> String {
        let errors: Vec<&str> = self.dom.text().split("class=\"js-error\">").skip(1).collect();
        format!("errors of the script: {errors:?}")
    }

    fn count(&self, figure: &str, sign: &str) -> Result<usize> {
        Ok(self.dom.figure(figure)?.matches(sign).count())
    }

    /// Sizes and numbers of what all pages have.
    fn check(&self, summary: &Value) -> Result<()> {
        let pairs = summary["pairs"].as_object().context("no pairs")?;
        let counted = |pair: &Value, which: &str| pair[which]["count"].as_u64().unwrap_or(0);
        let curves = pairs.values().map(|pair| {
            let (answered, all) = (counted(pair, "answered"), counted(pair, "with_losses"));
            usize::from(answered > 0) + usize::from(all > answered)
        });
        let drawn = self.count("percentiles", "<polyline class=\"curve")?;
        ensure!(drawn == curves.sum::<usize>(), "{drawn} curves of {pairs:?}");

        let messages: u64 = pairs
            .iter()
            .filter(|(name, _)| !["exchange", "renewal"].contains(&name.as_str()))
            .map(|(_, pair)| counted(pair, "answered"))
            .sum();
        let map = &self.data["heat"][0];
        let cells = map["cells"].as_array().context("no cells")?;
        let in_cells: u64 = cells.iter().filter_map(|cell| cell[2].as_u64()).sum();
        ensure!(in_cells == messages, "{in_cells} in the heat map, {messages} in the summary");
        let drawn = self.count("heat", "<rect class=\"cell\"")?;
        ensure!(drawn == cells.len() && drawn > 10, "{drawn} of {} cells drawn", cells.len());
        let lost = map["lost"].as_array().context("no losses")?;
        let lost = lost.iter().filter(|lost| lost.as_u64() > Some(0)).count();
        ensure!(self.count("heat", "class=\"lost-cell\"")? == lost, "{lost} columns with losses");

        for figure in ["throughput", "lag"] {
            let lines = self.count(figure, "<polyline class=\"curve")?;
            ensure!(lines >= 2, "{lines} lines of {figure}");
        }
        let series = summary["series"].as_array().context("no series")?;
        let bars: usize = series
            .iter()
            .filter(|interval| interval["length_s"].as_f64() > Some(0.2))
            .map(|interval| {
                ["lost", "failed"].iter().filter(|name| interval[**name].as_u64() > Some(0)).count()
            })
            .sum();
        if self.dom.text().contains("<figure data-chart=\"losses\">") {
            let drawn = self.count("losses", "<rect class=\"bar\"")?;
            ensure!(drawn == bars, "{drawn} bars of {bars}");
        } else {
            ensure!(bars == 0, "{bars} bars are missing");
        }
        Ok(())
    }
}

#[test]
fn the_page_draws_what_was_measured() -> Result<()> {
    require!([browser::PROGRAM], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let out = lab.lab.dir().join("one");
    for (name, rate) in [("one", 200), ("two", 400)] {
        let words = format!("run --rate {rate} --seconds 3 --ia both --quiet --out DIR/{name}");
        let mut run = bench(&lab, &words)?;
        run.wait_success(BEYOND)?;
    }
    let summary = json(&out.join("summary.json"))?;
    let page = out.join("report.html");
    for size in [(1100, 800), (390, 800)] {
        Page::load(&page, size)?.check(&summary)?;
    }

    // The same again from the files, and two runs together.
    let [one, two] = ["one", "two"].map(|name| lab.lab.dir().join(name).display().to_string());
    let again = lab.lab.dir().join("again.html").display().to_string();
    let (status, text) = offline(&["view", &one, "--html", &again])?;
    ensure!(status == 0 && text.contains("REQUEST → REPLY"), "{status} {text}");
    Page::load(Path::new(&again), (1100, 800))?.check(&summary)?;
    let (status, text) = offline(&["view", &one, &two, "--html", &again, "--json"])?;
    ensure!(status == 0, "{status} {text}");
    let both = gemel_tests::bench::summary(&text)?;
    let exchanges = |summary: &Value| summary["exchanges"].as_u64().unwrap_or(0);
    ensure!(
        exchanges(&both)
            == exchanges(&summary)
                + exchanges(&json(Path::new(&two).join("summary.json").as_path())?)
    );
    Page::load(Path::new(&again), (1100, 800))?.check(&both)?;

    let (status, text) = offline(&["diff", &one, &two, "--json"])?;
    ensure!(status == 0, "{status} {text}");
    let diff = gemel_tests::bench::summary(&text)?;
    let ratio = diff["rows"][0]["ratio"].as_f64().context("no ratio")?;
    ensure!((1.5..2.5).contains(&ratio), "twice the rate, not {ratio}: {diff}");
    ensure!(diff["notes"].to_string().contains("pace differs"), "{diff}");
    let (status, text) = offline(&["view", &page.display().to_string()])?;
    ensure!(status == 1 && text.contains("is no file of a run"), "{status} {text}");

    // A script that fails must be found out, or the checks above are worth nothing.
    let broken = lab.lab.dir().join("broken.html");
    let text = std::fs::read_to_string(&page)?.replace("id=\"data\">{", "id=\"data\">{{");
    std::fs::write(&broken, text)?;
    let dom = Dom::load(&broken, (1100, 800))?;
    if dom.root_attribute("data-errors") != Some("1") || dom.root_attribute("data-drawn").is_some()
    {
        show_log(&lab.server);
        bail!("a script that failed was not noticed");
    }
    Ok(())
}

#[test]
fn the_page_of_an_avalanche_shows_who_was_served() -> Result<()> {
    require!([browser::PROGRAM], ["gemel", "gemel-bench"]);
    let lab = lab()?;
    let out = lab.lab.dir().join("out");
    let mut run = bench(&lab, "avalanche --clients 2000 --within 2 --quiet --out DIR/out")?;
    run.wait_success(BEYOND)?;
    let summary = json(&out.join("summary.json"))?;
    ensure!(summary["scenario"]["served"] == 2000, "{}", summary["scenario"]);
    for size in [(1100, 800), (390, 800)] {
        let page = Page::load(&out.join("report.html"), size)?;
        page.check(&summary)?;
        ensure!(page.count("served", "<polyline class=\"curve")? == 2, "the curve and its end");
        let shares = page.count("served", "<line class=\"takeover share\"")?;
        ensure!(shares == 4, "{shares} shares");
    }
    Ok(())
}

#[test]
fn the_page_of_a_failover_marks_the_events() -> Result<()> {
    require!([browser::PROGRAM], ["gemel", "gemel-bench"]);
    with_pair("page", &Options::default(), |pair| {
        let out = pair.lab.dir().join("out");
        let mut load = Disturbed::new(300.0, 8.0);
        load.out = Some(out.clone());
        load.at = vec![
            (2.0, pair.server(Role::Primary).kill_command()),
            (5.0, "echo nothing happens".into()),
        ];
        let bench = load.start(&pair.client)?;
        let primary = pair.server_mut(Role::Primary).process();
        wait::until("the kill", NOTICE, || Ok((!primary.is_running()?).then_some(())))?;
        let summary = load.finish(bench)?;
        let events = summary["failover"]["events"].as_array().context("no events")?;
        let takeovers = events.iter().filter(|event| event["takeover_ms"].is_f64()).count();
        ensure!(events.len() == 2 && takeovers >= 1, "{events:?}");
        let page = Page::load(&out.join("report.html"), (1100, 800))?;
        page.check(&summary)?;
        for figure in ["servers", "heat", "throughput", "lag"] {
            let lines = page.count(figure, "<line class=\"event\"")?;
            ensure!(lines == events.len(), "{lines} events in {figure}");
            let lines = page.count(figure, "<line class=\"takeover\"")?;
            ensure!(lines == takeovers, "{lines} takeovers in {figure}");
        }
        ensure!(page.count("percentiles", "<line class=\"event\"")? == 0);
        ensure!(page.count("servers", "<polyline class=\"curve")? == 2, "a line per server");
        Ok(())
    })
}
