//! The figures of the README are those of `compare/results.csv`, and its commands are those that `.ci/run` runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- comparison: compare/table.md -->";
const END: &str = "<!-- end of the comparison -->";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Medians by title with unit, and library.
fn medians(csv: &str) -> BTreeMap<(String, String), String> {
    let mut medians = BTreeMap::new();
    for line in csv.lines().skip(1) {
        // The title is in quotes, because it may have commas.
        let [_, title, rest] = line.splitn(3, '"').collect::<Vec<_>>()[..] else {
            panic!("no title: {line}")
        };
        let [_, unit, library, median, ..] = rest.split(',').collect::<Vec<_>>()[..] else {
            panic!("no median: {line}")
        };
        let title = if unit.is_empty() { title.to_owned() } else { format!("{title}, {unit}") };
        medians.insert((title, library.to_owned()), median.to_owned());
    }
    medians
}

/// What is wrong with the table of a section. Each of its figures has to be the median of its row and column.
fn faults(section: &str, csv: &str) -> Vec<String> {
    let medians = medians(csv);
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let (drawn, table) = section.rsplit_once("```").unwrap_or_default();
    let mut rows = table.lines().filter(|line| line.starts_with('|')).map(cells);
    let libraries = rows.next().expect("a table");
    let mut faults = plot_faults(drawn, &medians);
    for row in rows.skip(1) {
        for (library, figure) in libraries.iter().zip(&row).skip(1) {
            let median = medians.get(&(row[0].clone(), library.clone()));
            if median.map_or("–", String::as_str) != figure {
                faults.push(format!("{library}, {}: {figure} in the README, {median:?} measured", row[0]));
            }
        }
    }
    faults
}

/// What is wrong with the plots. Each bar has to stand for the median of its title and library, and to be as long as the others show.
fn plot_faults(drawn: &str, medians: &BTreeMap<(String, String), String>) -> Vec<String> {
    let mut faults = Vec::new();
    for plot in drawn.split("\n\n").filter(|plot| plot.contains('█')) {
        let (title, bars) = plot.trim().trim_start_matches("```text").trim().split_once('\n').expect("bars");
        let title = title.split(" (").next().unwrap_or_default();
        let bars: Vec<(&str, usize, &str)> = bars
            .lines()
            .map(|line| {
                let (library, bar) = line.split_at(line.find('█').expect("a bar"));
                let (bar, figure) = bar.rsplit_once(' ').expect("a figure");
                (library.trim(), bar.chars().count(), figure)
            })
            .collect();
        let most = bars.iter().filter_map(|(_, _, figure)| figure.parse().ok()).fold(0.0, f64::max);
        for (library, len, figure) in bars {
            let median = medians.get(&(title.to_owned(), library.to_owned()));
            let value: f64 = figure.parse().unwrap_or(f64::NAN);
            let is_right_length = (50.0 * value / most - len as f64).abs() <= 1.0;
            if median.map(String::as_str) != Some(figure) || !is_right_length {
                faults
                    .push(format!("{library}, {title}: {len} characters for {figure}, {median:?} measured"));
            }
        }
    }
    faults
}

#[test]
fn the_figures_of_the_comparison_were_measured() {
    let readme = read("README.md");
    let section = readme.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).expect("the section").0;
    let wrong = faults(section, &read("compare/results.csv"));
    assert!(wrong.is_empty(), "copy compare/table.md into the README:\n{}", wrong.join("\n"));
    assert_eq!(section.trim(), read("compare/table.md").trim(), "copy compare/table.md into the README");
}

#[test]
fn a_figure_that_was_not_measured_is_found() {
    let csv = "metric,title,unit,subject,median,lowest,highest,runs\nseek,\"Far seek, cold\",ms,windway,41.0,40.9,42.0,7\n";
    let table = |figure: &str| {
        format!(
            "```text\nFar seek, cold, ms (less is better)\n  windway ██████████████████████████████████████████████████ {figure}\n```\n\n| | windway | ureq |\n|---|---|---|\n| Far seek, cold, ms | {figure} | – |\n"
        )
    };
    assert_eq!(faults(&table("41.0"), csv), Vec::<String>::new());
    assert_eq!(faults(&table("40.0"), csv).len(), 2);
    assert_eq!(faults(&table("41.0").replace("██████", "█"), csv).len(), 1);
    assert_eq!(faults(&table("41.0").replace('–', "39.0"), csv).len(), 1);
}

/// The README is the first page of the documentation, and of the package in a registry. There is no file of the repository beside it.
#[test]
fn the_readme_links_to_no_file_beside_it() {
    let readme = read("README.md");
    let links: Vec<&str> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let beside: Vec<&&str> =
        links.iter().filter(|link| !link.starts_with("https://") && !link.starts_with('#')).collect();
    assert!(beside.is_empty(), "broken where it is rendered: {beside:?}");
}
