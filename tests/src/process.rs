//! A child process whose output is kept, which is killed with its handle.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait;

/// How many of the last lines an error message shows.
const LINES_SHOWN: usize = 40;

/// A running program with captured standard output and standard error.
///
/// Dropping it sends SIGKILL and waits for the end of the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    /// Standard output and standard error in the order of arrival.
    all: Vec<String>,
    stdout: Vec<String>,
    streams_open: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // The readers only push lines, so a panic elsewhere leaves the list usable.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stream: impl Read, is_stdout: bool) {
        let mut reader = BufReader::new(stream);
        let mut raw = Vec::new();
        while matches!(reader.read_until(b'\n', &mut raw), Ok(1..)) {
            let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
            raw.clear();
            let mut lines = self.lock();
            if is_stdout {
                lines.stdout.push(line.clone());
            }
            lines.all.push(line);
            self.changed.notify_all();
        }
        self.lock().streams_open -= 1;
        self.changed.notify_all();
    }
}

impl Process {
    /// Starts `command`; `name` is what error messages call it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let output = Arc::new(Output::default());
        output.lock().streams_open = 2;
        let (out, err) = (Arc::clone(&output), Arc::clone(&output));
        let readers = vec![
            std::thread::spawn(move || out.read(stdout, true)),
            std::thread::spawn(move || err.read(stderr, false)),
        ];
        Ok(Self { name: name.to_owned(), child, output, readers })
    }

    /// The process id. `ip netns exec` and `unshare` replace themselves by the program, so this is
    /// the program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far, of both streams.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().all.clone()
    }

    /// The lines of standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.output.lock().stdout.clone()
    }

    /// Whether the process has not ended yet.
    ///
    /// # Errors
    /// When the state of the process cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until a line contains `pattern` and returns that line.
    ///
    /// # Errors
    /// When the process ends without such a line, or `timeout` passes; the error shows the last
    /// lines.
    pub fn wait_for_line(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            {
                let mut lines = self.output.lock();
                loop {
                    if let Some(line) = lines.all[seen..].iter().find(|line| line.contains(pattern))
                    {
                        return Ok(line.clone());
                    }
                    seen = lines.all.len();
                    let left = deadline.saturating_duration_since(Instant::now());
                    if lines.streams_open == 0 || left.is_zero() {
                        break;
                    }
                    // A descendant may hold the streams open after the process itself is gone, so
                    // the wait also ends by itself to look at the process.
                    let slice = left.min(Duration::from_millis(100));
                    let (guard, result) = self
                        .output
                        .changed
                        .wait_timeout(lines, slice)
                        .unwrap_or_else(PoisonError::into_inner);
                    lines = guard;
                    if result.timed_out() {
                        break;
                    }
                }
            }
            if let Some(status) = self.child.try_wait()? {
                self.drain();
                if let Some(line) = self.lines().into_iter().find(|line| line.contains(pattern)) {
                    return Ok(line);
                }
                bail!(
                    "{} ended with {status} before the line {pattern:?}; its output was:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} printed no line with {pattern:?} within {timeout:?}; its output was:\n{}",
                    self.name,
                    self.tail()
                );
            }
        }
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When `timeout` passes first; the process is then still running.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let status =
            wait::until(&format!("the end of {name}"), timeout, || Ok(self.child.try_wait()?))
                .with_context(|| format!("its output was:\n{}", self.tail()))?;
        self.drain();
        Ok(status)
    }

    /// Waits for the end of the process and insists on success.
    ///
    /// # Errors
    /// When it fails or `timeout` passes; the error shows the last lines.
    pub fn wait_success(&mut self, timeout: Duration) -> Result<()> {
        let status = self.wait(timeout)?;
        if !status.success() {
            bail!("{} ended with {status}; its output was:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Sends a signal by its name without `SIG`, for example `TERM` or `USR1`.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn signal(&self, signal: &str) -> Result<()> {
        crate::run("sh", &["-c", &format!("kill -{signal} {}", self.pid())])
            .with_context(|| format!("sending SIG{signal} to {}", self.name))?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When the process does not end within `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if self.is_running()? {
            self.signal("TERM")?;
        }
        self.wait(timeout)
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last lines, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    /// Lets the readers finish what a process that has ended left in the pipes.
    fn drain(&self) {
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut lines = self.output.lock();
        while lines.streams_open > 0 && Instant::now() < deadline {
            lines = self
                .output
                .changed
                .wait_timeout(lines, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The readers are not joined: a descendant that kept the pipe must not block the test.
        self.readers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("script", command).unwrap()
    }

    #[test]
    fn finds_a_line_of_either_stream() {
        let mut process = shell("echo one; echo two >&2; exec sleep 60");
        process.wait_for_line("two", Duration::from_secs(10)).unwrap();
        assert_eq!(process.wait_for_line("on", Duration::from_secs(10)).unwrap(), "one");
        assert_eq!(process.stdout(), ["one"]);
        assert!(process.is_running().unwrap());
    }

    #[test]
    fn notices_an_early_end() {
        let started = Instant::now();
        let mut process = shell("echo cause of death; exit 3");
        let error = process.wait_for_line("ready", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("cause of death"), "{error}");
        assert!(error.to_string().contains('3'), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn gives_up_at_the_deadline() {
        let mut process = shell("echo alive; exec sleep 60");
        let error = process.wait_for_line("ready", Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("within"), "{error}");
    }

    #[test]
    fn signals_reach_the_program_and_its_end_is_reported() {
        let mut process =
            shell("trap 'echo caught; exit 0' USR1; echo set; while :; do sleep 0.01; done");
        process.wait_for_line("set", Duration::from_secs(10)).unwrap();
        process.signal("USR1").unwrap();
        process.wait_for_line("caught", Duration::from_secs(10)).unwrap();
        process.wait_success(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn drop_kills() {
        let process = shell("exec sleep 60");
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
