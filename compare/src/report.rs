//! Medians and spread, as CSV, JSON, SVG, HTML, and a table for the README.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::Failure;
use crate::measures::{METRICS, Metric};

/// In the order of the columns.
const SUBJECTS: [&str; 6] =
    ["windway", "ureq", "reqwest", "reqwest blocking", "stream-download", "libcurl easy"];

/// Metrics of the README's table and picture.
const SHOWN: [&str; 13] = [
    "small_time",
    "small_cpu",
    "bulk_rate",
    "bulk_memory",
    "open",
    "seek",
    "urgent",
    "urgent_limited",
    "slots",
    "slots_limited",
    "cancel",
    "wrong_reads",
    "first_sample",
];

/// Metrics that the README draws. There, and on the first page of the documentation, no picture of the repository is shown.
const DRAWN: [&str; 4] = ["bulk_rate", "seek", "urgent", "first_sample"];

pub(crate) struct Results {
    machine: Vec<(String, String)>,
    /// By metric and subject.
    values: BTreeMap<(String, String), Vec<f64>>,
    notes: Vec<String>,
}

/// Median, lowest and highest.
#[derive(Clone, Copy)]
struct Summary {
    median: f64,
    low: f64,
    high: f64,
}

impl Summary {
    fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Some(Self { median: values[values.len() / 2], low: *values.first()?, high: *values.last()? })
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0 => "0".into(),
        _ => format!("{value:.2}"),
    }
}

impl Results {
    pub(crate) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, values: BTreeMap::new(), notes: Vec::new() }
    }

    /// Those that were written to this directory.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let json: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(directory.join("results.json"))?)?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).ok_or("not a text");
        let mut results = Self::new(Vec::new());
        for (name, value) in json["machine"].as_object().ok_or("no machine")? {
            results.machine.push((name.clone(), text(value)?));
        }
        for note in json["notes"].as_array().ok_or("no notes")? {
            results.notes.push(text(note)?);
        }
        for entry in json["values"].as_array().ok_or("no values")? {
            let (metric, subject) = (text(&entry["metric"])?, text(&entry["subject"])?);
            for value in entry["values"].as_array().ok_or("a metric without values")? {
                results.add(&metric, &subject, value.as_f64().ok_or("not a number")?);
            }
        }
        Ok(results)
    }

    pub(crate) fn add(&mut self, metric: &str, subject: &str, value: f64) {
        self.values.entry((metric.into(), subject.into())).or_default().push(value);
    }

    /// Something that the reader of the report has to know.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), Failure> {
        fs::write(directory.join("results.json"), serde_json::to_string_pretty(&self.json())? + "\n")?;
        self.render(directory)
    }

    /// Writes all that is made from `results.json`.
    pub(crate) fn render(&self, directory: &Path) -> Result<(), Failure> {
        fs::write(directory.join("results.csv"), self.csv())?;
        fs::write(directory.join("overview.svg"), self.overview())?;
        fs::write(directory.join("table.md"), self.table())?;
        Ok(fs::write(directory.join("report.html"), self.html())?)
    }

    fn summary(&self, metric: &str, subject: &str) -> Option<Summary> {
        Summary::of(self.values.get(&(metric.into(), subject.into()))?)
    }

    fn csv(&self) -> String {
        let mut csv = String::from("metric,title,unit,subject,median,lowest,highest,runs\n");
        for metric in METRICS {
            for subject in SUBJECTS {
                let Some(Summary { median, low, high }) = self.summary(metric.id, subject) else { continue };
                let runs = self.values[&(metric.id.into(), subject.into())].len();
                let Metric { id, title, unit, .. } = metric;
                // Titles may have a comma.
                csv += &format!(
                    "{id},\"{title}\",{unit},{subject},{},{},{},{runs}\n",
                    figure(median),
                    figure(low),
                    figure(high)
                );
            }
        }
        csv
    }

    fn json(&self) -> serde_json::Value {
        let value = |((metric, subject), values): (&(String, String), &Vec<f64>)| json!({ "metric": metric, "subject": subject, "values": values });
        let values: Vec<_> = self.values.iter().map(value).collect();
        let machine: serde_json::Map<_, _> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({ "machine": machine, "notes": self.notes, "values": values })
    }

    /// The section of the README. Its figures are medians.
    fn table(&self) -> String {
        let entry = |wanted: &str| {
            self.machine.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str())
        };
        let plots: Vec<String> = METRICS
            .iter()
            .filter(|metric| DRAWN.contains(&metric.id))
            .map(|metric| self.plot(metric))
            .collect();
        let mut table = format!("```text\n{}```\n\n", plots.join("\n"));
        table += &format!("| | {} |\n|---|{}\n", SUBJECTS.join(" | "), "---|".repeat(SUBJECTS.len()));
        for metric in METRICS.iter().filter(|metric| SHOWN.contains(&metric.id)) {
            let cell = |subject: &str| {
                self.summary(metric.id, subject).map_or("–".into(), |summary| figure(summary.median))
            };
            let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
            let cells: Vec<String> = SUBJECTS.map(cell).into();
            table += &format!("| {}{unit} | {} |\n", metric.title, cells.join(" | "));
        }
        let load = entry("load before").split(' ').next().unwrap_or_default();
        table += &format!(
            "\nMedians of {} rounds, {}, on {}; the load average before was {load}.\n",
            entry("rounds"),
            entry("date"),
            entry("processor")
        );
        table
    }

    /// A bar of characters for each library: its length is the median.
    fn plot(&self, metric: &Metric) -> String {
        let found = SUBJECTS.iter().filter_map(|subject| Some((*subject, self.summary(metric.id, subject)?)));
        let rows: Vec<(&str, Summary)> = found.collect();
        let most = rows.iter().map(|(_, summary)| summary.median).fold(f64::MIN_POSITIVE, f64::max);
        let better = if metric.is_more_better { "more" } else { "less" };
        let mut plot = format!("{}, {} ({better} is better)\n", metric.title, metric.unit);
        for (subject, Summary { median, .. }) in rows {
            let bar = "█".repeat((BAR * median / most).round().max(1.0) as usize);
            plot += &format!("  {subject:16} {bar} {}\n", figure(median));
        }
        plot
    }

    fn overview(&self) -> String {
        let charts: Vec<String> = METRICS
            .iter()
            .filter(|metric| SHOWN.contains(&metric.id))
            .map(|metric| self.chart(metric))
            .filter(|chart| !chart.is_empty())
            .collect();
        let rows = charts.len().div_ceil(2);
        let mut svg = open_svg(2.0 * WIDTH + 20.0, 40.0 + rows as f64 * HEIGHT);
        text(
            &mut svg,
            (20.0, 26.0),
            "start\" font-size=\"17\" font-weight=\"bold",
            "windway beside other libraries: medians, lowest and highest",
        );
        for (index, chart) in charts.iter().enumerate() {
            let (x, y) = ((index % 2) as f64 * (WIDTH + 10.0), 40.0 + (index / 2) as f64 * HEIGHT);
            svg += &format!("<g transform=\"translate({x} {y})\">\n{chart}</g>\n");
        }
        svg + "</svg>\n"
    }

    /// A bar for each library: its length is the median, and the thin line goes from the lowest to the highest value.
    fn chart(&self, metric: &Metric) -> String {
        let found = SUBJECTS.iter().filter_map(|subject| Some((*subject, self.summary(metric.id, subject)?)));
        let rows: Vec<(&str, Summary)> = found.collect();
        let most = rows.iter().map(|(_, summary)| summary.high).fold(0.0, f64::max);
        if rows.is_empty() {
            return String::new();
        }
        let positive = rows.iter().map(|(_, summary)| summary.low).filter(|low| *low > 0.0);
        let least = positive.fold(most, f64::min);
        // Else nothing would be seen of the shorter bars.
        let is_logarithmic = most > 100.0 * least;
        let scale = if is_logarithmic { ", logarithmic" } else { "" };
        let better = if metric.is_more_better { "more is better" } else { "less is better" };
        let unit = if metric.unit.is_empty() { String::new() } else { format!("{}, ", metric.unit) };
        let mut svg = String::new();
        text(&mut svg, (20.0, 22.0), "start\" font-weight=\"bold", metric.title);
        text(&mut svg, (WIDTH - 10.0, 22.0), "end\" fill=\"#777", &format!("{unit}{better}{scale}"));
        for (index, (subject, summary)) in rows.iter().enumerate() {
            let y = 32.0 + 19.0 * index as f64;
            let share = |value: f64| match is_logarithmic {
                true if value <= 0.0 => 0.0,
                true => (2.0 * value / least).log10() / (2.0 * most / least).log10(),
                false => value / most.max(f64::MIN_POSITIVE),
            };
            let x = |value: f64| LEFT + (WIDTH - LEFT - 70.0) * share(value);
            let colour = if *subject == "windway" { "#1f6fb2" } else { "#b8c4d0" };
            let middle = y + 7.0;
            text(&mut svg, (LEFT - 8.0, y + 12.0), "end", subject);
            let width = (x(summary.median) - LEFT).max(1.0);
            put(
                &mut svg,
                format_args!(
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>"
                ),
            );
            put(
                &mut svg,
                format_args!(
                    "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#333\"/>",
                    x(summary.low),
                    x(summary.high)
                ),
            );
            // Behind the end of the thin line.
            text(
                &mut svg,
                (x(summary.high.max(summary.median)) + 6.0, y + 12.0),
                "start",
                &figure(summary.median),
            );
        }
        svg
    }

    fn html(&self) -> String {
        let mut html = String::from(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>windway beside other libraries</title>\n\
             <style>body{font:15px sans-serif;max-width:900px;margin:2em auto;color:#222}table{border-collapse:collapse}\
             td,th{padding:3px 10px;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}</style>\n\
             <h1>windway beside other libraries</h1>\n\
             <p>Each library is used as its documentation shows, with its defaults; <code>src/subjects/</code> has each use, \
             with a comment at each deviation. The origin is a process of its own, each measurement too, and the libraries take turns \
             within a round. Bars are medians, thin lines go from the lowest to the highest value.</p>\n",
        );
        for metric in METRICS {
            let chart = self.chart(metric);
            if chart.is_empty() {
                continue;
            }
            html += &format!("<h2>{}</h2>\n<p>{}</p>\n", metric.title, metric.about);
            html += &format!("{}{chart}</svg>\n", open_svg(WIDTH, HEIGHT));
            html += "<table><tr><th></th><th>median</th><th>lowest</th><th>highest</th></tr>\n";
            for subject in SUBJECTS {
                let Some(Summary { median, low, high }) = self.summary(metric.id, subject) else { continue };
                let (median, low, high) = (figure(median), figure(low), figure(high));
                html += &format!(
                    "<tr><td>{subject}</td><td>{median} {}</td><td>{low}</td><td>{high}</td></tr>\n",
                    metric.unit
                );
            }
            html += "</table>\n";
        }
        html += "<h2>Machine and versions</h2>\n<table>\n";
        for (name, value) in &self.machine {
            html += &format!("<tr><td>{name}</td><td style=\"text-align:left\">{value}</td></tr>\n");
        }
        html += "</table>\n";
        for note in &self.notes {
            html += &format!("<p>{note}</p>\n");
        }
        html
    }
}

/// Characters of the longest bar.
const BAR: f64 = 50.0;

/// Pixels of a chart, and where its bars begin.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 154.0;
const LEFT: f64 = 130.0;

fn open_svg(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    )
}

/// Writing to a `String` does not fail.
fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(element);
    out.push('\n');
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    put(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}
