//! windway beside other libraries, on the same origin and work: `compare/report.html`.
//!
//! ```text
//! cargo run --release --manifest-path compare/Cargo.toml            # all, about 11 minutes; writes report.html and results
//! cargo run --release --manifest-path compare/Cargo.toml -- --quick # tries it in two minutes; writes into compare/target/
//! ```
//!
//! Rules:
//!
//! - Every library is used as its documentation shows, with its defaults. Each deviation has a comment with its reason.
//! - The origin is a process of its own. Each measurement of each library is a process of its own too, so that none inherits
//!   connections, memory or threads. The libraries take turns within a round, so that a busy moment hits all of them.
//! - Medians over the rounds, with the lowest and the highest value. What windway loses is shown like what it wins.

mod machine;
mod measures;
mod origin;
mod report;
mod subjects;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use measures::MEASURES;
use report::Results;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const HELP: &str = "\
Compares windway with other libraries.

    cargo run --release --manifest-path compare/Cargo.toml -- [--quick] [--only MEASURE]...
    cargo run --manifest-path compare/Cargo.toml -- --render

--quick  one short round, to try it; the results go to compare/target/, not beside the committed ones
--only   small, bulk, seek, urgent, urgent-limited, slots, slots-limited, cancel, idle, corruption, sample;
         --quick is implied
--render writes the other files again from the committed results.json, without measuring

Writes report.html, results.csv, results.json, overview.svg and table.md, which is the section of the README.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match &arguments[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        ["--render"] => {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
            Results::read(directory).and_then(|results| results.render(directory))
        }
        // The two that this program starts itself.
        ["origin"] => origin::run(),
        ["measure", measure, subject, address, scale] => child(measure, subject, address, scale),
        _ => match options(&arguments) {
            Some((is_quick, only)) => compare(is_quick, &only),
            None => {
                eprintln!("{HELP}");
                return ExitCode::from(2);
            }
        },
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn options<'a>(arguments: &[&'a str]) -> Option<(bool, Vec<&'a str>)> {
    let (mut is_quick, mut only) = (false, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--quick" => is_quick = true,
            "--only" => {
                let name = arguments.next()?;
                MEASURES.iter().find(|measure| measure.name == *name)?;
                only.push(*name);
            }
            _ => return None,
        }
    }
    Some((is_quick || !only.is_empty(), only))
}

/// One measurement. Prints each value on a line: the metric and the number.
fn child(measure: &str, subject: &str, address: &str, scale: &str) -> Result<(), Failure> {
    let measure = MEASURES.iter().find(|known| known.name == measure).ok_or("no such measure")?;
    let address: SocketAddr = address.parse()?;
    let mut subject = subjects::make(subject)?;
    for (metric, value) in (measure.run)(&mut *subject, &origin::Urls(address), scale.parse()?)? {
        println!("{metric} {value}");
    }
    Ok(())
}

fn compare(is_quick: bool, only: &[&str]) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        eprintln!("warning: without --release the figures mean nothing");
    }
    let program = std::env::current_exe()?;
    let mut origin = OriginProcess::start(&program)?;
    let (rounds, scale) = if is_quick { (1, 0.1) } else { (5, 1.0) };
    let mut results = Results::new(machine::describe(rounds));
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", measure.name);
            for subject in measure.subjects {
                let run = Command::new(&program)
                    .args(["measure", measure.name, subject, &origin.address, &f64::to_string(&scale)])
                    .stderr(Stdio::inherit())
                    .output()?;
                for line in String::from_utf8_lossy(&run.stdout).lines() {
                    let (metric, value) = line.split_once(' ').ok_or("a value without a metric")?;
                    results.add(metric, subject, value.parse()?);
                }
                if !run.status.success() {
                    results.note(format!("{subject} failed at {}", measure.name));
                }
            }
        }
    }
    origin.stop();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = if is_quick { directory.join("target") } else { directory.to_owned() };
    // Not there where CARGO_TARGET_DIR names another one.
    std::fs::create_dir_all(&directory)?;
    results.write(&directory)?;
    println!("{}", directory.join("report.html").display());
    Ok(())
}

struct OriginProcess {
    child: Child,
    address: String,
}

impl OriginProcess {
    fn start(program: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(program).arg("origin").stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        self.stop();
    }
}
