//! Things that happen from outside in the middle of a run: a server is killed, a cable is cut.
//!
//! An event is a shell command that is run at its time, or a signal (SIGUSR1, SIGUSR2) by which
//! somebody else says that something has happened. Each has a thread of its own, which is asleep
//! until it is wanted, so that the generator's loop is not held up.

use std::{
    io,
    process::{Command, Stdio},
    str::FromStr,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    clock::Clock,
    number::{SECOND_NS, whole},
    os,
};

/// How often the threads look whether a signal has come or the run is over.
const POLL: Duration = Duration::from_millis(1);

/// A command and when to run it: `SECONDS:COMMAND`.
#[derive(Clone, Debug, PartialEq)]
pub struct At {
    /// Seconds from the start of the run.
    pub seconds: f64,
    /// What the shell is to run.
    pub command: String,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (seconds, command) = text
            .split_once(':')
            .filter(|(_, command)| !command.trim().is_empty())
            .ok_or("write it as SECONDS:COMMAND")?;
        let seconds: f64 =
            seconds.trim().parse().map_err(|_| format!("{seconds:?} is not a number"))?;
        if (0.0..=1e6).contains(&seconds) {
            Ok(Self { seconds, command: command.trim().into() })
        } else {
            Err("the time must be between 0 and 1e6 seconds".into())
        }
    }
}

/// Something that happened. Times are clock times in ns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// The command, or the name of the signal.
    pub name: String,
    /// When the command was started or the signal was seen.
    pub started: u64,
    /// When the command had ended; the same for a signal.
    pub finished: u64,
    /// What went wrong with the command, with its output.
    pub failure: Option<String>,
}

/// The threads that see to the events of a run.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Clock and beginning, once the run begins.
    begun: Mutex<Option<(Clock, u64)>>,
    changed: Condvar,
    over: AtomicBool,
    happened: Mutex<Vec<Event>>,
}

impl Events {
    /// Makes the threads, which then wait for [`Events::begin`]. To be called before the generator
    /// binds itself to a core, or the commands would run on that core, too.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn prepare(commands: &[At]) -> io::Result<Self> {
        os::count_marks();
        let shared = Arc::new(Shared::default());
        let mut events = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name("event".into()).spawn(work)
        };
        for at in commands {
            let (shared, at) = (Arc::clone(&shared), at.clone());
            events.threads.push(spawn(Box::new(move || shared.command(&at)))?);
        }
        events.threads.push(spawn(Box::new(move || shared.marks()))?);
        Ok(events)
    }

    /// Starts the time by which the commands go.
    pub fn begin(&self, clock: Clock, begin: u64) {
        *self.shared.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock, begin));
        self.shared.changed.notify_all();
    }

    /// Ends the threads and returns what has happened, in order of time. A command that runs is
    /// waited for, one that was not yet due is left out.
    #[must_use]
    pub fn end(mut self) -> Vec<Event> {
        self.shared.over.store(true, Ordering::Relaxed);
        // Those that still wait for a beginning are not to wait for ever.
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has lost its event and nothing else.
            let _ = thread.join();
        }
        let happened = &mut *self.shared.happened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = std::mem::take(happened);
        events.sort_by_key(|event| event.started);
        events
    }
}

impl Shared {
    /// Clock and beginning; `None` if the run is over before it began.
    fn wait_begin(&self) -> Option<(Clock, u64)> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        while begun.is_none() && !self.over.load(Ordering::Relaxed) {
            let waited = self.changed.wait_timeout(begun, Duration::from_millis(50));
            begun = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *begun
    }

    fn add(&self, event: Event) {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn command(&self, at: &At) {
        let Some((clock, begin)) = self.wait_begin() else { return };
        let due = begin + whole(at.seconds * 1e9);
        loop {
            let left = due.saturating_sub(clock.now());
            if left == 0 {
                break;
            }
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            // In pieces, to see the end of the run; the last one ends at the moment itself.
            std::thread::sleep(Duration::from_nanos(left.min(SECOND_NS / 20)));
        }
        let started = clock.now();
        let output = Command::new("sh").args(["-c", &at.command]).stdin(Stdio::null()).output();
        let finished = clock.now();
        let failure = match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!(
                "{}: {}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            )),
            Err(error) => Some(error.to_string()),
        };
        self.add(Event { name: at.command.clone(), started, finished, failure });
    }

    fn marks(&self) {
        let Some((clock, _)) = self.wait_begin() else { return };
        let mut seen = os::marks();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(POLL);
            let marks = os::marks();
            let now = clock.now();
            for (name, before, after) in
                [("SIGUSR1", seen[0], marks[0]), ("SIGUSR2", seen[1], marks[1])]
            {
                for _ in before..after {
                    let name = name.to_owned();
                    self.add(Event { name, started: now, finished: now, failure: None });
                }
            }
            seen = marks;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_times() {
        let at: At = "2.5: kill -9 7; echo a:b".parse().unwrap();
        assert_eq!(at, At { seconds: 2.5, command: "kill -9 7; echo a:b".into() });
        for bad in ["kill", "x:kill", "-1:kill", "3:", "3: "] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_run_at_their_times_and_failures_are_told() {
        let commands: Vec<At> = ["0.02:exit 3", "0:sleep 0.05", "1000:echo never"]
            .map(|text| text.parse().unwrap())
            .into();
        let events = Events::prepare(&commands).unwrap();
        let clock = Clock::start();
        let begin = clock.now();
        events.begin(clock, begin);
        while clock.now() < begin + SECOND_NS / 10 {
            std::thread::sleep(POLL);
        }
        // Signals go to the whole process, also those of another test.
        let mut happened = events.end();
        happened.retain(|event| !event.name.starts_with("SIG"));
        assert_eq!(happened.len(), 2, "{happened:?}");
        let (sleep, exit) = (&happened[0], &happened[1]);
        assert_eq!((sleep.name.as_str(), exit.name.as_str()), ("sleep 0.05", "exit 3"));
        assert!(sleep.finished - sleep.started >= SECOND_NS / 20, "{sleep:?}");
        assert!(exit.started - begin >= SECOND_NS / 50, "{exit:?}");
        assert!(sleep.failure.is_none() && exit.failure.as_ref().unwrap().contains('3'));
    }

    #[test]
    fn signals_are_marks() {
        let events = Events::prepare(&[]).unwrap();
        let clock = Clock::start();
        events.begin(clock, clock.now());
        let pid = std::process::id();
        let send = |signal: &str| {
            let kill = format!("kill -{signal} {pid}");
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        };
        // The thread may not watch yet; a mark that it sees shows that it does.
        let seen = |events: &Events, name: &str| {
            let happened = events.shared.happened.lock().unwrap();
            happened.iter().any(|event| event.name == name)
        };
        for (signal, name) in [("USR1", "SIGUSR1"), ("USR2", "SIGUSR2")] {
            while !seen(&events, name) {
                send(signal);
                std::thread::sleep(POLL);
            }
        }
        let happened = events.end();
        assert!(happened.iter().all(|event| event.failure.is_none()));
        assert_eq!(happened[0].name, "SIGUSR1");
        assert!(happened.iter().all(|event| event.started == event.finished));
    }

    #[test]
    fn threads_of_a_run_that_never_began_end() {
        let events = Events::prepare(&["0:exit 1".parse().unwrap()]).unwrap();
        assert_eq!(events.end(), []);
    }
}
