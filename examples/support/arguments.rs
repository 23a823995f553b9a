//! The command line of an example: a URL, and options with values.

use std::process::ExitCode;

use super::{failed, wrong_arguments};

/// Runs an example: parses its arguments, prints its help if that is asked for, and prints its error if it fails. Returns the exit code.
pub(crate) fn run<O>(
    help: &str,
    parse: impl FnOnce(Arguments) -> Result<O, String>,
    example: impl FnOnce(O) -> Result<ExitCode, Box<dyn std::error::Error>>,
) -> ExitCode {
    env_logger::init();
    let rest: Vec<String> = std::env::args().skip(1).collect();
    if rest.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{help}");
        return ExitCode::SUCCESS;
    }
    match parse(Arguments { rest: rest.into_iter(), current: String::new() }) {
        Ok(options) => example(options).unwrap_or_else(|error| failed(&*error)),
        Err(why) => wrong_arguments(&why, help),
    }
}

/// The arguments, one after the other.
pub(crate) struct Arguments {
    rest: std::vec::IntoIter<String>,
    /// The one that `next` has returned, for messages.
    current: String,
}

impl Arguments {
    pub(crate) fn next(&mut self) -> Option<String> {
        self.current = self.rest.next()?;
        Some(self.current.clone())
    }

    /// The value of the current option.
    pub(crate) fn value(&mut self) -> Result<String, String> {
        self.rest.next().ok_or(format!("{} needs a value", self.current))
    }

    /// The value of the current option, which is a whole number.
    pub(crate) fn number(&mut self) -> Result<u64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| format!("{} takes a whole number, not {value:?}", self.current))
    }

    /// The value of the current option, which is a number from 0 to a thousand million.
    pub(crate) fn decimal(&mut self, unit: &str) -> Result<f64, String> {
        let value = self.value()?;
        let number = value.parse().ok().filter(|number| (0.0..1e9).contains(number));
        number.ok_or(format!("{} takes {unit}, not {value:?}", self.current))
    }

    /// The current argument as a URL. Fails if it is an option, which the example does not have.
    pub(crate) fn url(&self) -> Result<String, String> {
        if self.current.starts_with('-') {
            return Err(format!("there is no option {}", self.current));
        }
        Ok(self.current.clone())
    }

    /// The current argument as the only URL.
    pub(crate) fn only_url(&self, earlier: &Option<String>) -> Result<Option<String>, String> {
        match earlier {
            Some(_) => self.url().and(Err("one URL at a time".into())),
            None => self.url().map(Some),
        }
    }
}
