//! The machine, the versions, and what a process has used of it. Linux.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// Lines for the report.
pub(crate) fn describe(rounds: usize) -> Vec<(String, String)> {
    let command = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok();
        output.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory = memory.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / f64::from(1 << 20);
    let entry = |name: &str, value: String| (name.to_owned(), value);
    let mut entries = vec![
        entry("date", command("date", "-u")),
        entry("processor", format!("{}, {cores} cores", model.map_or("unknown", |(_, model)| model))),
        entry("memory", format!("{memory:.1} GiB")),
        entry("system", command("uname", "-sr")),
        entry("load before", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()),
        entry("compiler", command("rustc", "--version")),
        entry("rounds", rounds.to_string()),
        entry("libcurl", curl::Version::get().version().to_owned()),
    ];
    for name in ["windway", "ureq", "reqwest", "hyper", "tokio", "stream-download", "curl", "symphonia"] {
        entries.push(entry(name, locked(name)));
    }
    entries
}

/// Version of a package in the lock file.
fn locked(name: &str) -> String {
    let mut lines = include_str!("../Cargo.lock").lines();
    let wanted = format!("name = \"{name}\"");
    lines.find(|line| *line == wanted);
    lines.next().unwrap_or_default().replace("version = ", "").replace('"', "")
}

/// CPU time of all threads that this process has now.
pub(crate) fn cpu() -> Duration {
    let nanoseconds = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks("schedstat").filter_map(nanoseconds).sum())
}

/// Times that a thread of this process has slept and was woken.
pub(crate) fn wake_ups() -> u64 {
    let switches = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    tasks("status").filter_map(switches).sum()
}

fn tasks(file: &'static str) -> impl Iterator<Item = String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(move |task| fs::read_to_string(task.path().join(file)).ok())
}

/// Most memory that this process has had, in MiB.
pub(crate) fn peak_memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
