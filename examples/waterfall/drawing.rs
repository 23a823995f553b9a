//! A recording as text and as SVG.

use std::fmt::Write;
use std::time::Duration;

use windway::{ByteRange, Priority};

use super::recording::{Line, Recording, State};
use super::support::{bytes, span};

const WIDTH: usize = 100;

/// `·` queued, `-` waiting for the response head, `=` body, `z` preempted, `!` retried, `|` end
pub(crate) fn text(recording: &Recording) -> String {
    let end = recording.end();
    let column = |at: Duration| (at.as_secs_f64() / end.as_secs_f64() * (WIDTH - 1) as f64) as usize;
    let mut text = format!("{:>5} 0{:>width$}\n", "", span(end), width = WIDTH);
    for (request, line) in &recording.lines {
        let mut bar = vec![' '; WIDTH];
        for (index, (at, state)) in line.states.iter().enumerate() {
            let until = line.states.get(index + 1).map_or(column(*at), |(next, _)| column(*next));
            bar[column(*at)..=until].fill(match state {
                State::Queued => '·',
                State::Waiting => '-',
                State::Body => '=',
                State::Preempted => 'z',
                State::Retrying => '!',
                State::Completed | State::Cancelled | State::Failed => '|',
            });
        }
        let bar: String = bar.into_iter().collect();
        text += &format!("{:>5} {bar} {}\n", request.to_string(), outcome(line));
    }
    text + "      · queued  - waiting for the response head  = body  z preempted  ! retried  | end\n"
}

fn outcome(line: &Line) -> String {
    let separator = if line.note.is_empty() { "" } else { ", " };
    // A reason may give examples behind a comma.
    let note = line.note.split(',').next().unwrap_or_default();
    format!("{}{separator}{note}", bytes(line.bytes))
}

/// `0 to 262 kB`
fn range(range: Option<ByteRange>) -> String {
    match range {
        None => "whole, or its end".into(),
        Some(range) if range.end == u64::MAX => format!("from {}", bytes(range.start)),
        Some(range) => format!("{} to {}", bytes(range.start), bytes(range.end)),
    }
}

/// Pixels: the columns, and the height of a row.
const LEFT: f64 = 300.0;
const PLOT: f64 = 620.0;
const TOTAL: f64 = 1290.0;
const ROW: f64 = 18.0;
const TOP: f64 = 110.0;
const CHART: f64 = 110.0;

const URGENT: &str = "#1f6fb2";
const PREFETCH: &str = "#5aa469";
const QUEUED: &str = "#d5d8dc";
const WAITING: &str = "#f0b429";
const PREEMPTED: &str = "#b39ddb";
const RETRYING: &str = "#e05252";

pub(crate) fn svg(recording: &Recording) -> String {
    let rows = ROW * recording.lines.len() as f64;
    let height = TOP + rows + 70.0 + CHART + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{TOTAL}\" height=\"{height}\" viewBox=\"0 0 {TOTAL} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    label(&mut out, (20.0, 28.0), "start\" font-size=\"16\" font-weight=\"bold", &recording.title);
    legend(&mut out);
    let bottom = TOP + rows + 70.0 + CHART;
    axis(&mut out, recording.end(), bottom);
    for (index, (request, line)) in recording.lines.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        row(&mut out, recording.end(), &format!("{request} {}", line.name), line, y);
    }
    marks(&mut out, recording, bottom);
    chart(&mut out, recording, bottom);
    out + "</svg>\n"
}

/// Horizontal position of a time.
fn x(at: Duration, end: Duration) -> f64 {
    LEFT + PLOT * at.as_secs_f64() / end.as_secs_f64()
}

/// Writing to a `String` does not fail.
fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(element);
    out.push('\n');
}

fn label(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    put(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}

fn bar(out: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    put(
        out,
        format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        ),
    );
}

fn legend(out: &mut String) {
    let entries = [
        (QUEUED, "queued"),
        (WAITING, "waiting for the response head"),
        (URGENT, "body, urgent"),
        (PREFETCH, "body, prefetch"),
        (PREEMPTED, "preempted"),
        (RETRYING, "broke, and is retried"),
    ];
    let mut x = 20.0;
    for (colour, text) in entries {
        bar(out, (x, 46.0), (14.0, 12.0), colour);
        label(out, (x + 20.0, 56.0), "start", text);
        x += 40.0 + 6.6 * text.len() as f64;
    }
    label(out, (x, 56.0), "start", "│ complete   × cancelled or failed");
}

/// Time, with a line at each step.
fn axis(out: &mut String, end: Duration, bottom: f64) {
    let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0];
    let step = steps.into_iter().find(|step| end.as_secs_f64() / step <= 10.0).unwrap_or(600.0);
    for index in 0..=(end.as_secs_f64() / step) as u32 {
        let at = Duration::from_secs_f64(step * f64::from(index));
        let x = x(at, end);
        put(
            out,
            format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"#eee\"/>",
                TOP - 4.0
            ),
        );
        label(
            out,
            (x, bottom + 16.0),
            "middle",
            &format!("{} s", (step * f64::from(index) * 100.0).round() / 100.0),
        );
    }
}

fn row(out: &mut String, end: Duration, name: &str, line: &Line, y: f64) {
    let middle = y + ROW * 0.72;
    label(out, (20.0, middle), "start", name);
    label(out, (LEFT - 8.0, middle), "end", &range(line.range));
    let body = if line.priority == Priority::High { URGENT } else { PREFETCH };
    // From the last to the first, so that what is drawn wider than it lasted is not covered.
    for (index, (at, state)) in line.states.iter().enumerate().rev() {
        let until = line.states.get(index + 1).map_or(*at, |(next, _)| *next);
        // Wide enough to be seen: often a fetch is retried at once.
        let least = if *state == State::Retrying { 3.0 } else { 1.0 };
        let (from, width) = (x(*at, end), (x(until, end) - x(*at, end)).max(least));
        let colour = match state {
            State::Queued => QUEUED,
            State::Waiting => WAITING,
            State::Body => body,
            State::Preempted => PREEMPTED,
            State::Retrying => RETRYING,
            State::Completed => {
                bar(out, (from, y + 1.0), (2.0, ROW - 2.0), "#222");
                continue;
            }
            State::Cancelled | State::Failed => {
                label(out, (from, middle), "middle\" font-size=\"15\" fill=\"#a00", "×");
                continue;
            }
        };
        bar(out, (from, y + 3.0), (width, ROW - 6.0), colour);
    }
    let is_over = line.states.last().is_some_and(|(_, state)| state.is_end());
    let text = if is_over { outcome(line) } else { "open".into() };
    label(out, (LEFT + PLOT + 10.0, middle), "start", &text);
}

/// What the reader did, as lines through both parts. The texts are on two levels, so that they do not overlap.
fn marks(out: &mut String, recording: &Recording, bottom: f64) {
    for (index, (at, what)) in recording.marks.iter().enumerate() {
        let (x, y) = (x(*at, recording.end()), if index % 2 == 0 { 80.0 } else { 96.0 });
        put(
            out,
            format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{bottom}\" stroke=\"#a00\" stroke-dasharray=\"3 3\"/>"
            ),
        );
        let anchor = if x > LEFT + PLOT * 0.8 { "end" } else { "start" };
        let x = if anchor == "end" { x - 4.0 } else { x + 4.0 };
        label(out, (x, y + 6.0), &format!("{anchor}\" fill=\"#a00"), what);
    }
}

/// What was buffered.
fn chart(out: &mut String, recording: &Recording, bottom: f64) {
    let most = recording.levels.iter().map(|(_, level)| *level).fold(0.0, f64::max);
    label(out, (20.0, bottom - CHART / 2.0), "start", recording.unit);
    if most > 0.0 {
        label(out, (LEFT - 8.0, bottom - CHART + 4.0), "end", &format!("{most:.1}"));
    }
    label(out, (LEFT - 8.0, bottom), "end", "0");
    let mut points = format!("{LEFT:.1},{bottom:.1}");
    let mut last = LEFT;
    for (at, level) in recording.levels.iter().filter(|(at, _)| *at <= recording.end()) {
        last = x(*at, recording.end());
        let y = bottom - CHART * level / most.max(f64::MIN_POSITIVE);
        points += &format!(" {last:.1},{y:.1}");
    }
    put(
        out,
        format_args!(
            "<polygon points=\"{points} {last:.1},{bottom:.1}\" fill=\"#1f6fb2\" fill-opacity=\"0.25\" stroke=\"{URGENT}\"/>"
        ),
    );
    put(
        out,
        format_args!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#888\"/>",
            LEFT + PLOT
        ),
    );
}
