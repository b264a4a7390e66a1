//! The command line.

use std::{env, str::FromStr};

use crate::queue::Work;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Clients with a lease, of both workers together.
    pub(crate) clients: u32,
    /// Length of a measurement.
    pub(crate) seconds: f64,
    pub(crate) repetitions: u32,
    /// One for each worker.
    pub(crate) cores: [usize; 2],
    pub(crate) works: Vec<Work>,
    /// Only the first worker.
    pub(crate) alone: bool,
    pub(crate) json: bool,
}

impl Options {
    /// Ends the program, with a word to the user, where they cannot be followed.
    pub(crate) fn from_arguments() -> Self {
        match Self::parse(env::args().skip(1)) {
            Ok(options) => options,
            Err(error) => {
                eprintln!("error: {error}");
                std::process::exit(2);
            }
        }
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            clients: 1_000_000,
            seconds: 0.5,
            repetitions: 9,
            cores: [0, 1],
            works: Vec::new(),
            alone: false,
            json: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--clients" => options.clients = number(&value()?)?,
                "--seconds" => options.seconds = number(&value()?)?,
                "--repetitions" => options.repetitions = number(&value()?)?,
                "--cores" => {
                    let value = value()?;
                    let (a, b) = value.split_once(',').ok_or("--cores needs two, as in 0,1")?;
                    options.cores = [number(a)?, number(b)?];
                }
                "--work" => {
                    let value = value()?;
                    let found = Work::ALL.into_iter().find(|work| work.name() == value);
                    options.works.push(found.ok_or_else(|| format!("there is no work {value}"))?);
                }
                "--alone" => options.alone = true,
                "--json" => options.json = true,
                // Cargo's own.
                "--bench" => {}
                "--test" => {
                    (options.clients, options.seconds, options.repetitions) = (10_000, 0.01, 1);
                }
                _ => return Err(format!("unknown option {name}")),
            }
        }
        if options.clients < 10_000 || options.repetitions == 0 {
            return Err("at least 10000 clients and one repetition".into());
        }
        if options.works.is_empty() {
            options.works = Work::ALL.to_vec();
        }
        Ok(options)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no such number"))
}
