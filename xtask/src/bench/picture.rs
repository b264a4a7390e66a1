//! Exchanges per second as bars.

use std::fmt::Write as _;

use super::cases::CASES;
use super::{Samples, spread};

const WIDTH: f64 = 760.0;
const LABEL: f64 = 290.0;
const ROW: f64 = 34.0;
const TOP: f64 = 44.0;

/// An SVG with a bar for each case that counts exchanges, and a line from the lowest to the highest
/// value. Readable on light and dark ground.
pub(super) fn bars(samples: &Samples) -> String {
    let rows: Vec<_> = CASES
        .iter()
        .filter(|case| !case.is_packets())
        .filter_map(|case| {
            let samples = samples.get(case.name())?;
            Some((case, spread(samples.iter().map(|sample| sample.per_s))))
        })
        .collect();
    let most = rows.iter().map(|(_, (_, _, high))| *high).fold(1.0, f64::max);
    let scale = (WIDTH - LABEL - 90.0) / most;
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let height = TOP + rows.len() as f64 * ROW + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"16\" fill=\"#1a1a1a\">Exchanges per second \
         (median; line: lowest to highest)</text>\n"
    );
    let mut y = TOP;
    for (case, (median, low, high)) in rows {
        let colour = if case.is_kea() { "#9aa5b1" } else { "#1f6feb" };
        let (middle, end) = (y + ROW / 2.0, LABEL + median * scale);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}</text>\n\
             <rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" \
             fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" \
             stroke=\"#1a1a1a\" stroke-width=\"1.5\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1a1a1a\">{}</text>\n",
            LABEL - 10.0,
            middle + 4.5,
            case.title(),
            y + 6.0,
            (median * scale).max(1.0),
            ROW - 12.0,
            LABEL + low * scale,
            LABEL + high * scale,
            end.max(LABEL + high * scale) + 8.0,
            middle + 4.5,
            grouped(median),
        );
        y += ROW;
    }
    svg + "</svg>\n"
}

/// A number with commas between its thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Sample};
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in
            [(0.0, "0"), (999.0, "999"), (1000.4, "1,000"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn the_longest_bar_is_that_of_the_fastest() {
        let sample = |per_s: f64| vec![Sample { per_s, ..Sample::default() }];
        let samples = Samples::from([
            (Case::Process.name(), sample(100_000.0)),
            (Case::Kea.name(), sample(25_000.0)),
            (Case::Reflector.name(), sample(900_000.0)),
        ]);
        let svg = bars(&samples);
        let widths: Vec<f64> = svg
            .split("width=\"")
            .filter_map(|rest| rest.split_once("\" height=")?.0.parse().ok())
            .collect();
        assert_eq!(widths.len(), 2, "{svg}");
        assert!((widths[0] / widths[1] - 4.0).abs() < 0.01, "{widths:?}");
        assert!(svg.contains("100,000") && !svg.contains("900,000"));
    }
}
