//! Objectives that a run has to meet, as `p99<2ms,loss<0.1%`.

use std::{fmt, str::FromStr};

use crate::report::Summary;

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    text: String,
    measure: Measure,
    limit: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Measure {
    P50,
    P90,
    P99,
    P999,
    Max,
    Loss,
    Rate,
}

/// Objectives, all to be met.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo(Vec<Objective>);

/// An objective that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no objective: write p50, p90, p99, p999 or max < a time (us, ms, s) of the whole \
     exchange with losses as time-outs, loss < a percentage, or rate > exchanges per second"
)]
pub struct SloError(String);

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        text.split(',')
            .map(|part| Objective::parse(part.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Objective {
    fn parse(text: &str) -> Result<Self, SloError> {
        Self::read(text).ok_or_else(|| SloError(text.into()))
    }

    fn read(text: &str) -> Option<Self> {
        let at = text.find(['<', '>'])?;
        let (name, rest) = text.split_at(at);
        let (relation, value) = rest.split_at(1);
        let measure = match name.trim() {
            "p50" => Measure::P50,
            "p90" => Measure::P90,
            "p99" => Measure::P99,
            "p999" | "p99.9" => Measure::P999,
            "max" => Measure::Max,
            "loss" => Measure::Loss,
            "rate" => Measure::Rate,
            _ => return None,
        };
        if (relation == ">") != (measure == Measure::Rate) {
            return None;
        }
        let value = value.trim();
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let number: f64 = digits.trim().parse().ok().filter(|number: &f64| *number >= 0.0)?;
        let limit = match (measure, &value[digits.len()..]) {
            (Measure::Rate, "") | (Measure::Loss, "%") => number,
            (Measure::Rate | Measure::Loss, _) => return None,
            (_, "us") => number,
            (_, "ms") => number * 1e3,
            (_, "s") => number * 1e6,
            _ => return None,
        };
        Some(Self { text: text.into(), measure, limit })
    }

    fn met(&self, summary: &Summary) -> bool {
        let times = summary.overall();
        let measured = match self.measure {
            Measure::P50 => times.p50_us,
            Measure::P90 => times.p90_us,
            Measure::P99 => times.p99_us,
            Measure::P999 => times.p999_us,
            Measure::Max => times.max_us,
            Measure::Loss => summary.loss * 100.0,
            Measure::Rate => return summary.exchanges_per_s > self.limit,
        };
        measured < self.limit
    }
}

impl Slo {
    /// The objectives that were missed. All are, if the figures are not valid.
    #[must_use]
    pub fn missed(&self, summary: &Summary) -> Vec<String> {
        self.0
            .iter()
            .filter(|objective| !summary.valid || !objective.met(summary))
            .map(|objective| objective.text.clone())
            .collect()
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, objective) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", objective.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_with_their_units() {
        let slo: Slo = "p99<2ms, loss<0.1%,rate>1000,max<1.5s".parse().unwrap();
        let limits: Vec<_> = slo.0.iter().map(|objective| objective.limit).collect();
        assert_eq!(limits, [2000.0, 0.1, 1000.0, 1_500_000.0]);
        assert_eq!(slo.to_string(), "p99<2ms,loss<0.1%,rate>1000,max<1.5s");
        for bad in
            ["", "p99", "p99<2", "p99>2ms", "loss<1", "rate<5", "p98<2ms", "p99<-1ms", "p99<xms"]
        {
            assert!(bad.parse::<Slo>().is_err(), "{bad}");
        }
    }
}
