//! Waiting for a condition by polling it, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Polls `condition` until it yields a value, for at most `timeout`.
///
/// # Errors
/// The condition's own error at once; after `timeout` an error that names `what` was awaited.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain for {what}");
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_the_value_when_it_comes() {
        let mut left = 3;
        let value = until("three rounds", Duration::from_secs(5), || {
            left -= 1;
            Ok((left == 0).then_some(7))
        });
        assert_eq!(value.unwrap(), 7);
    }

    #[test]
    fn names_what_it_waited_for() {
        let error = until::<()>("the moon", Duration::from_millis(30), || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }

    #[test]
    fn passes_an_error_on_at_once() {
        let started = Instant::now();
        let error = until::<()>("x", Duration::from_secs(60), || bail!("broken")).unwrap_err();
        assert_eq!(error.to_string(), "broken");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
