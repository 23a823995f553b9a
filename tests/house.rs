//! The order of the modules: each row may use the rows below it, never a row above. Files of one row may use each other, but not
//! in a circle. And `ARCHITECTURE.md` names only what exists.
//!
//! The test reads `src/` as text: `use` declarations and paths that begin with `crate`, `self` or `super`. A name that a module
//! re-exports counts as an import from the file that defines it. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the top to the bottom. The first segment of a module's path gives its row.
const ROWS: &[&[&str]] = &[
    &["", "open", "media_source", "guide"],
    &["download", "queue"],
    &["stream"],
    &["source"],
    // Knows nothing of windway.
    &["abr"],
    &["storage"],
    &["downloader"],
    &["client"],
    &["media"],
    &["config", "hook"],
    &["cache"],
    &["event", "phase", "thread"],
    &["error"],
    &["buffer", "foreign", "id_map", "cancel", "types", "origin", "safe_url", "bandwidth", "watch"],
];

/// The modules of the crate, by their path: `a::b`. The root is the empty path.
struct Tree {
    modules: BTreeMap<String, Module>,
}

#[derive(Default)]
struct Module {
    /// Paths as the file writes them, each beginning with `crate`, `self` or `super`.
    paths: BTreeSet<String>,
    /// What it re-exports: the name, and its path.
    exports: BTreeMap<String, String>,
}

fn read_tree() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("a folder of the source").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).expect("below the root").with_extension("");
            let name = relative.to_str().expect("a name in UTF-8").replace('/', "::");
            let name = name.strip_suffix("::mod").unwrap_or(&name).to_owned();
            let name = if name == "lib" { String::new() } else { name };
            if name.rsplit("::").next() == Some("tests") {
                continue;
            }
            modules.insert(name, read_module(&fs::read_to_string(&path).expect("a source file")));
        }
    }
    Tree { modules }
}

fn read_module(text: &str) -> Module {
    let text = without_comments(text.split("\nmod tests {").next().unwrap_or(text));
    let mut module = Module::default();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("use ") {
        let is_word =
            rest[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let line = rest[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_export = line.starts_with("pub");
        rest = &rest[at + 4..];
        if !is_word || !(line.is_empty() || is_export) {
            continue;
        }
        let Some(end) = rest.find(';') else { break };
        for (name, path) in expand(&rest[..end]) {
            if is_export {
                module.exports.insert(name, path);
            } else {
                module.paths.insert(path);
            }
        }
        rest = &rest[end..];
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let before = text[..at].chars().next_back();
            if before.is_none_or(|before| !is_path(before)) {
                let path: String = text[at..].chars().take_while(|c| is_path(*c)).collect();
                // A group in braces, which the declaration that it belongs to has expanded.
                if path != start {
                    module.paths.insert(path.trim_end_matches(':').to_owned());
                }
            }
        }
    }
    module
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The names that a `use` declaration brings in, each with its path.
fn expand(declaration: &str) -> Vec<(String, String)> {
    let declaration = declaration.trim();
    let Some(open) = declaration.find('{') else {
        let (path, name) = declaration.split_once(" as ").unwrap_or((declaration, ""));
        let last = path.rsplit("::").next().unwrap_or(path);
        let name = if name.is_empty() { last } else { name };
        return vec![(name.trim().to_owned(), path.trim().to_owned())];
    };
    let prefix = &declaration[..open];
    let inner = declaration[open + 1..].trim_end().trim_end_matches('}');
    // The brace that closes this group, which others may follow inside of it.
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    let inner = if declaration.matches('{').count() > 1 {
        &declaration[open + 1..declaration.len() - 1]
    } else {
        inner
    };
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(&format!("{prefix}{part}"))).collect()
}

impl Tree {
    /// The module whose file defines what `path` names in `module`. `None` for other crates.
    fn resolve(&self, module: &str, path: &str, depth: usize) -> Option<String> {
        let mut segments = path.split("::").peekable();
        let mut at = match *segments.peek()? {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => parent(module).to_owned(),
            name if self.modules.contains_key(&join(module, name)) => module.to_owned(),
            _ => return None,
        };
        if matches!(*segments.peek()?, "crate" | "self" | "super") {
            segments.next();
        }
        for segment in segments {
            if segment == "super" {
                at = parent(&at).to_owned();
                continue;
            }
            let child = join(&at, segment);
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let export = self.modules.get(&at).and_then(|module| module.exports.get(segment));
            return match export {
                Some(path) if depth < 8 => self.resolve(&at, path, depth + 1).or(Some(at)),
                _ => Some(at),
            };
        }
        Some(at)
    }

    /// Which files each file imports from.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let imports = |(name, module): (&'_ String, &Module)| -> BTreeSet<String> {
            let found = module.paths.iter().filter_map(|path| self.resolve(name, path, 0));
            found.filter(|target| target != name).collect()
        };
        self.modules.iter().map(|entry| (entry.0.as_str(), imports(entry))).collect()
    }
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn row(module: &str) -> Option<usize> {
    let has = |row: &&[&str], prefix: &str| row.contains(&prefix);
    let first = module.split("::").next().unwrap_or_default();
    ROWS.iter().position(|row| has(row, first))
}

#[test]
fn no_module_imports_from_a_row_above() {
    let tree = read_tree();
    let mut upward = Vec::new();
    for (module, targets) in tree.imports() {
        let own = row(module).unwrap_or_else(|| panic!("{module} is in no row of this test"));
        for target in targets {
            let other = row(&target).unwrap_or_else(|| panic!("{target} is in no row of this test"));
            if other < own {
                upward.push(format!("{module} imports from {target}"));
            }
        }
    }
    assert!(upward.is_empty(), "imports from a row above:\n{}", upward.join("\n"));
}

#[test]
fn no_files_of_one_row_import_from_each_other_in_a_circle() {
    let tree = read_tree();
    let imports = tree.imports();
    let reaches = |from: &str| {
        let (mut seen, mut pending) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = pending.pop() {
            for target in imports.get(module.as_str()).into_iter().flatten() {
                if seen.insert(target.clone()) {
                    pending.push(target.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        imports.keys().map(|module| (*module, reaches(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, targets) in &reached {
        let circle: Vec<&str> = reached
            .iter()
            .filter(|(other, back)| targets.contains(**other) && back.contains(*module))
            .map(|(other, _)| *other)
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let circles: Vec<String> = circles.iter().map(|circle| circle.join(", ")).collect();
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}

#[test]
fn the_architecture_names_only_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut source = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            source += path.to_str().expect("a name in UTF-8");
            source.push('\n');
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source += &without_comments(&fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let known: BTreeSet<&str> = source.split(|c| !is_name(c)).collect();
    // Code spans; what stands between them is prose. Pictures have none.
    let prose: String = text.split("```").step_by(2).collect();
    let spans = prose.split('`').skip(1).step_by(2);
    let names = spans.flat_map(|span| span.split(|c| !is_name(c))).filter(|name| !name.is_empty());
    let unknown: BTreeSet<&str> = names.filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "ARCHITECTURE.md names what does not exist: {unknown:?}");
}

#[test]
fn this_test_understands_declarations() {
    let names = |text: &str| {
        expand(text).into_iter().map(|(name, path)| format!("{name}={path}")).collect::<Vec<_>>()
    };
    assert_eq!(names("super::a::B"), ["B=super::a::B"]);
    assert_eq!(names("super::{a::{B, C as D}, e}"), ["B=super::a::B", "D=super::a::C", "e=super::e"]);
    let module = read_module(
        "pub(crate) use x::Y;\nfn f() { crate::p::q(); }\n#[cfg(test)]\nmod tests { use super::z; }",
    );
    assert_eq!(module.exports.get("Y").map(String::as_str), Some("x::Y"));
    assert_eq!(module.paths.into_iter().collect::<Vec<_>>(), ["crate::p::q"]);
}
