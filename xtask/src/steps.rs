//! Named steps with their times.

use std::time::{Duration, Instant};

use anyhow::Result;

/// What ran, how long it took, and whether it went well.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    failure: Option<String>,
}

impl Steps {
    /// Runs a step to its end; a failure is kept for the summary and does not stop what follows.
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        eprintln!("== {name}");
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        let (value, failure) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => {
                eprintln!("== {name} FAILED: {error:#}");
                (None, Some(format!("{error:#}")))
            }
        };
        self.done.push(Step { name: name.to_owned(), took, failure });
        value
    }

    /// Whether every step went well.
    pub(crate) fn all_passed(&self) -> bool {
        self.done.iter().all(|step| step.failure.is_none())
    }

    /// A line per step, then the whole time.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for step in &self.done {
            let verdict = step.failure.as_deref().map_or_else(
                || "ok".to_owned(),
                |failure| format!("FAILED: {}", failure.lines().next().unwrap_or_default()),
            );
            text += &format!("{:<28} {:>7.1} s  {verdict}\n", step.name, step.took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        text += &format!("{:<28} {:>7.1} s", "all", total.as_secs_f64());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_remembered_and_the_next_one_runs() {
        let mut steps = Steps::default();
        assert_eq!(steps.run("one", || Ok(1)), Some(1));
        assert!(steps.all_passed());
        assert_eq!(steps.run::<()>("two", || anyhow::bail!("broken")), None);
        assert_eq!(steps.run("three", || Ok(3)), Some(3));
        assert!(!steps.all_passed());
        let summary = steps.summary();
        assert!(summary.contains("FAILED: broken"), "{summary}");
        assert_eq!(summary.lines().count(), 4);
    }
}
